/**
 * Quantization without learning against the official code (golden README section D): smoothing, weight and activation
 * steps, zero points, winning grid indices, and the fake-quantized blocks.
 */
import path from 'node:path';
import { expect } from 'chai';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import type { Weight } from '../../lib/tensor.js';
import { defineModel } from '../../lib/models/registry.js';
import { loadAddon } from '../../lib/native/addon.js';
import { EngineSession } from '../../lib/native/session.js';
import type { LinearOp, Program } from '../../lib/program/ir.js';
import { quantizeProgram } from '../../lib/program/quantize.js';
import type { Bits, QuantizedLinear } from '../../lib/quantizer.js';
import { type CalibratedLinear, calibrate } from '../../lib/ptq/calibrate.js';
import { makeRecipe } from '../../lib/ptq/recipe.js';
import { smoothingScale } from '../../lib/ptq/smooth.js';
import { floats, json, maxDifference, maxRelative, shared, unpack } from '../support/shared.js';

const LEVELS = [['lv256', 8], ['lv64', 6], ['lv16', 4]] as const;

describe('golden: PTQ4VM initialization of Vim', () => {
  let dir: string;
  let program: Program;
  let calib: Float32Array;

  before(async function () {
    dir = shared(this, 'golden', 'D_ptq_vim');
    const micro = path.join(dir, '../A_vim_micro');
    const file = await openCheckpoint(path.join(micro, 'model.pth'));
    const shapes = new Map([...file.entries].map(([name, e]) => [name, e.shape]));
    const weights = new Map<string, Weight>();
    for (const [name, e] of file.entries) weights.set(name, { shape: e.shape, dtype: e.dtype, data: await file.readFloat32(name) });
    await file.close();
    program = defineModel(shapes, { config: json(path.join(micro, 'config.json')) as Record<string, unknown> }).buildProgram(weights);
    calib = await floats(dir, 'calib.npy');
  });

  const weightOf = (name: string) => (program.ops.find((op) => op.name === name) as LinearOp).constants.weight;

  it('smoothing scales from the stored activation maxima', async () => {
    const absMax = await unpack(dir, 'act_absmax.npy');
    const smooth = await unpack(dir, 'lv256/init_smooth.npy');
    for (const [name, expected] of smooth) {
      expect(maxRelative(smoothingScale(absMax.get(name)!, weightOf(name), 0.5), expected), name).to.be.below(3e-7);
    }
  });

  for (const [level, bits] of LEVELS) {
    it(`${level}: weight steps from the stored smoothing scales, bit for bit`, async () => {
      const smooth = await unpack(dir, `${level}/init_smooth.npy`);
      const scales = await unpack(dir, `${level}/init_weight_s.npy`);
      const indices = await unpack(dir, `${level}/init_weight_grid_i.npy`);
      for (const [name, expected] of scales) {
        const steps = await loadAddon().calibration.weightSteps(weightOf(name), {
          out: expected.length, in: smooth.get(name)!.length, bits, grid: true, smooth: smooth.get(name)!, threads: 2,
        });
        expect([...steps.gridIndex], name).to.deep.equal([...indices.get(name)!]);
        expect(maxDifference(steps.scale, expected), name).to.equal(0);
      }
    });

    it(`${level}: the whole initialization from our own float forward`, async () => {
      const layers = await calibrate(program, calib, 16, makeRecipe({ weights: bits, activations: bits }));
      expect(layers.size).to.equal(program.linears.length);
      const fields: [string, (l: CalibratedLinear) => ArrayLike<number>, number][] = [
        ['init_smooth', (l) => l.smooth!, 4e-6],
        ['init_weight_s', (l) => l.weightScale, 2e-6],
        ['init_act_s', (l) => l.actScale, 2e-6],
      ];
      for (const [file, field, bound] of fields) {
        for (const [name, expected] of await unpack(dir, `${level}/${file}.npy`)) {
          expect(maxRelative(field(layers.get(name)!), expected), `${file} ${name}`).to.be.below(bound);
        }
      }
      for (const [name, expected] of await unpack(dir, `${level}/init_act_z.npy`)) {
        expect([...layers.get(name)!.actZero], `zero points of ${name}`).to.deep.equal([...expected]);
      }
      const gaps = await unpack(dir, `${level}/init_act_grid_gap.npy`);
      for (const [name, expected] of await unpack(dir, `${level}/init_act_grid_i.npy`)) {
        // Rows whose two best candidates are closer than 1e-4 may legitimately differ.
        const clear = [...expected.keys()].filter((i) => gaps.get(name)![i]! >= 1e-4);
        expect(clear.map((i) => layers.get(name)!.actGridIndex[i]), `grid of ${name}`).to.deep.equal(clear.map((i) => expected[i]));
      }
      for (const [name, expected] of await unpack(dir, 'act_absmax.npy')) {
        // Twice the relative tolerance of the smoothing scale, which is its square root.
        if (layers.has(name)) expect(maxRelative(layers.get(name)!.absMax, expected), `absmax ${name}`).to.be.below(8e-6);
      }
    });

    it(`${level}: fake-quantized blocks and logits from the stored scales`, async () => {
      const layers = await storedLayers(dir, level, bits, weightOf);
      const fake = quantizeProgram(program, layers, 'fake');
      const session = new EngineSession(fake);
      const micro = path.join(dir, '../A_vim_micro');
      for (const [i, block] of fake.blocks.entries()) {
        const hidden = await floats(micro, i === 0 ? 'tokens_in.npy' : `block_${i - 1}_hidden.npy`);
        const feeds: Record<string, Float32Array> = { [block.inputs[0]!]: hidden };
        if (i > 0) feeds[block.inputs[1]!] = await floats(micro, `block_${i - 1}_residual.npy`);
        const values = await session.run({ images: 3, feeds, fetches: [block.lossTensor], first: block.first, end: block.end });
        const expected = await floats(dir, level, `init_block${i}_hidden_teacher_forced.npy`);
        const got = values[block.lossTensor] as Float32Array;
        // ≤ 3e-6 normally; one code that rounds the other way may move a few elements (README D tolerances).
        const moved = got.filter((v, k) => Math.abs(v - expected[k]!) > 1e-4).length / got.length;
        expect(moved, `block ${i}: share of elements that moved`).to.be.below(0.04);
        expect(maxDifference(got, expected), `block ${i}`).to.be.below(moved === 0 ? 5e-6 : 7e-3);
      }
      const logits = await session.run({ images: 8, feeds: { image: await floats(dir, 'input.npy') }, fetches: [fake.output] });
      expect(maxDifference(logits[fake.output]!, await floats(dir, level, 'init_logits.npy')), 'logits').to.be.below(0.1);
      await session.dispose();
    });
  }
});

/** The official scales as our parameters. Backward-direction steps are stored in flipped order, as ours are. */
async function storedLayers(dir: string, level: string, bits: Bits, weightOf: (name: string) => Float32Array): Promise<Map<string, QuantizedLinear>> {
  const [smooth, weightScale, actScale, actZero] = await Promise.all(
    ['init_smooth', 'init_weight_s', 'init_act_s', 'init_act_z'].map((file) => unpack(dir, `${level}/${file}.npy`)),
  );
  return new Map(
    [...weightScale!].map(([name, scale]) => {
      const shape = { out: scale.length, in: smooth!.get(name)!.length, bits, smooth: smooth!.get(name)!, scale };
      return [name, {
        weightBits: bits, actBits: bits, weight: loadAddon().calibration.quantizeWeight(weightOf(name), shape), weightScale: scale,
        actScale: actScale!.get(name)!, actZero: Uint8Array.from(actZero!.get(name)!), smooth: smooth!.get(name)!,
      }];
    }),
  );
}
