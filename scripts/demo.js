/**
 * The main job on real input: `npm run demo`. Quantizes the bundled Vim checkpoint to W8A8 and W4A4 with the bundled
 * calibration pictures, evaluates float, W8A8 and W4A4 on the bundled validation pictures and prints one table.
 * `--json` prints the rows; `--save` writes them to bench/results/demo-shapes.json for the docs.
 */
'use strict';
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { imageFolder, load, quantize } = require('../dist/index.js');

const DEMO = path.resolve(__dirname, '../demo/vim-shapes');
const BITS = [[8, 8], [4, 4]];

async function main() {
  const say = process.argv.includes('--json') ? () => undefined : (line) => process.stderr.write(`${line}\n`);
  const started = performance.now();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ptq4vm-demo-'));
  try {
    const checkpoint = path.join(DEMO, 'model.pth');
    const float = await load(checkpoint, { config: path.join(DEMO, 'config.json') });
    const val = imageFolder(path.join(DEMO, 'val'));
    const calib = imageFolder(path.join(DEMO, 'calib'));
    say(`Vim (${float.config.embed_dim} wide, ${float.config.depth} deep) on ${float.device.kind}/${float.device.isa}, ${float.device.threads} threads`);
    const report = await float.evaluate(val);
    const rows = [{ model: 'float32', top1: report.top1, agreement: 1, logitError: 0, kl: 0, bytes: fs.statSync(checkpoint).size, imagesPerSecond: report.imagesPerSecond }];
    for (const [weights, activations] of BITS) {
      const name = `W${weights}A${activations}`;
      say(`quantizing to ${name} …`);
      const quantized = await quantize(float, { weights, activations, calibration: calib });
      const file = path.join(folder, `vim-shapes.${name.toLowerCase()}.safetensors`);
      await quantized.save(file);
      await quantized.dispose();
      // What is evaluated is the file, as a user would load it.
      const loaded = await load(file);
      const { top1, reference, imagesPerSecond } = await loaded.evaluate(val, { reference: float });
      rows.push({ model: name, top1, agreement: reference.agreement, logitError: reference.logitError, kl: reference.kl, bytes: fs.statSync(file).size, imagesPerSecond });
      await loaded.dispose();
    }
    await float.dispose();
    if (process.argv.includes('--save')) save(rows, val.length);
    if (process.argv.includes('--json')) console.log(JSON.stringify({ images: val.length, rows }, null, 1));
    else print(rows, val.length);
    say(`${((performance.now() - started) / 1000).toFixed(1)} s`);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

function print(rows, images) {
  const cells = [
    ['model', 'top-1', 'same class as float', 'logit error', 'file', 'images/s'],
    ...rows.map((r) => [
      r.model, `${(100 * r.top1).toFixed(1)} %`, `${(100 * r.agreement).toFixed(1)} %`, r.logitError.toFixed(3), `${Math.round(r.bytes / 1000)} kB`,
      String(Math.round(r.imagesPerSecond)),
    ]),
  ];
  const widths = cells[0].map((_, c) => Math.max(...cells.map((row) => row[c].length)));
  for (const row of cells) console.log(row.map((cell, c) => (c === 0 ? cell.padEnd(widths[c]) : cell.padStart(widths[c]))).join('   '));
  console.log(`\n${images} pictures that calibration did not see.`);
}

function save(rows, images) {
  const { machine, commit, command, ROOT } = require('../bench/support/machine.js');
  const result = { name: 'demo-shapes', command: command(), commit: commit(), date: new Date().toISOString().slice(0, 10), machine: machine(), images, rows };
  fs.writeFileSync(path.join(ROOT, 'bench/results/demo-shapes.json'), `${JSON.stringify(result, null, 1)}\n`);
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
