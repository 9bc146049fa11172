/** Runs an op whose operands are channel slices of wider tensors, as in real Programs, with rubbish all around them. */
import { EngineSession, type Values } from '../../lib/native/session.js';
import type { SessionOptions } from '../../lib/native/addon-types.js';
import type { OpCall, Operand } from '../../lib/ops.js';
import type { Op, Program, Ref, TensorSpec } from '../../lib/program/ir.js';

/** Codes must begin at their tensor's first channel. */
const before = (dtype: 'f32' | 'u8') => (dtype === 'u8' ? 0 : 3);
const AFTER = 5;

export async function runSliced(call: OpCall, options: SessionOptions): Promise<Values> {
  const tensors: TensorSpec[] = [{ name: 'picture', dtype: 'f32', rows: 1, channels: 1 }];
  const slice = (name: string, rows: number, channels: number, dtype: 'f32' | 'u8'): Ref => {
    tensors.push({ name, dtype, rows, channels: before(dtype) + channels + AFTER });
    return { tensor: name, from: before(dtype), channels };
  };
  const refs = (values: OpCall['inputs'] | OpCall['outputs'], side: string) =>
    Object.fromEntries(
      Object.entries(values).flatMap(([key, v]) => {
        if (v === undefined) return [];
        const dtype = 'data' in v ? (v.data instanceof Float32Array ? 'f32' : 'u8') : (v.dtype ?? 'f32');
        return [[key, slice(`${side}:${key}`, v.rows, v.channels, dtype)]];
      }),
    );
  const inputs = refs(call.inputs, 'in');
  const outputs = refs(call.outputs, 'out');
  const op = { kind: call.kind, name: call.kind, inputs, outputs, constants: call.constants ?? {}, attributes: call.attributes ?? {}, independent: ['batch'] } as unknown as Op;
  const program: Program = { tensors, ops: [op], blocks: [], linears: [], input: 'picture', output: 'picture' };
  const session = new EngineSession(program, options);
  try {
    const feeds = Object.fromEntries(Object.entries(call.inputs).flatMap(([key, v]) => (v === undefined ? [] : [[`in:${key}`, surrounded(v, call.images)]])));
    const values = await session.run({ images: call.images, feeds, fetches: Object.values(outputs).map((r) => r.tensor) });
    return Object.fromEntries(Object.entries(outputs).map(([key, ref]) => [key, inside(values[ref.tensor]!, ref.channels!, key)]));
  } finally {
    await session.dispose();
  }
}

/** NaN around floats, the largest code around codes. */
function surrounded({ rows, channels, data }: Operand, images: number): Float32Array | Uint8Array {
  const from = before(data instanceof Float32Array ? 'f32' : 'u8');
  const width = from + channels + AFTER;
  const wide = data instanceof Float32Array ? new Float32Array(images * rows * width).fill(NaN) : new Uint8Array(images * rows * width).fill(255);
  for (let r = 0; r < images * rows; r++) wide.set(data.subarray(r * channels, (r + 1) * channels), r * width + from);
  return wide;
}

/** The slice alone. What surrounds a float slice is the caller's own zeroed memory and must still be zero. */
function inside(wide: Float32Array | Uint8Array, channels: number, key: string): Float32Array | Uint8Array {
  const isFloat = wide instanceof Float32Array;
  const from = before(isFloat ? 'f32' : 'u8');
  const width = from + channels + AFTER;
  const rows = wide.length / width;
  const out = isFloat ? new Float32Array(rows * channels) : new Uint8Array(rows * channels);
  for (let r = 0; r < rows; r++) {
    out.set(wide.subarray(r * width + from, r * width + from + channels), r * channels);
    for (let k = 0; isFloat && k < width; k++) {
      if ((k < from || k >= from + channels) && wide[r * width + k] !== 0) throw new Error(`wrote beside '${key}', row ${r} channel ${k - from}`);
    }
  }
  return out;
}
