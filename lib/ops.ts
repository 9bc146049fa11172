/**
 * The kernels one by one, for tests, benchmarks and the curious: each function makes a Program of one op
 * and runs it. Mathematics and shapes are stated at the op's type in program/ir.ts.
 */
import type { SessionOptions } from './native/addon-types.js';
import { EngineSession, type Values } from './native/session.js';
import type { Op, Program, Ref, TensorSpec } from './program/ir.js';
import { rangeError } from './errors.js';

/** A value of an op's operand: [images, rows, channels] in C order. */
export interface Operand {
  readonly rows: number;
  readonly channels: number;
  readonly data: Float32Array | Uint8Array;
}

/** Result shape of an output. */
export interface OutputSpec {
  readonly rows: number;
  readonly channels: number;
  readonly dtype?: 'f32' | 'u8';
}

export interface OpCall {
  readonly kind: Op['kind'];
  readonly images: number;
  readonly inputs: Readonly<Record<string, Operand | undefined>>;
  readonly outputs: Readonly<Record<string, OutputSpec | undefined>>;
  readonly constants?: Op['constants'];
  readonly attributes?: Op['attributes'];
}

/** A prepared op that can be run again and again; `dispose` it. */
export interface PreparedOp {
  run(): Promise<Values>;
  /** Nanoseconds of one run, summed over threads. */
  time(): Promise<number>;
  dispose(): Promise<void>;
}

/** Checks and packs one op. `isa` and `threads` as in SessionOptions. */
export function prepareOp(call: OpCall, options: SessionOptions = {}): PreparedOp {
  const { images } = call;
  if (!Number.isInteger(images) || images < 1) throw rangeError('a positive integer', 'images', images);
  const tensors: TensorSpec[] = [];
  const feeds: Record<string, Float32Array | Uint8Array> = {};
  const inputs: Record<string, Ref> = {};
  const outputs: Record<string, Ref> = {};
  for (const [key, value] of Object.entries(call.inputs)) {
    if (value === undefined) continue;
    const name = `in:${key}`;
    tensors.push({ name, dtype: value.data instanceof Float32Array ? 'f32' : 'u8', rows: value.rows, channels: value.channels });
    feeds[name] = value.data;
    inputs[key] = { tensor: name };
  }
  for (const [key, value] of Object.entries(call.outputs)) {
    if (value === undefined) continue;
    const name = `out:${key}`;
    tensors.push({ name, dtype: value.dtype ?? 'f32', rows: value.rows, channels: value.channels });
    outputs[key] = { tensor: name };
  }
  // The engine refuses NaN in a Program's picture; here every operand is an ordinary tensor.
  const unused: TensorSpec = { name: 'picture', dtype: 'f32', rows: 1, channels: 1 };
  const op = { kind: call.kind, name: call.kind, inputs, outputs, constants: call.constants ?? {}, attributes: call.attributes ?? {}, independent: ['batch'] } as unknown as Op;
  const program: Program = { tensors: [...tensors, unused], ops: [op], blocks: [], linears: [], input: unused.name, output: unused.name };
  const session = new EngineSession(program, options);
  const fetches = Object.values(outputs).map((r) => r.tensor);
  return {
    async run() {
      const values = await session.run({ images, feeds, fetches });
      return Object.fromEntries(Object.entries(values).map(([name, v]) => [name.slice('out:'.length), v]));
    },
    async time() {
      // Nothing is fetched: the first touch of a fresh result's pages would count as the kernel's time.
      const { opNanoseconds } = await session.runWithProfile({ images, feeds, fetches: [], profile: true });
      return opNanoseconds![0]!;
    },
    dispose: () => session.dispose(),
  };
}

/** Runs one op once and returns its outputs by name. */
export async function runOp(call: OpCall, options?: SessionOptions): Promise<Values> {
  const op = prepareOp(call, options);
  try {
    return await op.run();
  } finally {
    await op.dispose();
  }
}

export interface GemmI8 {
  /** u8 codes [m, k]. */
  readonly x: Uint8Array;
  /** s8 codes [n, k]. */
  readonly weight: Int8Array;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  /** [m] or [1]. */
  readonly actScale: Float32Array;
  readonly actZero: Int32Array;
  /** [n]. */
  readonly weightScale: Float32Array;
  readonly bias?: Float32Array;
}

/** INT8 GEMM with per-token static dequantization (ARCHITECTURE "Mathematics"): [m, n] in float32. */
export async function gemmI8(g: GemmI8, options?: SessionOptions): Promise<Float32Array> {
  const { x, weight, m, n, k, actScale, actZero, weightScale, bias } = g;
  const { y } = await runOp(
    {
      kind: 'linearI8', images: 1, inputs: { x: { rows: m, channels: k, data: x } }, outputs: { y: { rows: m, channels: n } },
      constants: { weight, weightScale, actScale, actZero, bias }, attributes: { bits: 8 },
    },
    options,
  );
  return y as Float32Array;
}

/** One direction of a scan; all [len, ·] in memory row order. */
export interface ScanDirection {
  /** [len, dInner]. */
  readonly u: Float32Array;
  /** [len, dInner], before softplus, bias added. */
  readonly delta: Float32Array;
  /** [len, dState]. */
  readonly b: Float32Array;
  readonly c: Float32Array;
  /** −exp(A_log), [dInner, dState]. */
  readonly a: Float32Array;
  /** [dInner]. */
  readonly d: Float32Array;
  /** Memory row per scan position; absent = identity. */
  readonly table?: Int32Array;
}

export interface SelectiveScan {
  readonly len: number;
  readonly dInner: number;
  readonly dState: number;
  readonly directions: readonly ScanDirection[];
  /** Gate input [len, dInner]; absent = no gate. */
  readonly z?: Float32Array;
  readonly outScale?: number;
}

/** Selective scan of 1…4 directions, merged and gated (ARCHITECTURE "Mathematics"): [len, dInner] in float32. */
export async function selectiveScan(s: SelectiveScan, options?: SessionOptions): Promise<Float32Array> {
  const { len, dInner, dState, directions, z, outScale = 1 } = s;
  const inputs: Record<string, Operand | undefined> = { z: z && { rows: len, channels: dInner, data: z } };
  const constants: Record<string, Float32Array | Int32Array | undefined> = {};
  directions.forEach((direction, i) => {
    inputs[`u${i}`] = { rows: len, channels: dInner, data: direction.u };
    inputs[`delta${i}`] = { rows: len, channels: dInner, data: direction.delta };
    inputs[`b${i}`] = { rows: len, channels: dState, data: direction.b };
    inputs[`c${i}`] = { rows: len, channels: dState, data: direction.c };
    constants[`a${i}`] = direction.a;
    constants[`d${i}`] = direction.d;
    constants[`table${i}`] = direction.table;
  });
  const { y } = await runOp(
    {
      kind: 'selectiveScan', images: 1, inputs, outputs: { y: { rows: len, channels: dInner } }, constants,
      attributes: { directions: directions.length, dState, outScale },
    },
    options,
  );
  return y as Float32Array;
}
