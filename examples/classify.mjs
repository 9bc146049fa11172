// Labels for pictures: node examples/classify.mjs MODEL PICTURE… [--config FILE.json]
import { parseArgs } from 'node:util';
import { load } from 'ptq4vm-native';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { config: { type: 'string' } } });
const [file, ...pictures] = positionals;
if (pictures.length === 0) {
  console.error('usage: node examples/classify.mjs MODEL PICTURE… [--config FILE.json]');
  process.exit(2);
}

const model = await load(file, { config: values.config });
try {
  const predictions = await model.predict(pictures, { topK: 3 });
  pictures.forEach((picture, i) => {
    const labels = predictions[i].map(({ label, score }) => `${label} ${(100 * score).toFixed(1)} %`);
    console.log(`${picture}: ${labels.join(', ')}`);
  });
} finally {
  await model.dispose();
}
