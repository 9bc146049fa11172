// A float checkpoint to a W8A8 file, and how close it stays:
//   node examples/quantize.mjs vim.pth vim.json calib/ val/ vim.w8a8.safetensors
import { imageFolder, load, quantize } from 'ptq4vm-native';

const [checkpoint, config, calibration, validation, output] = process.argv.slice(2);
if (output === undefined) {
  console.error('usage: node examples/quantize.mjs CHECKPOINT CONFIG.json CALIBRATION_DIR VALIDATION_DIR OUTPUT.safetensors');
  process.exit(2);
}

const onProgress = ({ stage, done, total }) => {
  if (done === total) console.error(`${stage}: ${total} done`);
};

const float = await load(checkpoint, { config });
const quantized = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(calibration), onProgress });
await quantized.save(output);

const report = await quantized.evaluate(imageFolder(validation), { reference: float });
console.log(`top-1 ${(100 * report.top1).toFixed(1)} % (float ${(100 * report.reference.top1).toFixed(1)} %)`);
console.log(`same class as float on ${(100 * report.reference.agreement).toFixed(1)} % of ${report.images} pictures`);

await quantized.dispose();
await float.dispose();
