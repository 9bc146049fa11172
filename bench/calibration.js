/**
 * Time and memory of quantization without learning at full size:
 *   node bench/calibration.js [--model vim-base] [--images 256] [--weights 8] [--activations 8] [--threads 0]
 * Writes bench/results/calibration-MODEL.json.
 */
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { machine, commit, command, ROOT } = require('./support/machine.js');
const { randomPictures, randomVim } = require('./support/random-vim.js');
const { calibrate } = require('../dist/ptq/calibrate.js');
const { makeRecipe } = require('../dist/ptq/recipe.js');

async function main() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'vim-base' }, images: { type: 'string', default: '256' }, weights: { type: 'string', default: '8' },
      activations: { type: 'string', default: '8' }, threads: { type: 'string', default: '0' },
    },
  });
  const images = Number(values.images);
  const { program } = randomVim(values.model);
  const pictures = randomPictures(images);
  const recipe = makeRecipe({ weights: Number(values.weights), activations: Number(values.activations) });
  const started = performance.now();
  let block = '';
  const layers = await calibrate(program, pictures, images, recipe, {
    threads: Number(values.threads),
    onProgress({ detail }) {
      const at = detail.split('.').slice(0, 2).join('.');
      if (at !== block) console.error(`${at}  ${((performance.now() - started) / 1000).toFixed(0)} s`);
      block = at;
    },
  });
  const seconds = (performance.now() - started) / 1000;
  const result = {
    name: `calibration-${values.model}`, command: command(), commit: commit(), date: new Date().toISOString().slice(0, 10), machine: machine(),
    rows: [{ model: values.model, images, weights: recipe.weights, activations: recipe.activations, linears: layers.size, seconds: Math.round(seconds), peakMemoryGB: Math.round(process.resourceUsage().maxRSS / 1e5) / 10 }],
  };
  fs.writeFileSync(path.join(ROOT, 'bench/results', `${result.name}.json`), `${JSON.stringify(result, null, 1)}\n`);
  console.log(JSON.stringify(result.rows[0]));
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
