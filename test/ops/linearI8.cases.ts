import type { OpCall } from '../../lib/ops.js';
import { actSteps, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
  readonly perToken?: boolean;
  readonly bits?: number;
  /** Code of the activation, code of the weight, zero point; absent: random over their whole ranges. */
  readonly code?: (r: Random, image: number, row: number, k: number) => number;
  readonly weight?: (r: Random, o: number, k: number) => number;
  readonly zero?: (r: Random, row: number) => number;
}

const linearI8 = ({ images = 1, rows, k, n, bias = true, perToken = true, bits = 8, code, weight, zero }: Shape) => (r: Random): OpCall => {
  const x = new Uint8Array(images * rows * k);
  for (let i = 0; i < x.length; i++) {
    x[i] = code === undefined ? r.integer(0, 255) : code(r, Math.floor(i / (rows * k)), Math.floor(i / k) % rows, i % k);
  }
  const qmax = 2 ** (bits - 1) - 1;
  const codes = new Int8Array(n * k);
  for (let i = 0; i < codes.length; i++) codes[i] = weight === undefined ? r.integer(-qmax, qmax) : weight(r, Math.floor(i / k), i % k);
  const { actScale, actZero } = actSteps(r, rows, perToken);
  return {
    kind: 'linearI8', images,
    inputs: { x: { rows, channels: k, data: x } },
    outputs: { y: { rows, channels: n } },
    constants: {
      weight: codes, weightScale: r.floats(n, () => r.uniform(0.001, 0.02)), actScale,
      actZero: zero === undefined ? actZero : actZero.map((_, row) => zero(r, row)),
      bias: bias ? r.floats(n) : undefined,
    },
    attributes: { bits },
  };
};

export const linearI8Cases: readonly OpCase[] = [
  ...[
    [1, 1, 1], [1, 1, 97], [1, 97, 1], [13, 1, 1],
    [7, 3, 17], [3, 4, 5], [2, 5, 16], [17, 31, 47], [8, 64, 48], [9, 65, 49], [5, 63, 95], [11, 127, 23], [6, 129, 33],
    [241, 19, 29], [197, 64, 16], [2, 1031, 67], [14, 200, 32],
  ].map(([rows, k, n]) => ({ name: `[${rows}, ${k}] → ${n}`, make: linearI8({ rows: rows!, k: k!, n: n! }) })),
  { name: 'no bias', make: linearI8({ rows: 5, k: 40, n: 50, bias: false }) },
  { name: 'one step for the tensor', make: linearI8({ rows: 11, k: 70, n: 35, perToken: false }) },
  { name: 'one step for the tensor, three images', make: linearI8({ images: 3, rows: 5, k: 70, n: 35, perToken: false }) },
  { name: 'steps per token, three images', make: linearI8({ images: 3, rows: 7, k: 70, n: 35 }) },
  { name: 'codes of 4 bits', make: linearI8({ rows: 9, k: 66, n: 34, bits: 4, code: (r) => r.integer(0, 15), zero: (r) => r.integer(0, 15) }) },
  { name: 'rows of zeros', make: linearI8({ images: 2, rows: 6, k: 68, n: 19, code: (r, _, row) => (row % 2 === 0 ? 0 : r.integer(0, 255)) }) },
  { name: 'every code at its zero point', make: linearI8({ rows: 6, k: 68, n: 19, code: (_r, _i, row) => 40 * row, zero: (_r, row) => 40 * row }) },
  { name: 'outlier channels', make: linearI8({ rows: 6, k: 68, n: 19, code: (r, _i, _row, k) => (k % 17 === 3 ? 255 : r.integer(126, 130)), zero: () => 128 }) },
  // 16-bit partial sums would overflow or saturate here: 2 · 255 · 127 > 2¹⁵.
  { name: '255 × 127, K 3072', make: linearI8({ rows: 9, k: 3072, n: 17, code: () => 255, weight: () => 127 }) },
  { name: '255 × −127, K 3072', make: linearI8({ rows: 9, k: 3072, n: 17, code: () => 255, weight: () => -127 }) },
  { name: '255 × ±127, K 3072', make: linearI8({ rows: 9, k: 3072, n: 17, code: () => 255, weight: (_, o, k) => ((o + k) % 2 === 0 ? 127 : -127) }) },
  { name: '255 × 127, zero point 255, K 3072', make: linearI8({ rows: 5, k: 3072, n: 17, code: () => 255, weight: () => 127, zero: () => 255 }) },
  { name: '0 × 127, zero point 255, K 32768', make: linearI8({ rows: 2, k: 32768, n: 3, code: () => 0, weight: () => 127, zero: () => 255 }) },
  { name: '255 × −127, zero point 0, K 32768', make: linearI8({ rows: 2, k: 32768, n: 3, code: () => 255, weight: () => -127, zero: () => 0 }) },
  ...VIM.flatMap(({ model, len, dim, dInner, dState, dtRank }) => [
    { name: 'in_proj', model, make: linearI8({ rows: len, k: dim, n: 2 * dInner, bias: false }) },
    { name: 'x_proj', model, make: linearI8({ rows: len, k: dInner, n: dtRank + 2 * dState, bias: false }) },
    { name: 'dt_proj', model, make: linearI8({ rows: len, k: dtRank, n: dInner }) },
    { name: 'out_proj', model, make: linearI8({ rows: len, k: dInner, n: dim, bias: false }) },
  ]),
];
