/**
 * What every op computes, once more, from its description in lib/program/ir.ts and ARCHITECTURE "Mathematics": plain loops in double
 * precision, written independently of the native reference that they check.
 *
 * Beside each value stands its magnitude, the size of what was added up to make it: a float32 result may be wrong by so
 * many roundings of that. Ops whose float32 result is fixed to the bit (quantizers, the epilogue of the integer
 * product, copies) are computed in float32 (`f`) and have magnitude 0.
 */
import type { OpCall, Operand } from '../../lib/ops.js';
import type { Op } from '../../lib/program/ir.js';

export interface Expected {
  /** [images, rows, channels]. */
  readonly value: Float64Array;
  readonly magnitude: Float64Array;
}

type Reference = (call: OpCall) => Readonly<Record<string, Expected>>;

const f = Math.fround;

export const silu = (v: number) => v / (1 + Math.exp(-v));
export const softplus = (v: number) => (v > 20 ? v : Math.log1p(Math.exp(v)));

/** Half to even. */
export function rint(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** NaN goes to `low`. */
export const clamp = (x: number, low: number, high: number) => (x > low ? Math.min(x, high) : low);

const input = (call: OpCall, key: string) => call.inputs[key]!;
const constant = <T = Float32Array | undefined>(call: OpCall, key: string) => (call.constants as Record<string, unknown> | undefined)?.[key] as T;
const attribute = (call: OpCall, key: string) => (call.attributes as Record<string, number>)[key]!;

function results(images: number, rows: number, channels: number): Expected {
  return { value: new Float64Array(images * rows * channels), magnitude: new Float64Array(images * rows * channels) };
}

/** Fills [images, rows, channels] from a function of the position; a number alone is exact. */
function each(images: number, rows: number, channels: number, at: (image: number, row: number, k: number) => number | readonly [number, number]): Expected {
  const out = results(images, rows, channels);
  for (let image = 0, i = 0; image < images; image++) {
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < channels; k++, i++) {
        const r = at(image, row, k);
        if (typeof r === 'number') out.value[i] = r;
        else [out.value[i], out.magnitude[i]] = r;
      }
    }
  }
  return out;
}

const reader = ({ rows, channels, data }: Operand) => (image: number, row: number, k: number) => data[(image * rows + row) * channels + k]!;

/** x [m, k] · weightᵀ [n, k] + bias. */
function product(x: ArrayLike<number>, weight: ArrayLike<number>, bias: Float32Array | undefined, m: number, n: number, k: number): Expected {
  const out = results(1, m, n);
  for (let i = 0; i < m; i++) {
    for (let o = 0; o < n; o++) {
      let sum = bias?.[o] ?? 0;
      let size = Math.abs(sum);
      for (let j = 0; j < k; j++) {
        const term = x[i * k + j]! * weight[o * k + j]!;
        sum += term;
        size += Math.abs(term);
      }
      out.value[i * n + o] = sum;
      out.magnitude[i * n + o] = size;
    }
  }
  return out;
}

function patchEmbed(call: OpCall) {
  const x = input(call, 'x');
  const [height, width, patch, stride] = ['height', 'width', 'patch', 'stride'].map((key) => attribute(call, key)) as [number, number, number, number];
  const pixel = reader(x);
  const columns = Math.floor((width - patch) / stride) + 1;
  const cells = columns * (Math.floor((height - patch) / stride) + 1);
  const k = x.rows * patch * patch;
  const patches = each(call.images, cells, k, (image, cell, j) => {
    const plane = Math.floor(j / (patch * patch));
    const top = Math.floor(cell / columns) * stride + (Math.floor(j / patch) % patch);
    return pixel(image, plane, top * width + (cell % columns) * stride + (j % patch));
  });
  return { y: product(patches.value, constant<Float32Array>(call, 'weight'), constant(call, 'bias'), call.images * cells, call.outputs.y!.channels, k) };
}

function assembleTokens(call: OpCall) {
  const patch = reader(input(call, 'x'));
  const source = constant<Int32Array>(call, 'source');
  const [cls, pos] = [constant(call, 'cls'), constant(call, 'pos')];
  const { channels } = input(call, 'x');
  return {
    y: each(call.images, source.length, channels, (image, t, k) => {
      const s = source[t]!;
      const token = s >= 0 ? patch(image, s, k) : cls![(-1 - s) * channels + k]!;
      return pos === undefined ? token : f(token + pos[t * channels + k]!);
    }),
  };
}

function rope(call: OpCall) {
  const { rows, channels } = input(call, 'x');
  const x = reader(input(call, 'x'));
  const [cos, sin] = [constant<Float32Array>(call, 'cos'), constant<Float32Array>(call, 'sin')];
  const first = attribute(call, 'firstToken');
  return {
    y: each(call.images, rows, channels, (image, t, k) => {
      if (t < first) return x(image, t, k);
      const at = (t - first) * channels + k;
      const along = x(image, t, k) * cos[at]!;
      const across = (k % 2 === 0 ? -x(image, t, k + 1) : x(image, t, k - 1)) * sin[at]!;
      return [along + across, Math.abs(along) + Math.abs(across)];
    }),
  };
}

function addNorm(call: OpCall) {
  const { rows, channels } = input(call, 'x');
  const x = reader(input(call, 'x'));
  const before = call.inputs.residual && reader(call.inputs.residual);
  const residual = each(call.images, rows, channels, (image, row, k) => (before ? f(x(image, row, k) + before(image, row, k)) : x(image, row, k)));
  const [weight, bias] = [constant<Float32Array>(call, 'weight'), constant(call, 'bias')];
  const y = results(call.images, rows, channels);
  for (let row = 0; row < call.images * rows; row++) {
    const s = residual.value.subarray(row * channels, (row + 1) * channels);
    const centred = attribute(call, 'norm') === 1;
    const mean = centred ? s.reduce((a, b) => a + b, 0) / channels : 0;
    // The mean is off by a rounding of what was added up for it, which counts where the deviation is small.
    const meanSize = centred ? s.reduce((a, b) => a + Math.abs(b), 0) / channels : 0;
    const variance = s.reduce((sum, v) => sum + (v - mean) ** 2, 0) / channels;
    const deviation = Math.sqrt(variance + f(attribute(call, 'epsilon')));
    for (let k = 0; k < channels; k++) {
      y.value[row * channels + k] = ((s[k]! - mean) / deviation) * weight[k]! + (bias?.[k] ?? 0);
      y.magnitude[row * channels + k] = ((Math.abs(s[k]!) + meanSize) / deviation) * Math.abs(weight[k]!) + Math.abs(bias?.[k] ?? 0);
    }
  }
  return { y, residual };
}

function linear(call: OpCall) {
  const { rows, channels, data } = input(call, 'x');
  return { y: product(data, constant<Float32Array>(call, 'weight'), constant(call, 'bias'), call.images * rows, call.outputs.y!.channels, channels) };
}

function linearI8(call: OpCall) {
  const { rows, channels, data } = input(call, 'x');
  const n = call.outputs.y!.channels;
  const weight = constant<Int8Array>(call, 'weight');
  const [weightScale, actScale, actZero] = [constant<Float32Array>(call, 'weightScale'), constant<Float32Array>(call, 'actScale'), constant<Int32Array>(call, 'actZero')];
  const bias = constant(call, 'bias');
  const y = results(call.images, rows, n);
  for (let i = 0; i < call.images * rows; i++) {
    const step = actScale.length === 1 ? 0 : i % rows;
    for (let o = 0; o < n; o++) {
      let sum = 0; // of integers below 2⁵³: exact
      for (let k = 0; k < channels; k++) sum += (data[i * channels + k]! - actZero[step]!) * weight[o * channels + k]!;
      y.value[i * n + o] = f(f(f(actScale[step]! * weightScale[o]!) * f(sum)) + (bias?.[o] ?? 0));
    }
  }
  return { y };
}

/** x through the quantizer by the definition: c = clamp(x/smooth/scale + zero, 0, qmax); rint(c − zero)·scale. */
function fakeQuantize(call: OpCall) {
  const { rows, channels } = input(call, 'x');
  const x = reader(input(call, 'x'));
  const [actScale, actZero, smooth] = [constant<Float32Array>(call, 'actScale'), constant<Int32Array>(call, 'actZero'), constant(call, 'smooth')];
  const qmax = attribute(call, 'qmax');
  return {
    y: each(call.images, rows, channels, (image, row, k) => {
      const step = actScale.length === 1 ? 0 : row;
      const zero = actZero[step]!;
      const c = clamp(f(f(f(x(image, row, k) / (smooth?.[k] ?? 1)) / actScale[step]!) + zero), 0, qmax);
      return f(rint(f(c - zero)) * actScale[step]!);
    }),
  };
}

function convSilu(call: OpCall) {
  const { rows, channels } = input(call, 'x');
  const x = reader(input(call, 'x'));
  const [weight, bias, table] = [constant<Float32Array>(call, 'weight'), constant(call, 'bias'), constant<Int32Array | undefined>(call, 'table')];
  const width = attribute(call, 'width');
  const rowAt = (t: number) => (t < 0 ? -1 : (table?.[t] ?? t));
  const y = results(call.images, rows, channels); // rows that the table leaves out stay 0
  for (let image = 0; image < call.images; image++) {
    for (let t = 0; t < rows; t++) {
      if (rowAt(t) < 0) continue;
      for (let k = 0; k < channels; k++) {
        let sum = bias?.[k] ?? 0;
        let size = Math.abs(sum);
        for (let j = 0; j < width; j++) {
          const from = rowAt(t - (width - 1) + j);
          if (from < 0) continue; // before the start, or padding: zero
          const term = weight[k * width + j]! * x(image, from, k);
          sum += term;
          size += Math.abs(term);
        }
        const i = (image * rows + rowAt(t)) * channels + k;
        y.value[i] = silu(sum);
        y.magnitude[i] = size;
      }
    }
  }
  return { y };
}

/** Adds y_d of one direction to `sum` (ARCHITECTURE "Mathematics", selective scan). */
function scanDirection(call: OpCall, d: number, sum: Expected): void {
  const { rows, channels } = input(call, `u${d}`);
  const [u, delta, b, c] = ['u', 'delta', 'b', 'c'].map((key) => reader(input(call, `${key}${d}`))) as [Reader, Reader, Reader, Reader];
  const [a, skip, table] = [constant<Float32Array>(call, `a${d}`), constant<Float32Array>(call, `d${d}`), constant<Int32Array | undefined>(call, `table${d}`)];
  const dState = attribute(call, 'dState');
  for (let image = 0; image < call.images; image++) {
    for (let k = 0; k < channels; k++) {
      const h = new Float64Array(dState);
      const size = new Float64Array(dState); // of what h was added up from
      for (let t = 0; t < rows; t++) {
        const row = table?.[t] ?? t;
        const padding = row < 0; // a row of zeros; nothing is written
        const x = padding ? 0 : u(image, row, k);
        const step = softplus(padding ? 0 : delta(image, row, k));
        let y = skip[k]! * x;
        let magnitude = Math.abs(y);
        for (let n = 0; n < dState; n++) {
          const decay = Math.exp(step * a[k * dState + n]!);
          const entering = padding ? 0 : step * b(image, row, n) * x;
          h[n] = decay * h[n]! + entering;
          size[n] = decay * size[n]! + Math.abs(entering);
          if (padding) continue;
          y += c(image, row, n) * h[n]!;
          magnitude += Math.abs(c(image, row, n)) * size[n]!;
        }
        if (padding) continue;
        const i = (image * rows + row) * channels + k;
        sum.value[i]! += y;
        sum.magnitude[i]! += magnitude;
      }
    }
  }
}

type Reader = ReturnType<typeof reader>;

function selectiveScan(call: OpCall) {
  const { rows, channels } = input(call, 'u0');
  const y = results(call.images, rows, channels);
  for (let d = 0; d < attribute(call, 'directions'); d++) scanDirection(call, d, y);
  const z = call.inputs.z?.data;
  for (let i = 0; i < y.value.length; i++) {
    const factor = f(attribute(call, 'outScale')) * (z === undefined ? 1 : silu(z[i]!));
    y.value[i]! *= factor;
    y.magnitude[i]! *= Math.abs(factor);
  }
  return { y };
}

function selectTokens(call: OpCall) {
  const x = reader(input(call, 'x'));
  const indices = constant<Int32Array>(call, 'indices');
  return { y: each(call.images, indices.length, input(call, 'x').channels, (image, i, k) => x(image, indices[i]!, k)) };
}

function meanTokens(call: OpCall) {
  const { rows, channels } = input(call, 'x');
  const x = reader(input(call, 'x'));
  return {
    y: each(call.images, 1, channels, (image, _, k) => {
      let sum = 0;
      let size = 0;
      for (let row = 0; row < rows; row++) {
        sum += x(image, row, k);
        size += Math.abs(x(image, row, k));
      }
      return [sum / rows, size / rows];
    }),
  };
}

/** Float outputs of each op but `quantize`, by name. */
export const REFERENCE: Readonly<Record<Exclude<Op['kind'], 'quantize'>, Reference>> = {
  patchEmbed, assembleTokens, rope, addNorm, linear, linearI8, fakeQuantize, convSilu, selectiveScan, selectTokens, meanTokens,
};

/** Codes `q` of float values [images, rows, channels]: QuantizeConstants in ir.ts, to the bit. */
export function codesOf(values: Float32Array, call: OpCall): Uint8Array {
  const { rows, channels } = call.outputs.q!;
  const [smooth, rscale, zeros] = [constant(call, 'qSmoothRscale'), constant<Float32Array>(call, 'qActRscale'), constant<Int32Array>(call, 'qActZero')];
  const qmax = attribute(call, 'qmax');
  return Uint8Array.from(values, (v, i) => {
    const step = rscale.length === 1 ? 0 : Math.floor(i / channels) % rows;
    const zero = zeros[step]!;
    return rint(clamp(f(f(v * (smooth?.[i % channels] ?? 1)) * rscale[step]!), -zero, qmax - zero)) + zero;
  });
}

/** The same codes by the definition (ARCHITECTURE "Mathematics"), which divides by steps where kernels multiply by their rounded reciprocals. */
export function codesByDivision(values: Float32Array, call: OpCall): Uint8Array {
  const { rows, channels } = call.outputs.q!;
  const [smooth, rscale, zeros] = [constant(call, 'qSmoothRscale'), constant<Float32Array>(call, 'qActRscale'), constant<Int32Array>(call, 'qActZero')];
  const qmax = attribute(call, 'qmax');
  return Uint8Array.from(values, (v, i) => {
    const step = rscale.length === 1 ? 0 : Math.floor(i / channels) % rows;
    const zero = zeros[step]!;
    const c = clamp(v / (1 / (smooth?.[i % channels] ?? 1)) / (1 / rscale[step]!) + zero, 0, qmax);
    return rint(c - zero) + zero;
  });
}
