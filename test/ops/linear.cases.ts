import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly k: number;
  readonly n: number;
  readonly bias?: boolean;
  readonly fill?: Fill;
}

const linear = ({ images = 1, rows, k, n, bias = true, fill }: Shape) => (r: Random): OpCall => ({
  kind: 'linear', images,
  inputs: { x: floats(r, images, rows, k, fill) },
  outputs: { y: { rows, channels: n } },
  constants: { weight: r.floats(n * k, () => r.normal() / Math.sqrt(k)), bias: bias ? r.floats(n) : undefined },
});

export const linearCases: readonly OpCase[] = [
  ...[
    [1, 1, 1], [1, 1, 97], [1, 97, 1], [13, 1, 1], // one of everything
    [7, 13, 17], [17, 31, 47], [8, 48, 48], [9, 49, 49], [5, 100, 95], [11, 33, 23], // register tiles and what is beside them
    [241, 19, 29], [197, 64, 16], [3, 3072, 5], [2, 1031, 67], // more rows than a chunk, K in several blocks
  ].map(([rows, k, n]) => ({ name: `[${rows}, ${k}] → ${n}`, make: linear({ rows: rows!, k: k!, n: n! }) })),
  { name: 'no bias', make: linear({ rows: 5, k: 40, n: 50, bias: false }) },
  { name: 'three images', make: linear({ images: 3, rows: 7, k: 40, n: 50 }) },
  { name: 'five images of one row', make: linear({ images: 5, rows: 1, k: 65, n: 33 }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN in one row', 'NaN and infinities'].map((name) => ({
    name, make: linear({ images: 2, rows: 9, k: 67, n: 51, fill: FILLS[name]! }),
  })),
  ...VIM.flatMap(({ model, len, dim, dInner, dState, dtRank }) => [
    { name: 'in_proj', model, make: linear({ rows: len, k: dim, n: 2 * dInner, bias: false }) },
    { name: 'x_proj', model, make: linear({ rows: len, k: dInner, n: dtRank + 2 * dState, bias: false }) },
    { name: 'dt_proj', model, make: linear({ rows: len, k: dtRank, n: dInner }) },
    { name: 'out_proj', model, make: linear({ rows: len, k: dInner, n: dim, bias: false }) },
    { name: 'head', model, make: linear({ rows: 1, k: dim, n: 1000 }) },
  ]),
];
