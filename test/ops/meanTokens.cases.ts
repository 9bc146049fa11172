import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase } from './case.js';
import type { Random } from './random.js';

const mean = ({ images = 1, rows, channels, fill }: { images?: number; rows: number; channels: number; fill?: Fill }) => (r: Random): OpCall => ({
  kind: 'meanTokens', images,
  inputs: { x: floats(r, images, rows, channels, fill) },
  outputs: { y: { rows: 1, channels } },
});

export const meanTokensCases: readonly OpCase[] = [
  ...[[1, 1], [1, 97], [2, 15], [13, 1], [7, 16], [8, 17], [31, 33]].map(([rows, channels]) => ({ name: `[${rows}, ${channels}]`, make: mean({ rows: rows!, channels: channels! }) })),
  { name: 'three images', make: mean({ images: 3, rows: 13, channels: 19 }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN and infinities'].map((name) => ({ name, make: mean({ images: 2, rows: 9, channels: 67, fill: FILLS[name]! }) })),
  { name: 'pool', model: 'Vim-T', make: mean({ rows: 196, channels: 192 }) },
];
