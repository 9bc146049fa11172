import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

const select = ({ images = 1, rows, channels, indices, fill }: { images?: number; rows: number; channels: number; indices: (r: Random) => Int32Array; fill?: Fill }) => (r: Random): OpCall => {
  const chosen = indices(r);
  return {
    kind: 'selectTokens', images,
    inputs: { x: floats(r, images, rows, channels, fill) },
    outputs: { y: { rows: chosen.length, channels } },
    constants: { indices: chosen },
  };
};

export const selectTokensCases: readonly OpCase[] = [
  { name: '[1, 1]', make: select({ rows: 1, channels: 1, indices: () => Int32Array.of(0) }) },
  ...[1, 15, 16, 17, 97].map((channels) => ({ name: `${channels} channels, reversed`, make: select({ rows: 7, channels, indices: () => Int32Array.of(6, 5, 4, 3, 2, 1, 0) }) })),
  { name: 'three images, permuted', make: select({ images: 3, rows: 13, channels: 19, indices: (r) => r.permutation(13) }) },
  { name: 'one token many times', make: select({ images: 2, rows: 3, channels: 19, indices: () => new Int32Array(11).fill(2) }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN and infinities'].map((name) => ({ name, make: select({ images: 2, rows: 9, channels: 67, indices: (r) => r.permutation(9), fill: FILLS[name]! }) })),
  ...VIM.map(({ model, len, dim }) => ({ name: 'cls_hidden', model, make: select({ rows: len, channels: dim, indices: () => Int32Array.of(98) }) })),
];
