/**
 * Accuracy of quantization without learning: methods × bits on one checkpoint.
 *
 *   node bench/accuracy.js NAME MODEL CONFIG CALIBRATION_DIR VALIDATION_DIR [--samples 256] [--threads 0]
 *
 * Every row quantizes from the same calibration pictures, runs the integer engine on all validation pictures and
 * compares with the float model. Writes bench/results/accuracy-NAME.json; bench/tables.js makes the tables in docs.
 */
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { machine, commit, command, ROOT } = require('./support/machine.js');
const { imageFolder, load, quantize } = require('../dist/index.js');

const BITS = [[8, 8], [6, 6], [4, 8], [4, 4]];
/** [row name, options]. One step per tensor for the first three, one per token position for the others. */
const METHODS = [
  ['MinMax', { method: 'minmax' }],
  ['SmoothQuant, plain ranges', { method: 'smoothquant' }],
  ['SmoothQuant, grid search', { method: 'smoothquant', grid: true }],
  ['PTS, plain ranges', { method: 'pts', grid: false }],
  ['PTS, grid search', { method: 'pts' }],
  ['PTS, smoothing and grid search', { method: 'pts+smooth' }],
];

async function main() {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { samples: { type: 'string', default: '256' }, threads: { type: 'string', default: '0' } },
  });
  const [name, model, config, calibrationDir, dataDir] = positionals;
  if (dataDir === undefined) throw new Error('usage: node bench/accuracy.js NAME MODEL CONFIG CALIBRATION_DIR VALIDATION_DIR');
  const samples = Number(values.samples);
  const calibration = imageFolder(calibrationDir);
  const data = imageFolder(dataDir);
  const float = await load(model, { config, threads: Number(values.threads) });
  const base = await float.evaluate(data);
  const rows = [{ method: 'float', weights: 32, activations: 32, top1: base.top1, top5: base.top5, agreement: 1, kl: 0, logitError: 0 }];
  for (const [method, options] of METHODS) {
    for (const [weights, activations] of BITS) {
      const started = performance.now();
      const quantized = await quantize(float, { weights, activations, samples, calibration, ...options });
      const seconds = (performance.now() - started) / 1000;
      const { top1, top5, reference } = await quantized.evaluate(data, { reference: float });
      rows.push({ method, weights, activations, top1, top5, agreement: reference.agreement, kl: reference.kl, logitError: reference.logitError, calibrationSeconds: round(seconds) });
      console.error(`${method} W${weights}A${activations}: top-1 ${(100 * top1).toFixed(1)}  agreement ${(100 * reference.agreement).toFixed(1)}  KL ${reference.kl.toFixed(4)}`);
      await quantized.dispose();
    }
  }
  await float.dispose();
  const result = { name, command: command(), commit: commit(), date: new Date().toISOString().slice(0, 10), machine: machine(), images: base.images, calibrationImages: Math.min(samples, calibration.length), rows };
  const file = path.join(ROOT, 'bench/results', `accuracy-${name}.json`);
  fs.writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
  console.error(`wrote ${path.relative(ROOT, file)}`);
}

const round = (x) => Math.round(x * 100) / 100;

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
