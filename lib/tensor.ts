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

/** A model's weight as float32. */
export interface Weight {
  readonly shape: readonly number[];
  readonly data: Float32Array;
  /** Type in the file it came from; saved files keep it. */
  readonly dtype: DType;
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

/**
 * float32 values as little-endian bytes of `dtype`. Exact for values that came from that type (as `toFloat32` gives them);
 * others round towards zero for bf16 and to nearest for f16.
 */
export function fromFloat32(values: Float32Array, dtype: DType): Uint8Array {
  switch (dtype) {
    case 'f32': return viewBytes(values);
    case 'f64': return viewBytes(Float64Array.from(values));
    case 'bf16': {
      const wide = new Uint32Array(values.buffer, values.byteOffset, values.length);
      return viewBytes(Uint16Array.from(wide, (bits) => bits >>> 16));
    }
    case 'f16': return viewBytes(Uint16Array.from(values, float32ToHalf));
    case 'i64': return viewBytes(BigInt64Array.from(Array.from(values, BigInt)));
    case 'i32': return viewBytes(Int32Array.from(values));
    case 'i16': return viewBytes(Int16Array.from(values));
    case 'i8': return viewBytes(Int8Array.from(values));
    case 'u8':
    case 'bool': return Uint8Array.from(values);
  }
}

function viewBytes(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Nearest IEEE 754 binary16 bit pattern (ties to even). */
export function float32ToHalf(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  // The spacing of halves around `magnitude`: 2^(e − 10), at least that of subnormals.
  const exponent = Math.max(magnitude === 0 ? -14 : Math.floor(Math.log2(magnitude)), -14);
  const step = 2 ** (exponent - 10);
  const units = roundHalfEven(magnitude / step);
  // `units` carries the hidden bit: adding it to (exponent + 14) << 10 lets a round-up carry into the exponent.
  return sign | (((exponent + 14) << 10) + units);
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest > 0.5 || (rest === 0.5 && floor % 2 === 1)) return floor + 1;
  return floor;
}
