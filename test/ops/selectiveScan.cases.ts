import type { OpCall, Operand } from '../../lib/ops.js';
import { type Fill, floats, type OpCase, quantizer, scanTable, type TableKind, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly rows: number;
  readonly channels: number;
  readonly dState?: number;
  /** One table per direction. */
  readonly tables?: readonly TableKind[];
  readonly gate?: boolean;
  readonly outScale?: number;
  readonly perToken?: boolean;
  /** Values of delta before softplus, of u and of z. */
  readonly delta?: Fill;
  readonly u?: Fill;
  readonly z?: Fill;
}

/** As in trained models: steps of some 0.05. */
const trained: Fill = (r) => -3 + 1.5 * r.normal();

const scan = ({
  images = 1, rows, channels, dState = 16, tables = ['identity'], gate = true, outScale = 1, perToken = true, delta = trained, u, z = (r) => 3 * r.normal(),
}: Shape) => (r: Random): OpCall => {
  const inputs: Record<string, Operand | undefined> = { z: gate ? floats(r, images, rows, channels, z) : undefined };
  const constants: Record<string, Float32Array | Int32Array | undefined> = {};
  tables.forEach((table, i) => {
    inputs[`u${i}`] = floats(r, images, rows, channels, u);
    inputs[`delta${i}`] = floats(r, images, rows, channels, delta);
    inputs[`b${i}`] = floats(r, images, rows, dState);
    inputs[`c${i}`] = floats(r, images, rows, dState);
    constants[`a${i}`] = r.floats(channels * dState, () => -Math.exp(r.uniform(-3, 3.5)));
    constants[`d${i}`] = r.floats(channels);
    constants[`table${i}`] = scanTable(r, table, rows);
  });
  const q = quantizer(r, rows, channels, { perToken, typical: 2 });
  return {
    kind: 'selectiveScan', images, inputs,
    outputs: { y: { rows, channels }, q: { rows, channels, dtype: 'u8' } },
    constants: { ...constants, ...q.constants },
    attributes: { directions: tables.length, dState, outScale, qmax: q.qmax },
  };
};

const small = { rows: 19, channels: 21 };

export const selectiveScanCases: readonly OpCase[] = [
  ...[[1, 1], [1, 97], [2, 5], [13, 1], [31, 15], [32, 16], [33, 17], [65, 31], [7, 33]].map(([rows, channels]) => ({
    name: `[${rows}, ${channels}]`, make: scan({ rows: rows!, channels: channels! }),
  })),
  ...[1, 2, 3, 8, 17, 64].map((dState) => ({ name: `state of ${dState}`, make: scan({ ...small, dState, tables: ['identity', 'reversed'] }) })),
  { name: 'forward and backward', make: scan({ ...small, images: 2, tables: ['identity', 'reversed'], outScale: 0.5 }) },
  { name: 'three directions, state of 1', make: scan({ ...small, dState: 1, tables: ['identity', 'reversed', 'permuted'], outScale: 1 / 3 }) },
  { name: 'four directions', make: scan({ rows: 36, channels: 19, images: 2, tables: ['identity', 'permuted', 'reversed', 'permuted'], outScale: 0.25 }) },
  { name: 'four directions, state of 1', make: scan({ rows: 36, channels: 19, dState: 1, tables: ['identity', 'permuted', 'reversed', 'permuted'] }) },
  { name: 'padded table', make: scan({ rows: 45, channels: 21, images: 2, tables: ['padded'] }) },
  { name: 'padded tables, state of 2', make: scan({ rows: 45, channels: 21, dState: 2, tables: ['padded', 'padded'] }) },
  { name: 'no gate', make: scan({ ...small, gate: false }) },
  { name: 'one step for the tensor', make: scan({ ...small, images: 3, perToken: false }) },
  { name: 'hardly any decay', make: scan({ rows: 97, channels: 17, delta: (r) => -12 + 3 * r.normal() }) },
  { name: 'any delta', make: scan({ rows: 97, channels: 17, delta: (r) => 10 * r.normal() }) },
  { name: 'forgets all or ignores the input', make: scan({ rows: 97, channels: 17, delta: (r) => (r.integer(0, 1) === 0 ? 1e4 : -80) }) },
  { name: 'delta of zero', make: scan({ ...small, delta: () => 0 }) },
  { name: 'gate far below and above zero', make: scan({ ...small, z: (r) => 60 * r.normal() }) },
  { name: 'constant rows', make: scan({ ...small, images: 2, u: (_r, _i, row) => row + 1, delta: () => -2 }) },
  { name: 'rows of zeros', make: scan({ ...small, u: (r, _i, row) => (row < 9 ? 0 : r.normal()) }) },
  { name: 'all zeros', make: scan({ ...small, u: () => 0, z: () => 0 }) },
  { name: 'outlier channels', make: scan({ ...small, u: (r, _i, _row, k) => r.normal() * (k % 7 === 3 ? 300 : 1) }) },
  { name: 'outlier tokens', make: scan({ ...small, u: (r, _i, row) => r.normal() * (row === 5 ? 1000 : 1) }) },
  // From its token on a NaN stays in its own channel's state, and nowhere else.
  { name: 'NaN in u', make: scan({ ...small, images: 2, u: (r, image, row, k) => (image === 0 && row === 4 && k === 6 ? NaN : r.normal()) }) },
  { name: 'NaN in delta', make: scan({ ...small, delta: (r, image, row, k) => (row === 4 && k === 6 ? NaN : trained(r, image, row, k)) }) },
  ...VIM.map(({ model, len, dInner, dState }) => ({
    name: 'scan', model, make: scan({ rows: len, channels: dInner, dState, tables: ['identity', 'reversed'], outScale: 0.5 }),
  })),
];
