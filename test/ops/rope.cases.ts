import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase } from './case.js';
import type { Random } from './random.js';

const rope = ({ images = 1, rows, channels, firstToken = 0, fill }: { images?: number; rows: number; channels: number; firstToken?: number; fill?: Fill }) => (r: Random): OpCall => {
  const count = (rows - firstToken) * channels;
  const angles = r.floats(count, () => r.uniform(-Math.PI, Math.PI));
  return {
    kind: 'rope', images,
    inputs: { x: floats(r, images, rows, channels, fill) },
    outputs: { y: { rows, channels } },
    constants: { cos: angles.map(Math.cos), sin: angles.map(Math.sin) },
    attributes: { firstToken },
  };
};

export const ropeCases: readonly OpCase[] = [
  ...[[1, 2], [1, 98], [7, 16], [5, 30], [13, 34]].map(([rows, channels]) => ({ name: `[${rows}, ${channels}]`, make: rope({ rows: rows!, channels: channels! }) })),
  { name: 'first token left alone', make: rope({ rows: 9, channels: 38, firstToken: 1 }) },
  { name: 'three images, four tokens left alone', make: rope({ images: 3, rows: 9, channels: 38, firstToken: 4 }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN and infinities'].map((name) => ({ name, make: rope({ images: 2, rows: 9, channels: 66, firstToken: 1, fill: FILLS[name]! }) })),
  { name: 'rope', model: 'Vim-T', make: rope({ rows: 197, channels: 192, firstToken: 1 }) },
];
