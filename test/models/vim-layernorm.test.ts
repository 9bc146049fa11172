/**
 * Every variant of Vim against an independent implementation in double precision (vim-reference.ts): the golden cases
 * cover RMSNorm, d_state 16 and d_conv 4 only. The reference itself is held to the golden numbers first.
 */
import path from 'node:path';
import { expect } from 'chai';
import { backends } from '../../lib/device.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { defineModel } from '../../lib/models/registry.js';
import { EngineSession } from '../../lib/native/session.js';
import { SEED } from '../ops/random.js';
import { floats, json, maxDifference, shared } from '../support/shared.js';
import { randomPictures, randomVim, shapesOf, type Variant } from './random-vim.js';
import { type ClassToken, type StateDict, vimReference } from './vim-reference.js';

const IMAGES = 2;

const VARIANTS: Readonly<Record<string, Variant>> = {
  'LayerNorm with biases': { layerNorm: true },
  'LayerNorm, head class token, not halved': { layerNorm: true, classToken: 'head', divideOut: false },
  'LayerNorm, no class token': { layerNorm: true, classToken: 'none' },
  'LayerNorm, double class token': { layerNorm: true, classToken: 'double', divideOut: false },
  'LayerNorm, rope': { layerNorm: true, rope: true, classToken: 'none' },
  'another epsilon': { epsilon: 0.05 },
  'LayerNorm, another epsilon': { layerNorm: true, epsilon: 0.05 },
  'rope without rotated residual': { rope: true, ropeResidual: false, classToken: 'none', depth: 3 },
  'rope without rotated residual, middle class token': { rope: true, ropeResidual: false, depth: 3 },
  'rope, head class token': { rope: true, classToken: 'head' },
  'rope and no pos_embed': { rope: true, positionEmbedding: false, classToken: 'none' },
  'no pos_embed': { positionEmbedding: false },
  'in_proj bias': { inBias: true },
  'out_proj bias': { outBias: true },
  'both biases, LayerNorm, not halved': { inBias: true, outBias: true, layerNorm: true, divideOut: false },
  'd_state 1': { dState: 1 },
  'd_state 5': { dState: 5 },
  'd_state 8': { dState: 8 },
  'd_state 24': { dState: 24 },
  'd_state 32': { dState: 32 },
  'd_conv 2': { dConv: 2 },
  'd_conv 3': { dConv: 3 },
  'd_conv longer than the sequence': { dConv: 7, imageSize: 16 },
  'expand 1': { expand: 1 },
  'expand 3': { expand: 3 },
  'odd dim': { dim: 33 },
  'odd dim, odd d_state, expand 1, biases': { dim: 19, dState: 7, expand: 1, inBias: true, outBias: true },
  'dim 1': { dim: 1, classes: 3 },
  'dt_rank that is not dim / 16': { dtRank: 5 },
  'one patch': { imageSize: 8 },
  'one patch, no class token': { imageSize: 8, classToken: 'none' },
  'patches that overlap': { imageSize: 24, stride: 4 },
  'patches with gaps between them': { imageSize: 30, patch: 6, stride: 8 },
  'pixels left over at the edge': { imageSize: 37 },
  'one layer': { depth: 1 },
  'one class': { classes: 1 },
  'one colour channel': { channels: 1 },
};

function reference(state: StateDict, options: Parameters<typeof vimReference>[1], pictures: Float32Array, count: number): number[] {
  const size = pictures.length / count;
  return Array.from({ length: count }, (_, i) => [...vimReference(state, options, pictures.subarray(i * size, (i + 1) * size))]).flat();
}

describe('Vim variants against a reference in double precision', () => {
  const GOLDEN: readonly [string, ClassToken, boolean, boolean][] = [
    ['A_vim_odd', 'middle', true, false],
    ['A_vim_rope_midcls', 'middle', true, true],
    ['A_vim_headcls_nodiv', 'head', false, false],
    ['A_vim_double_cls', 'double', true, false],
    ['A_vim_nocls_meanpool', 'none', true, false],
  ];
  for (const [name, classToken, divideOut, ropeResidual] of GOLDEN) {
    it(`the reference gives the official numbers: ${name}`, async function () {
      const dir = shared(this, 'golden', name);
      const { constructor: c, batch } = json(path.join(dir, 'config.json')) as { constructor: { img_size: number; stride: number }; batch: number };
      const file = await openCheckpoint(path.join(dir, 'model.pth'));
      const state = new Map<string, { shape: readonly number[]; data: Float32Array }>();
      for (const [tensor, { shape }] of file.entries) state.set(tensor, { shape, data: await file.readFloat32(tensor) });
      await file.close();
      const options = { imageSize: c.img_size, stride: c.stride, classToken, divideOut, ropeResidual, epsilon: 1e-5 };
      const logits = reference(state, options, await floats(dir, 'input.npy'), batch);
      expect(maxDifference(logits, await floats(dir, 'logits.npy'))).to.be.below(1e-5);
    });
  }

  for (const [title, variant] of Object.entries(VARIANTS)) {
    it(`${title}: logits on every instruction set`, async () => {
      const vim = randomVim(variant, title);
      const pictures = randomPictures(vim, IMAGES, `${title}, pictures`);
      const wanted = reference(vim.weights, vim.reference, pictures, IMAGES);
      const scale = Math.max(1, ...wanted.map(Math.abs));
      expect(scale, 'logits that say something').to.be.within(1, 100);
      const definition = defineModel(shapesOf(vim.weights), { config: { ...vim.config, preprocess: { size: vim.imageSize, mean: [0, 0, 0], std: [1, 1, 1] } } });
      const program = definition.buildProgram(vim.weights);
      for (const isa of backends().cpu.isas) {
        const session = new EngineSession(program, { isa, threads: 2 });
        const { [program.output]: logits } = await session.run({ images: IMAGES, feeds: { [program.input]: pictures }, fetches: [program.output] });
        await session.dispose();
        expect(maxDifference(logits!, wanted) / scale, `${isa}, SEED=${SEED}`).to.be.below(1e-4);
      }
    });
  }

  it('the comparison sees each of these choices: a reference that decides otherwise disagrees', () => {
    const vim = randomVim({ rope: true, layerNorm: true, classToken: 'none' }, 'sensitivity');
    const picture = randomPictures(vim, 1, 'sensitivity, pictures');
    const right = vimReference(vim.weights, vim.reference, picture);
    const without = (names: readonly string[]): StateDict => new Map([...vim.weights].filter(([name]) => !names.includes(name)));
    const others: Record<string, ArrayLike<number>> = {
      divideOut: vimReference(vim.weights, { ...vim.reference, divideOut: false }, picture),
      ropeResidual: vimReference(vim.weights, { ...vim.reference, ropeResidual: false }, picture),
      epsilon: vimReference(vim.weights, { ...vim.reference, epsilon: 0.05 }, picture),
      'norm bias': vimReference(without(['layers.1.norm.bias']), vim.reference, picture),
      pos_embed: vimReference(without(['pos_embed']), vim.reference, picture),
    };
    for (const [what, logits] of Object.entries(others)) expect(maxDifference(logits, right), `${what}, SEED=${SEED}`).to.be.above(1e-3);
  });
});
