import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, type Quantizer, quantizer, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape extends Quantizer {
  readonly images?: number;
  readonly rows: number;
  readonly channels: number;
  readonly fill?: Fill;
  /** Steps of exactly 1 and ¼, so that values halfway between two codes stay there. */
  readonly ties?: boolean;
}

const quantize = ({ images = 1, rows, channels, fill, ties = false, ...options }: Shape) => (r: Random): OpCall => {
  const { constants, qmax } = quantizer(r, rows, channels, options);
  return {
    kind: 'quantize', images,
    inputs: { x: floats(r, images, rows, channels, fill) },
    outputs: { q: { rows, channels, dtype: 'u8' } },
    constants: ties
      ? { ...constants, qActRscale: constants.qActRscale.map((_, i) => (i % 2 === 0 ? 1 : 4)), qSmoothRscale: undefined }
      : constants,
    attributes: { qmax },
  };
};

export const quantizeCases: readonly OpCase[] = [
  ...[[1, 1], [1, 97], [5, 1], [7, 15], [17, 16], [16, 17], [15, 63], [3, 64], [33, 65], [2, 127]].map(([rows, channels]) => ({
    name: `[${rows}, ${channels}]`, make: quantize({ rows: rows!, channels: channels! }),
  })),
  ...[1, 2, 4, 6].map((bits) => ({ name: `${bits} bits`, make: quantize({ rows: 9, channels: 37, bits }) })),
  { name: 'one step for the tensor', make: quantize({ rows: 9, channels: 37, perToken: false }) },
  { name: 'without smoothing', make: quantize({ rows: 9, channels: 37, smooth: false }) },
  { name: 'three images', make: quantize({ images: 3, rows: 9, channels: 37 }) },
  { name: 'halfway between codes', make: quantize({ rows: 6, channels: 129, ties: true, fill: (r) => r.integer(-600, 600) / 2 }) },
  { name: 'most values clamped', make: quantize({ rows: 6, channels: 129, typical: 0.02 }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN in one row', 'unusual values'].map((name) => ({
    name, make: quantize({ images: 2, rows: 9, channels: 67, fill: FILLS[name]! }),
  })),
  ...VIM.map(({ model, len, dInner }) => ({ name: 'out_proj input', model, make: quantize({ rows: len, channels: dInner }) })),
];
