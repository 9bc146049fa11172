/** What a case of the table is, and the pieces that cases of several ops are made of. */
import type { OpCall, Operand } from '../../lib/ops.js';
import type { Random } from './random.js';

export interface OpCase {
  readonly name: string;
  /** Set where shapes are those of a published model: such cases are also what bench/ops.js times. */
  readonly model?: string;
  readonly make: (random: Random) => OpCall;
}

export type Fill = (random: Random, image: number, row: number, channel: number) => number;

/** Widths of the published Vim models at 224 × 224 pixels in patches of 16: 196 patches and a class token. */
export const VIM = [
  { model: 'Vim-T', len: 197, dim: 192, dInner: 384, dState: 16, dtRank: 12 },
  { model: 'Vim-S', len: 197, dim: 384, dInner: 768, dState: 16, dtRank: 24 },
  { model: 'Vim-B', len: 197, dim: 768, dInner: 1536, dState: 16, dtRank: 48 },
] as const;

/** Values that the op's description defines but that random numbers never hit. */
export const UNUSUAL = [NaN, Infinity, -Infinity, 0, -0, 1e30, -1e30, 1e-42, 88, -88, 104, -104];

export const FILLS: Readonly<Record<string, Fill>> = {
  normal: (r) => r.normal(),
  'constant rows': (_, image, row) => 0.3 * (row + 1) - image,
  'rows of zeros': (r, _, row) => (row % 2 === 0 ? 0 : r.normal()),
  /** Channels far above the others, as in the activations of trained Mamba models (PTQ4VM, arXiv 2412.20386, figure 2). */
  'outlier channels': (r, _image, _row, k) => r.normal() * (k % 11 === 3 ? 300 : 1),
  'outlier tokens': (r, _image, row) => r.normal() * (row % 5 === 1 ? 1000 : 1),
  'NaN in one row': (r, _, row, k) => (row === 1 && k === 2 ? NaN : r.normal()),
  'NaN and infinities': (r) => (r.integer(0, 40) === 0 ? r.pick(UNUSUAL.slice(0, 3)) : r.normal()),
  'unusual values': (r) => (r.integer(0, 3) === 0 ? r.pick(UNUSUAL) : 3 * r.normal()),
};

/** A float operand [images, rows, channels]. */
export function floats(r: Random, images: number, rows: number, channels: number, fill: Fill = FILLS.normal!): Operand {
  const data = new Float32Array(images * rows * channels);
  let at = 0;
  for (let image = 0; image < images; image++) {
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < channels; k++) data[at++] = fill(r, image, row, k);
    }
  }
  return { rows, channels, data };
}

export type TableKind = 'identity' | 'reversed' | 'permuted' | 'padded';

/** Memory row per scan position. A padded table has −1 in some places, so that it leaves some rows out. */
export function scanTable(r: Random, kind: TableKind, rows: number): Int32Array | undefined {
  switch (kind) {
    case 'identity': return undefined;
    case 'reversed': return Int32Array.from({ length: rows }, (_, t) => rows - 1 - t);
    case 'permuted': return r.permutation(rows);
    case 'padded': return r.permutation(rows).map((row, t) => (t % 4 === 1 ? -1 : row));
  }
}

export interface Quantizer {
  readonly bits?: number;
  readonly perToken?: boolean;
  readonly smooth?: boolean;
  /** Where most values lie: the steps cover ± some three times this. */
  readonly typical?: number;
}

/** Constants of a quantized output, and its qmax. */
export function quantizer(r: Random, rows: number, channels: number, { bits = 8, perToken = true, smooth = true, typical = 1 }: Quantizer = {}) {
  const qmax = 2 ** bits - 1;
  const steps = perToken ? rows : 1;
  return {
    constants: {
      qActRscale: r.floats(steps, () => (qmax / (6 * typical)) * r.uniform(0.5, 2)),
      qActZero: Int32Array.from({ length: steps }, () => r.integer(0, qmax)),
      qSmoothRscale: smooth ? r.floats(channels, () => r.uniform(0.5, 2)) : undefined,
    },
    qmax,
  };
}

/** Steps and zero points as linearI8 and fakeQuantize take them. */
export function actSteps(r: Random, rows: number, perToken: boolean, qmax = 255, typical = 1) {
  const steps = perToken ? rows : 1;
  return {
    actScale: r.floats(steps, () => ((6 * typical) / qmax) * r.uniform(0.5, 2)),
    actZero: Int32Array.from({ length: steps }, () => r.integer(0, qmax)),
  };
}
