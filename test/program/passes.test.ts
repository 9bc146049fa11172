/** Programs and the passes over them: what every Program must satisfy, and that no pass changes what is computed. */
import path from 'node:path';
import { expect } from 'chai';
import { backends } from '../../lib/device.js';
import { load, type Model, quantize } from '../../lib/model.js';
import { EngineSession } from '../../lib/native/session.js';
import { fuseProgram } from '../../lib/program/fuse.js';
import type { Program } from '../../lib/program/ir.js';
import { quantizeProgram } from '../../lib/program/quantize.js';
import { reads, rewriteOps, writes } from '../../lib/program/rewrite.js';
import type { QuantizedLinear } from '../../lib/quantizer.js';
import { scratchFolder } from '../io/support.js';
import { memoryDataset, type RandomVim, randomPictures, randomVim, type Variant, writeVim } from '../models/random-vim.js';
import { Random, SEED } from '../ops/random.js';
import { maxDifference } from '../support/shared.js';

const IMAGES = 3;
const VARIANTS: Readonly<Record<string, Variant>> = {
  published: {},
  'LayerNorm, biases, no class token': { layerNorm: true, inBias: true, outBias: true, classToken: 'none' },
  'rope, head class token, not halved': { rope: true, classToken: 'head', divideOut: false, depth: 3 },
  'double class token, no pos_embed': { classToken: 'double', positionEmbedding: false },
  'odd sizes': { dim: 37, dState: 7, dConv: 3, dtRank: 3, expand: 1, imageSize: 40 },
  'one patch': { imageSize: 8, classToken: 'none', depth: 1 },
};

/** What the engine and the calibration rely on. */
function checkProgram(program: Program, what: string): void {
  const specs = new Map(program.tensors.map((t) => [t.name, t]));
  expect(specs.size, `${what}: tensor names differ`).to.equal(program.tensors.length);
  expect(new Set(program.ops.map((op) => op.name)).size, `${what}: op names differ`).to.equal(program.ops.length);
  const written = new Set([program.input]);
  const touched = new Set([program.input]);
  for (const op of program.ops) {
    for (const ref of [...reads(op), ...writes(op)]) {
      const spec = specs.get(ref.tensor);
      expect(spec, `${what}: ${op.name} names '${ref.tensor}'`).to.not.equal(undefined);
      expect((ref.from ?? 0) + (ref.channels ?? 0), `${what}: ${op.name} stays inside '${ref.tensor}'`).to.be.at.most(spec!.channels);
      touched.add(ref.tensor);
    }
    for (const ref of reads(op)) expect(written.has(ref.tensor), `${what}: ${op.name} reads '${ref.tensor}' after it is made`).to.equal(true);
    for (const ref of writes(op)) {
      expect(written.has(ref.tensor), `${what}: '${ref.tensor}' is made once`).to.equal(false);
      written.add(ref.tensor);
    }
  }
  expect(written.has(program.output), `${what}: the output is made`).to.equal(true);
  expect([...specs.keys()].filter((name) => !touched.has(name)), `${what}: tensors that nobody uses`).to.deep.equal([]);
  let end = 0;
  for (const block of program.blocks) {
    expect(block.first, `${what}: blocks follow each other`).to.be.at.least(end);
    expect(block.end, `${what}: ${block.name} is not empty`).to.be.above(block.first);
    ({ end } = block);
    const inside = new Set(program.ops.slice(block.first, block.end).flatMap((op) => writes(op).map((r) => r.tensor)));
    expect(inside.has(block.lossTensor), `${what}: ${block.name} makes its loss tensor`).to.equal(true);
    const outside = program.ops.slice(block.first, block.end).flatMap((op) => reads(op).map((r) => r.tensor)).filter((t) => !inside.has(t));
    expect([...new Set(outside)], `${what}: inputs of ${block.name}`).to.have.members([...block.inputs]);
  }
  expect(end, `${what}: blocks end inside the list`).to.be.at.most(program.ops.length);
  for (const { name, len, table } of program.linears) {
    expect(program.ops.filter((op) => op.name === name).map((op) => op.kind), `${what}: ${name}`).to.have.length(1);
    if (table !== undefined) expect([...table].sort((a, b) => a - b), `${what}: table of ${name} is a permutation`).to.deep.equal([...Array(len).keys()]);
  }
}

async function logits(program: Program, pictures: Float32Array, options = {}): Promise<Float32Array> {
  const session = new EngineSession(program, options);
  try {
    return (await session.run({ images: IMAGES, feeds: { [program.input]: pictures }, fetches: [program.output] }))[program.output] as Float32Array;
  } finally {
    await session.dispose();
  }
}

/**
 * Relative difference of int and fake logits: codes that round the other way are all there is. Over 4500 runs the worst was
 * 0.008; a wrong step, zero point, order or bias is far beyond.
 */
const NEAR = 0.05;
const relative = (a: Float32Array, b: Float32Array) => Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...b);

describe('program passes', () => {
  const folder = scratchFolder();
  for (const [title, variant] of Object.entries(VARIANTS)) {
    describe(title, () => {
      let vim: RandomVim;
      let float: Model;
      let pictures: Float32Array;
      const layersOf = async (weights: number, activations: number, method?: string): Promise<Map<string, QuantizedLinear>> => {
        const calibration = memoryDataset(randomPictures(vim, 16, `${title} calibration`), 16);
        const q = await quantize(float, { weights, activations, method, calibration });
        await q.dispose();
        return new Map(q.quantization!.layers);
      };

      before(async () => {
        vim = randomVim(variant, `passes ${title}`);
        const config = { ...vim.config, preprocess: { size: vim.imageSize, mean: [0, 0, 0], std: [1, 1, 1] } };
        float = await load(await writeVim(path.join(folder(), 'vim.safetensors'), vim.weights), { config });
        pictures = randomPictures(vim, IMAGES, `${title} pictures`);
      });
      after(() => float.dispose());

      it('every Program is in order: float, int, fake, fused', async () => {
        const { program } = float.parts;
        const layers = await layersOf(8, 8);
        checkProgram(program, 'float');
        const [int, fake] = [quantizeProgram(program, layers, 'int'), quantizeProgram(program, layers, 'fake')];
        checkProgram(int, 'int');
        checkProgram(fake, 'fake');
        const fused = fuseProgram(int);
        checkProgram(fused, 'fused');
        expect(fused.blocks.map((b) => b.name)).to.deep.equal(program.blocks.map((b) => b.name));
        expect(fused.linears).to.deep.equal(program.linears);
        // in_proj (norm), x_proj ×2 (convolution) and out_proj (scan) of each layer; dt_proj reads a slice and keeps its own.
        expect(int.ops.length - fused.ops.length).to.equal(4 * program.blocks.length);
        expect(fuseProgram(fused).ops, 'fusing again finds nothing').to.deep.equal(fused.ops);
        expect(fuseProgram(program).ops, 'nothing to fuse in float').to.deep.equal(program.ops);
      });

      it('steps are stored in scan order and applied to the rows that the scan visits', async () => {
        const { program } = float.parts;
        const layers = await layersOf(8, 8, 'pts');
        let turned = 0;
        for (const mode of ['int', 'fake'] as const) {
          const { ops } = quantizeProgram(program, layers, mode);
          for (const { name, table } of program.linears) {
            const { actScale, actZero } = layers.get(name)!;
            const quantizer = ops[ops.findIndex((op) => op.name === name) - 1]!;
            const constants = (mode === 'int' ? ops.find((op) => op.name === name)! : quantizer).constants as { actScale: Float32Array; actZero: Int32Array };
            actScale.forEach((scale, t) => {
              const row = table?.[t] ?? t;
              expect([constants.actScale[row], constants.actZero[row]], `${mode} ${name}, position ${t}`).to.deep.equal([scale, actZero[t]]);
              if (mode === 'int') expect((quantizer.constants as { qActRscale: Float32Array }).qActRscale[row]).to.equal(Math.fround(1 / scale));
            });
            if (table !== undefined) turned++;
            expect(table?.[0] ?? -1, 'the backward direction begins at the last token').to.equal(name.endsWith('_b') ? actScale.length - 1 : -1);
          }
        }
        expect(turned).to.equal(2 * 2 * program.blocks.length);
      });

      it('fused and unfused give equal bits on every instruction set, int is near to fake', async () => {
        for (const [weights, activations, method] of [[8, 8, 'pts+smooth'], [4, 8, 'smoothquant'], [6, 6, 'pts']] as const) {
          const layers = await layersOf(weights, activations, method);
          const int = quantizeProgram(float.parts.program, layers, 'int');
          const fused = fuseProgram(int);
          const fake = await logits(quantizeProgram(float.parts.program, layers, 'fake'), pictures);
          for (const isa of backends().cpu.isas) {
            const label = `${isa} ${method}, SEED=${SEED}`;
            const plain = await logits(int, pictures, { isa });
            expect(await logits(fused, pictures, { isa }), label).to.deep.equal(plain);
            expect(relative(plain, fake), label).to.be.below(NEAR);
          }
        }
      });

      it('any subset of the linears may be quantized; the others stay as they are', async () => {
        const { program } = float.parts;
        const layers = await layersOf(8, 8);
        const draw = new Random(`subset ${title}`);
        const exact = await logits(program, pictures);
        expect(await logits(fuseProgram(quantizeProgram(program, new Map(), 'int')), pictures)).to.deep.equal(exact);
        for (let round = 0; round < 6; round++) {
          const some = new Map([...layers].filter(() => draw.next() < 0.4));
          const int = quantizeProgram(program, some, 'int');
          checkProgram(int, `subset ${round}`);
          expect(int.ops.filter((op) => op.kind === 'linearI8').map((op) => op.name)).to.have.members([...some.keys()]);
          const fused = fuseProgram(int);
          checkProgram(fused, `fused subset ${round}`);
          const plain = await logits(int, pictures);
          expect(await logits(fused, pictures), `SEED=${SEED}`).to.deep.equal(plain);
          expect(relative(plain, await logits(quantizeProgram(program, some, 'fake'), pictures)), `SEED=${SEED}`).to.be.below(NEAR);
        }
      });

      it('mixed bits and steps per tensor and per token side by side', async () => {
        const { program } = float.parts;
        const kinds = [await layersOf(8, 8, 'pts'), await layersOf(6, 8, 'minmax'), await layersOf(8, 6, 'pts+smooth')];
        const mixed = new Map([...kinds[0]!.keys()].map((name, i) => [name, kinds[i % kinds.length]!.get(name)!]));
        const int = quantizeProgram(program, mixed, 'int');
        const plain = await logits(int, pictures);
        expect(await logits(fuseProgram(int), pictures)).to.deep.equal(plain);
        expect(relative(plain, await logits(quantizeProgram(program, mixed, 'fake'), pictures)), `SEED=${SEED}`).to.be.below(NEAR);
      });

      it('blocks run one by one give the logits of the whole, for any cut', async () => {
        const { program } = float.parts;
        const whole = await logits(program, pictures);
        const session = new EngineSession(program);
        const draw = new Random(`cuts ${title}`);
        for (let round = 0; round < 4; round++) {
          const cuts = [0, ...[...program.ops.keys()].slice(1).filter(() => draw.next() < 0.3), program.ops.length];
          let values: Record<string, Float32Array | Uint8Array> = { [program.input]: pictures };
          for (let i = 0; i + 1 < cuts.length; i++) {
            const [first, end] = [cuts[i]!, cuts[i + 1]!];
            const later = new Set([...program.ops.slice(end).flatMap((op) => reads(op).map((r) => r.tensor)), ...(end === program.ops.length ? [program.output] : [])]);
            const made = program.ops.slice(first, end).flatMap((op) => writes(op).map((r) => r.tensor)).filter((t) => later.has(t));
            const inside = new Set(program.ops.slice(first, end).flatMap((op) => reads(op).map((r) => r.tensor)));
            const feeds = Object.fromEntries(Object.entries(values).filter(([name]) => inside.has(name)));
            values = { ...values, ...(await session.run({ images: IMAGES, feeds, fetches: made, first, end })) };
          }
          expect(maxDifference(values[program.output]!, whole), `cuts at ${cuts.join(', ')}, SEED=${SEED}`).to.equal(0);
        }
        await session.dispose();
      });
    });
  }

  it('rewriteOps: replaced one by one, blocks follow, unused tensors go', () => {
    const ref = (tensor: string) => ({ tensor });
    const spec = (name: string) => ({ name, dtype: 'f32' as const, rows: 2, channels: 2 });
    const mean = (name: string, x: string, y: string) => ({
      kind: 'meanTokens' as const, name, inputs: { x: ref(x) }, outputs: { y: ref(y) }, constants: {}, attributes: {}, independent: [],
    });
    const program: Program = {
      tensors: ['a', 'b', 'c', 'd'].map(spec), ops: [mean('p', 'a', 'b'), mean('q', 'b', 'c'), mean('r', 'c', 'd')],
      blocks: [{ name: 'one', first: 0, end: 2, inputs: ['a'], lossTensor: 'c' }, { name: 'two', first: 2, end: 3, inputs: ['c'], lossTensor: 'd' }],
      linears: [], input: 'a', output: 'd',
    };
    const twice = rewriteOps(program, (op, i) => (i === 1 ? [mean('q1', 'b', 'e'), mean('q2', 'e', 'c')] : [op]), [spec('e'), spec('unused')]);
    expect(twice.ops.map((op) => op.name)).to.deep.equal(['p', 'q1', 'q2', 'r']);
    expect(twice.blocks.map((b) => [b.first, b.end])).to.deep.equal([[0, 3], [3, 4]]);
    expect(twice.tensors.map((t) => t.name)).to.deep.equal(['a', 'b', 'c', 'd', 'e']);
    const less = rewriteOps(program, (op, i) => (i === 0 ? [] : i === 1 ? [mean('q', 'a', 'c')] : [op]));
    expect(less.blocks.map((b) => [b.first, b.end])).to.deep.equal([[0, 1], [1, 2]]);
    expect(less.tensors.map((t) => t.name)).to.deep.equal(['a', 'c', 'd']);
    expect(program.ops.length, 'the original stays').to.equal(3);
  });

  it('fusion leaves a quantizer alone that reads a slice, and keeps a float tensor that somebody else reads', () => {
    const norm = (name: string) => ({
      kind: 'addNorm' as const, name, inputs: { x: { tensor: 'in' } }, outputs: { y: { tensor: `${name}.y` } },
      constants: { weight: new Float32Array(4) }, attributes: { norm: 0, epsilon: 1e-5 }, independent: [],
    });
    const quantizer = (name: string, x: { tensor: string; from?: number; channels?: number }) => ({
      kind: 'quantize' as const, name, inputs: { x }, outputs: { q: { tensor: name } }, constants: {}, attributes: { qmax: 255 }, independent: [],
    });
    const ops = [
      norm('alone'), quantizer('q0', { tensor: 'alone.y' }),
      norm('sliced'), quantizer('q1', { tensor: 'sliced.y', from: 0, channels: 2 }),
      norm('shared'), quantizer('q2', { tensor: 'shared.y' }), quantizer('q3', { tensor: 'shared.y' }),
    ];
    const tensors = ['in', ...ops.flatMap((op) => writes(op).map((r) => r.tensor))].map((name) => ({ name, dtype: 'f32' as const, rows: 1, channels: 4 }));
    const fused = fuseProgram({ tensors, ops, blocks: [], linears: [], input: 'in', output: 'q3' });
    expect(fused.ops.map((op) => op.name)).to.deep.equal(['alone', 'sliced', 'q1', 'shared', 'q3']);
    const outputs = (name: string) => Object.fromEntries(Object.entries(fused.ops.find((op) => op.name === name)!.outputs).filter(([, r]) => r !== undefined));
    expect(outputs('alone')).to.deep.equal({ q: { tensor: 'q0' } });
    expect(outputs('sliced')).to.deep.equal({ y: { tensor: 'sliced.y' } });
    expect(outputs('shared')).to.deep.equal({ y: { tensor: 'shared.y' }, q: { tensor: 'q2' } });
    expect(fused.tensors.map((t) => t.name)).to.not.include('alone.y');
  });
});
