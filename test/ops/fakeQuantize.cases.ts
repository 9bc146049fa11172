import type { OpCall } from '../../lib/ops.js';
import { actSteps, FILLS, type Fill, floats, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly channels: number;
  readonly bits?: number;
  readonly perToken?: boolean;
  readonly smooth?: boolean;
  readonly fill?: Fill;
  readonly typical?: number;
  /** Values that lie halfway between two codes after exact divisions, which a product with a rounded reciprocal misses. */
  readonly ties?: boolean;
}

const fakeQuantize = ({ images = 1, rows, channels, bits = 8, perToken = true, smooth = true, fill, typical, ties = false }: Shape) => (r: Random): OpCall => {
  const qmax = 2 ** bits - 1;
  if (ties) {
    const divisor = (k: number) => 3 + 2 * (k % 5);
    const step = 11;
    return {
      kind: 'fakeQuantize', images,
      inputs: { x: floats(r, images, rows, channels, (_r, _i, _row, k) => (r.integer(-300, 300) / 2) * divisor(k) * step) },
      outputs: { y: { rows, channels } },
      constants: { actScale: new Float32Array(rows).fill(step), actZero: new Int32Array(rows).fill(120), smooth: r.floats(channels, divisor) },
      attributes: { qmax },
    };
  }
  return {
    kind: 'fakeQuantize', images,
    inputs: { x: floats(r, images, rows, channels, fill) },
    outputs: { y: { rows, channels } },
    constants: { ...actSteps(r, rows, perToken, qmax, typical), smooth: smooth ? r.floats(channels, () => r.uniform(0.5, 2)) : undefined },
    attributes: { qmax },
  };
};

export const fakeQuantizeCases: readonly OpCase[] = [
  ...[[1, 1], [1, 97], [5, 1], [7, 15], [17, 16], [16, 17], [33, 65]].map(([rows, channels]) => ({
    name: `[${rows}, ${channels}]`, make: fakeQuantize({ rows: rows!, channels: channels! }),
  })),
  ...[1, 4, 6].map((bits) => ({ name: `${bits} bits`, make: fakeQuantize({ rows: 9, channels: 37, bits }) })),
  { name: 'one step for the tensor', make: fakeQuantize({ rows: 9, channels: 37, perToken: false }) },
  { name: 'without smoothing', make: fakeQuantize({ rows: 9, channels: 37, smooth: false }) },
  { name: 'halfway between codes', make: fakeQuantize({ images: 2, rows: 6, channels: 129, ties: true }) },
  { name: 'three images', make: fakeQuantize({ images: 3, rows: 9, channels: 37 }) },
  { name: 'most values clamped', make: fakeQuantize({ rows: 6, channels: 129, typical: 0.02 }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN in one row', 'unusual values'].map((name) => ({
    name, make: fakeQuantize({ images: 2, rows: 9, channels: 67, fill: FILLS[name]! }),
  })),
  ...VIM.map(({ model, len, dInner }) => ({ name: 'out_proj input', model, make: fakeQuantize({ rows: len, channels: dInner }) })),
];
