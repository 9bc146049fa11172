import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, quantizer, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly channels: number;
  readonly layerNorm?: boolean;
  readonly bias?: boolean;
  /** Which of the residual's two ends there are. */
  readonly residual?: 'none' | 'in' | 'out' | 'both';
  readonly perToken?: boolean;
  readonly fill?: Fill;
}

const addNorm = ({ images = 1, rows, channels, layerNorm = false, bias = layerNorm, residual = 'both', perToken = true, fill }: Shape) => (r: Random): OpCall => {
  const { constants, qmax } = quantizer(r, rows, channels, { perToken });
  return {
    kind: 'addNorm', images,
    inputs: {
      x: floats(r, images, rows, channels, fill),
      residual: residual === 'in' || residual === 'both' ? floats(r, images, rows, channels, fill) : undefined,
    },
    outputs: {
      residual: residual === 'out' || residual === 'both' ? { rows, channels } : undefined,
      y: { rows, channels },
      q: { rows, channels, dtype: 'u8' },
    },
    constants: { weight: r.floats(channels), bias: bias ? r.floats(channels) : undefined, ...constants },
    attributes: { norm: layerNorm ? 1 : 0, epsilon: 1e-5, qmax },
  };
};

const NORMS = [{ layerNorm: false, norm: 'RMSNorm' }, { layerNorm: true, norm: 'LayerNorm' }];

export const addNormCases: readonly OpCase[] = [
  ...NORMS.flatMap(({ layerNorm, norm }) => [
    ...[[1, 1], [1, 97], [7, 2], [8, 15], [9, 16], [17, 31], [3, 64], [5, 65], [2, 127]].map(([rows, channels]) => ({
      name: `${norm} [${rows}, ${channels}]`, make: addNorm({ rows: rows!, channels: channels!, layerNorm }),
    })),
    ...(['none', 'in', 'out'] as const).map((residual) => ({
      name: `${norm}, residual ${residual}`, make: addNorm({ images: 2, rows: 9, channels: 37, layerNorm, residual }),
    })),
    { name: `${norm}, bias ${layerNorm ? 'absent' : 'present'}`, make: addNorm({ rows: 9, channels: 37, layerNorm, bias: !layerNorm }) },
    { name: `${norm}, one step for the tensor`, make: addNorm({ images: 3, rows: 9, channels: 37, layerNorm, perToken: false }) },
    // Rows without variance: only epsilon stands between the deviation's rounding and a division by zero.
    ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN in one row'].map((fill) => ({
      name: `${norm}, ${fill}`, make: addNorm({ images: 2, rows: 9, channels: 67, layerNorm, fill: FILLS[fill]! }),
    })),
    { name: `${norm}, far from zero`, make: addNorm({ rows: 9, channels: 67, layerNorm, fill: (r) => 50 + r.normal() }) },
    { name: `${norm}, very small values`, make: addNorm({ rows: 9, channels: 67, layerNorm, fill: (r) => 1e-6 * r.normal() }) },
  ]),
  ...VIM.map(({ model, len, dim }) => ({ name: 'norm', model, make: addNorm({ rows: len, channels: dim }) })),
];
