import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, quantizer, scanTable, type TableKind, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly channels: number;
  readonly width?: number;
  readonly bias?: boolean;
  readonly table?: TableKind;
  readonly perToken?: boolean;
  readonly fill?: Fill;
}

const convSilu = ({ images = 1, rows, channels, width = 4, bias = true, table = 'identity', perToken = true, fill }: Shape) => (r: Random): OpCall => {
  const { constants, qmax } = quantizer(r, rows, channels, { perToken });
  // Rows that a padded table leaves out are not written: codes there would be whatever the memory held.
  const codes = table !== 'padded';
  return {
    kind: 'convSilu', images,
    inputs: { x: floats(r, images, rows, channels, fill) },
    outputs: { y: { rows, channels }, q: codes ? { rows, channels, dtype: 'u8' } : undefined },
    constants: {
      weight: r.floats(channels * width, () => r.normal() / Math.sqrt(width)),
      bias: bias ? r.floats(channels, () => 0.5 * r.normal()) : undefined,
      table: scanTable(r, table, rows), ...(codes ? constants : {}),
    },
    attributes: { width, qmax: codes ? qmax : undefined },
  };
};

const TABLES: readonly TableKind[] = ['reversed', 'permuted', 'padded'];

export const convSiluCases: readonly OpCase[] = [
  ...[[1, 1], [1, 97], [2, 5], [5, 1], [7, 15], [15, 16], [16, 17], [17, 31], [33, 64], [3, 129]].map(([rows, channels]) => ({
    name: `[${rows}, ${channels}]`, make: convSilu({ rows: rows!, channels: channels! }),
  })),
  ...[1, 2, 3, 5, 6, 7, 8].map((width) => ({ name: `width ${width}`, make: convSilu({ rows: 19, channels: 21, width }) })),
  { name: 'width 8 over three tokens', make: convSilu({ rows: 3, channels: 21, width: 8 }) },
  ...TABLES.map((table) => ({ name: `${table} table`, make: convSilu({ images: 2, rows: 37, channels: 35, table }) })),
  ...TABLES.map((table) => ({ name: `${table} table of one token`, make: convSilu({ rows: 1, channels: 35, table }) })),
  { name: 'no bias', make: convSilu({ rows: 19, channels: 21, bias: false }) },
  { name: 'one step for the tensor', make: convSilu({ images: 2, rows: 19, channels: 21, perToken: false }) },
  { name: 'far below and above zero', make: convSilu({ rows: 19, channels: 21, fill: (r) => 60 * r.normal() }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN in one row', 'NaN and infinities'].map((name) => ({
    name, make: convSilu({ images: 2, rows: 19, channels: 37, fill: FILLS[name]! }),
  })),
  ...VIM.flatMap(({ model, len, dInner }) => [
    { name: 'conv1d', model, make: convSilu({ rows: len, channels: dInner }) },
    { name: 'conv1d_b', model, make: convSilu({ rows: len, channels: dInner, table: 'reversed' }) },
  ]),
];
