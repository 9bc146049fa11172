/** Vim in the official shapes with random weights: speed does not depend on what was learned. */
'use strict';
const { defineModel } = require('../../dist/models/registry.js');
const { resolveVimConfig } = require('../../dist/models/vim-config.js');
const { vimTensors } = require('../../dist/models/vim.js');

const WIDTHS = { 'vim-tiny': 192, 'vim-small': 384, 'vim-base': 768 };

/** Numbers in [−1, 1), the same for every run (linear congruential, Numerical Recipes' constants). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Float Program and definition of `name`, 224 px, 1000 classes. Values keep activations in the range of a trained model. */
function randomVim(name, seed = 1) {
  const dim = WIDTHS[name];
  if (dim === undefined) throw new Error(`expected one of ${Object.keys(WIDTHS).join(', ')} but received '${name}'`);
  const next = generator(seed);
  const config = vimConfigOf(dim);
  const weights = new Map();
  for (const [tensor, shape] of vimTensors(config, { has: () => false })) {
    const count = shape.reduce((a, b) => a * b, 1);
    weights.set(tensor, { shape, dtype: 'f32', data: Float32Array.from({ length: count }, (_, i) => value(tensor, shape, i, next)) });
  }
  const definition = defineModel(new Map([...weights].map(([tensor, w]) => [tensor, w.shape])));
  return { definition, weights, program: definition.buildProgram(weights) };
}

/** The tensors that fix a Vim's configuration, for the resolver that `load` uses too. */
function vimConfigOf(dim) {
  const rank = Math.ceil(dim / 16);
  const shapes = new Map([
    ['patch_embed.proj.weight', [dim, 3, 16, 16]],
    ['head.weight', [1000, dim]],
    ['cls_token', [1, 1, dim]],
    ['pos_embed', [1, 197, dim]],
    ['layers.0.mixer.A_log', [2 * dim, 16]],
    ['layers.0.mixer.A_b_log', [2 * dim, 16]],
    ['layers.0.mixer.conv1d.weight', [2 * dim, 1, 4]],
    ['layers.0.mixer.dt_proj.weight', [2 * dim, rank]],
  ]);
  for (let i = 0; i < 24; i++) shapes.set(`layers.${i}.mixer.in_proj.weight`, [4 * dim, dim]);
  return resolveVimConfig(shapes, []).config;
}

function value(tensor, shape, i, next) {
  if (tensor.includes('.A_')) return Math.log(1 + (i % 16)); // the official initialization
  if (tensor.endsWith('dt_proj.bias') || tensor.endsWith('dt_proj_b.bias')) return -4 + next();
  if (tensor.includes('norm') || /\.D(_b)?$/.test(tensor)) return 1 + 0.1 * next();
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  return next() * Math.sqrt(3 / fanIn);
}

/** [count, 3, 224, 224], already normalised: smooth in space, as pictures are, with noise. */
function randomPictures(count, seed = 2) {
  const next = generator(seed);
  const images = new Float32Array(count * 3 * 224 * 224);
  for (let n = 0, k = 0; n < count; n++) {
    for (let plane = 0; plane < 3; plane++) {
      const [a, b, phase] = [next() * 0.1, next() * 0.1, next() * 3];
      for (let y = 0; y < 224; y++) for (let x = 0; x < 224; x++, k++) images[k] = Math.sin(a * y + b * x + phase) + 0.3 * next();
    }
  }
  return images;
}

module.exports = { randomVim, randomPictures, VIM_NAMES: Object.keys(WIDTHS) };
