/** Dense tensors in C order, as they are read from files and handed to users. */
import { rangeError, typeError } from './errors.js';

export type DType = 'f64' | 'f32' | 'f16' | 'bf16' | 'i64' | 'i32' | 'i16' | 'i8' | 'u8' | 'bool';

export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  f64: 8, f32: 4, f16: 2, bf16: 2, i64: 8, i32: 4, i16: 2, i8: 1, u8: 1, bool: 1,
};

/** Raw little-endian bytes with their type and shape; `data` may be a view into a larger buffer. */
export interface RawTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** What `forward` takes and returns: float32 in C order. */
export interface Tensor {
  readonly dims: readonly number[];
  readonly data: Float32Array;
}

/** Product of `dims`; 1 for a scalar. */
export function elementCount(dims: readonly number[]): number {
  let n = 1;
  for (const d of dims) n *= d;
  return n;
}

/** `[2, 3]` → `2×3`, for messages. */
export function showShape(shape: readonly number[]): string {
  return shape.length === 0 ? 'scalar' : shape.join('×');
}

export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

/** Checks a user's tensor. Throws TypeError/RangeError that names `name`. */
export function checkTensor(tensor: unknown, name: string): asserts tensor is Tensor {
  const t = tensor as Partial<Tensor> | null;
  if (typeof t !== 'object' || t === null) throw typeError('{ dims, data }', name, tensor);
  if (!Array.isArray(t.dims) || !t.dims.every((d) => Number.isInteger(d) && d >= 0)) {
    throw typeError('an array of non-negative integers', `${name}.dims`, t.dims);
  }
  if (!(t.data instanceof Float32Array)) throw typeError('a Float32Array', `${name}.data`, t.data);
  if (t.data.length !== elementCount(t.dims)) {
    throw rangeError(`${elementCount(t.dims)} elements (${showShape(t.dims)})`, `${name}.data`, t.data);
  }
}

/** Values of any float or integer type as float32 (float64 rounds to nearest; int64 beyond 2^53 loses digits). */
export function toFloat32(raw: RawTensor): Float32Array {
  const n = elementCount(raw.shape);
  const { dtype } = raw;
  // A copy aligns the bytes and detaches the result from the (possibly huge) buffer behind a view.
  const bytes = raw.data.slice(0, n * DTYPE_BYTES[dtype]);
  const { buffer } = bytes;
  switch (dtype) {
    case 'f32': return new Float32Array(buffer, 0, n);
    case 'f64': return Float32Array.from(new Float64Array(buffer, 0, n));
    case 'f16': return mapBits(new Uint16Array(buffer, 0, n), halfToFloat32);
    case 'bf16': return bfloat16ToFloat32(new Uint16Array(buffer, 0, n));
    case 'i64': return Float32Array.from(new BigInt64Array(buffer, 0, n), Number);
    case 'i32': return Float32Array.from(new Int32Array(buffer, 0, n));
    case 'i16': return Float32Array.from(new Int16Array(buffer, 0, n));
    case 'i8': return Float32Array.from(new Int8Array(buffer, 0, n));
    case 'u8':
    case 'bool': return Float32Array.from(bytes);
  }
}

function mapBits(bits: Uint16Array, convert: (b: number) => number): Float32Array {
  const out = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) out[i] = convert(bits[i]!);
  return out;
}

function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

/** IEEE 754 binary16 bit pattern to a number (exact). */
export function halfToFloat32(h: number): number {
  const sign = h & 0x8000 ? -1 : 1;
  const exponent = (h >> 10) & 0x1f;
  const fraction = h & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
