/**
 * Integer execution computes what fake quantization says (ARCHITECTURE "Mathematics"): every quantized linear of the
 * bundled model, its codes and its sums, then whole models.
 */
import path from 'node:path';
import { expect } from 'chai';
import { backends } from '../../lib/device.js';
import { load, type Model, quantize } from '../../lib/model.js';
import { imageFolder } from '../../lib/data/folder.js';
import { EngineSession } from '../../lib/native/session.js';
import type { LinearI8Op, QuantizeOp } from '../../lib/program/ir.js';
import { quantizeProgram } from '../../lib/program/quantize.js';
import { actQmax, type QuantizedLinear } from '../../lib/quantizer.js';
import { fuseProgram } from '../../lib/program/fuse.js';
import { tensorSpec } from '../../lib/program/rewrite.js';
import { maxDifference } from '../support/shared.js';
import { readSome } from '../support/pictures.js';

const DEMO = path.resolve(__dirname, '../../demo/vim-shapes');
const IMAGES = 2;

describe('integer execution equals fake quantization', function () {
  this.timeout(60_000);
  let float: Model;
  let pictures: Float32Array;

  before(async () => {
    float = await load(path.join(DEMO, 'model.pth'), { config: path.join(DEMO, 'config.json') });
    pictures = await readSome(path.join(DEMO, 'val'), float.preprocess, IMAGES);
  });
  after(() => float.dispose());

  for (const [weights, activations, method] of [[8, 8, 'pts+smooth'], [6, 6, 'pts+smooth'], [4, 8, 'pts+smooth'], [4, 4, 'pts+smooth'], [8, 8, 'minmax'], [4, 6, 'smoothquant']] as const) {
    it(`W${weights}A${activations} ${method}: codes and sums of every linear, on every instruction set`, async () => {
      const q = await quantize(float, { weights, activations, method, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 16 });
      const { program } = float.parts;
      const layers = q.quantization!.layers;
      const integer = quantizeProgram(program, layers, 'int');
      const linears = integer.ops.filter((op): op is LinearI8Op => op.kind === 'linearI8');
      expect(linears.length, 'quantized linears').to.equal(program.linears.length);
      const quantizers = new Map(integer.ops.filter((op): op is QuantizeOp => op.kind === 'quantize').map((op) => [op.outputs.q.tensor, op]));

      for (const isa of backends().cpu.isas) {
        const session = new EngineSession(integer, { isa });
        let codes = 0;
        let different = 0;
        const fetches = linears.flatMap((op) => [quantizers.get(op.inputs.x.tensor)!.inputs.x.tensor, op.inputs.x.tensor, op.outputs.y.tensor]);
        const values = await session.run({ images: IMAGES, feeds: { image: pictures }, fetches: [...new Set(fetches)] });
        for (const op of linears) {
          const x = quantizers.get(op.inputs.x.tensor)!.inputs.x;
          const spec = tensorSpec(integer, op.inputs.x.tensor);
          const input = slice(values[x.tensor] as Float32Array, tensorSpec(integer, x.tensor).channels, x.from ?? 0, spec.channels);
          const q8 = values[op.inputs.x.tensor] as Uint8Array;
          const layer = layers.get(op.name)!;
          const rows = stepRows(layer, program.linears.find((l) => l.name === op.name)!.table, spec.rows);
          const wanted = referenceCodes(input, spec.channels, layer, rows);
          let furthest = 0;
          for (let i = 0; i < q8.length; i++) {
            const d = Math.abs(q8[i]! - wanted[i]!);
            if (d > furthest) furthest = d;
            if (d > 0) different++;
          }
          expect(furthest, `${isa} ${op.name}: largest difference of a code`).to.be.at.most(1);
          codes += q8.length;
          const y = values[op.outputs.y.tensor] as Float32Array;
          expect(worstSum(y, q8, spec.channels, layer, rows, op.constants.bias), `${isa} ${op.name}: sums`).to.be.below(4e-7);
        }
        await session.dispose();
        // ARCHITECTURE "Mathematics": reciprocals may move a code whose quotient lies within rounding of a half.
        expect(different / codes, `${isa}: share of codes that differ`).to.be.at.most(1e-4);
      }
      await q.dispose();
    });
  }

  it('fused and unfused Programs give equal bits, on every instruction set', async () => {
    const q = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 16 });
    const unfused = quantizeProgram(float.parts.program, q.quantization!.layers, 'int');
    const fused = fuseProgram(unfused);
    expect(fused.ops.length).to.be.below(unfused.ops.length);
    for (const isa of backends().cpu.isas) {
      const run = async (program: typeof fused) => {
        const session = new EngineSession(program, { isa });
        const values = await session.run({ images: IMAGES, feeds: { image: pictures }, fetches: [program.output] });
        await session.dispose();
        return values[program.output] as Float32Array;
      };
      expect(maxDifference(await run(fused), await run(unfused)), isa).to.equal(0);
    }
    await q.dispose();
  });

  it('logits are equal bits for every thread count and batch', async () => {
    const q = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 16 });
    const one = q.with({ threads: 1 });
    const [, h, w] = q.inputShape;
    const wanted = [...(await one.forward({ dims: [IMAGES, 3, h, w], data: pictures })).data];
    for (const threads of [2, 3, 5]) {
      const many = q.with({ threads });
      expect([...(await many.forward({ dims: [IMAGES, 3, h, w], data: pictures })).data], `${threads} threads`).to.deep.equal(wanted);
      await many.dispose();
    }
    const size = 3 * h * w;
    for (let i = 0; i < IMAGES; i++) {
      const single = await one.forward({ dims: [1, 3, h, w], data: pictures.slice(i * size, (i + 1) * size) });
      expect([...single.data], `image ${i} alone`).to.deep.equal(wanted.slice(i * q.classes, (i + 1) * q.classes));
    }
    await one.dispose();
    await q.dispose();
  });

  it('whole models: integer and fake agree on the class and closely on the logits', async () => {
    const q = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 64 });
    const fake = q.with({ precision: 'fake' });
    const [, h, w] = q.inputShape;
    const images = { dims: [IMAGES, 3, h, w], data: pictures };
    const a = (await q.forward(images)).data;
    const b = (await fake.forward(images)).data;
    let error = 0;
    let size = 0;
    a.forEach((v, i) => {
      error += (v - b[i]!) ** 2;
      size += b[i]! ** 2;
    });
    // Codes that round the other way by one ulp of the quotient are the only difference: small against a quantization error of some 3e-2.
    expect(Math.sqrt(error / size)).to.be.below(0.01);
    await fake.dispose();
    await q.dispose();
  });
});

/** Channels [from, from + channels) of rows that are `width` wide. */
function slice(values: Float32Array, width: number, from: number, channels: number): Float32Array {
  const rows = values.length / width;
  const out = new Float32Array(rows * channels);
  for (let r = 0; r < rows; r++) out.set(values.subarray(r * width + from, r * width + from + channels), r * channels);
  return out;
}

/** Index of the step that memory row r uses: its scan position, or 0 for one step per tensor. */
function stepRows(layer: QuantizedLinear, table: Int32Array | undefined, rows: number): number[] {
  if (layer.actScale.length === 1) return new Array(rows).fill(0);
  if (table === undefined) return [...Array(rows).keys()];
  const positions = new Array(rows);
  table.forEach((row, t) => {
    positions[row] = t;
  });
  return positions;
}

/** The definition (ARCHITECTURE "Mathematics"), in float32: c = clamp(x/smooth/scale + zero, 0, qmax); q = rint(c − zero) + zero. */
function referenceCodes(x: Float32Array, channels: number, layer: QuantizedLinear, steps: readonly number[]): Uint8Array {
  const f = Math.fround;
  const qmax = actQmax(layer.actBits);
  return Uint8Array.from(x, (v, i) => {
    const k = i % channels;
    const step = steps[Math.floor(i / channels) % steps.length]!;
    const zero = layer.actZero[step]!;
    const c = Math.min(Math.max(f(f(f(v / (layer.smooth?.[k] ?? 1)) / layer.actScale[step]!) + zero), 0), qmax);
    return rint(f(c - zero)) + zero;
  });
}

/** Half to even. */
function rint(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** Largest |y − formula| relative to the size of what was added: the formula in double, on the engine's own codes. */
function worstSum(y: Float32Array, q: Uint8Array, channels: number, layer: QuantizedLinear, steps: readonly number[], bias: Float32Array | undefined): number {
  const out = layer.weightScale.length;
  const rows = q.length / channels;
  let worst = 0;
  for (let r = 0; r < rows; r++) {
    const step = steps[r % steps.length]!;
    for (let o = 0; o < out; o++) {
      let sum = 0;
      for (let k = 0; k < channels; k++) sum += (q[r * channels + k]! - layer.actZero[step]!) * layer.weight[o * channels + k]!;
      const product = layer.actScale[step]! * layer.weightScale[o]! * sum;
      const b = bias?.[o] ?? 0;
      const d = Math.abs(y[r * out + o]! - (product + b)) / (Math.abs(product) + Math.abs(b) || 1);
      if (!(d <= worst)) worst = d;
    }
  }
  return worst;
}
