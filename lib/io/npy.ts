/** NumPy .npy arrays: whole, by rows, as integers; and float32 arrays written. */
import { Ptq4vmError, rangeError } from '../errors.js';
import { checkTensor, type DType, elementCount, showShape, type Tensor, toFloat32 } from '../tensor.js';
import { allocate, type AtomicWriteOptions, type ByteSource, openSource, withSource, writeFileAtomically } from './files.js';
import { NPY_BYTES, type NpyDType, type NpyHeader, readNpyHeader } from './npy-header.js';
import { copyElements, cStrides, elementWords, swapBytes } from './strided.js';

export type { NpyDType } from './npy-header.js';

/** An array in memory: little-endian bytes in C order, whatever the file had. */
export class NpyArray {
  constructor(
    readonly dtype: NpyDType,
    readonly shape: readonly number[],
    readonly data: Uint8Array,
  ) {}

  /** The values as float32: float64 rounds to nearest, integers beyond 2^24 too. */
  toFloat32(): Float32Array {
    return bytesToFloat32(this.dtype, this.shape, this.data);
  }
}

/** Reads a whole array. Throws ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_UNSUPPORTED (objects, records, complex, text). */
export function readNpy(path: string): Promise<NpyArray> {
  return withSource(path, readNpySource);
}

export async function readNpySource(source: ByteSource): Promise<NpyArray> {
  const header = await readNpyHeader(source);
  return new NpyArray(header.dtype, header.shape, await readBody(source, header));
}

/** An array on disk, read by rows: a calibration batch can be far larger than memory should be. */
export interface NpyFile {
  readonly path: string;
  readonly dtype: NpyDType;
  readonly shape: readonly number[];
  /** Length of axis 0. */
  readonly rows: number;
  /**
   * Rows begin … end − 1 along axis 0 as float32, C order, [end − begin, …shape[1:]]. A file in C order is read in place;
   * a Fortran one is read whole at the first call and kept. RangeError for rows that are not there.
   */
  readRows(begin: number, end: number): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Opens an array of at least one axis for reading by rows. Errors as `readNpy`; ERR_DATA for a scalar. */
export async function openNpy(path: string): Promise<NpyFile> {
  const source = await openSource(path);
  try {
    return await openNpySource(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

export async function openNpySource(source: ByteSource): Promise<NpyFile> {
  const header = await readNpyHeader(source);
  const { dtype, shape } = header;
  if (shape.length === 0) throw new Ptq4vmError('ERR_DATA', `${source.path} holds a single number, not an array with rows`);
  const rows = shape[0]!;
  const rowShape = shape.slice(1);
  const rowBytes = elementCount(rowShape) * NPY_BYTES[dtype];
  let whole: Promise<Uint8Array> | null = null;
  return {
    path: source.path,
    dtype,
    shape,
    rows,
    async readRows(begin, end) {
      if (!Number.isInteger(begin) || begin < 0 || begin > rows) throw rangeError(`a row from 0 to ${rows}`, 'begin', begin);
      if (!Number.isInteger(end) || end < begin || end > rows) throw rangeError(`a row from ${begin} to ${rows}`, 'end', end);
      let bytes: Uint8Array;
      if (header.fortranOrder && shape.length > 1) {
        whole ??= readBody(source, header);
        bytes = (await whole).slice(begin * rowBytes, end * rowBytes);
      } else {
        bytes = await source.read(header.dataBegin + begin * rowBytes, (end - begin) * rowBytes, `rows ${begin} to ${end}`);
        if (header.bigEndian) swapBytes(bytes, NPY_BYTES[dtype]);
      }
      return bytesToFloat32(dtype, [end - begin, ...rowShape], bytes);
    },
    async close() {
      whole = null;
      await source.close();
    },
  };
}

/**
 * Integers of any width (labels), checked to fit int32. Throws ERR_DATA for floats and for values out of range, else as `readNpy`.
 */
export function readNpyIntegers(path: string): Promise<{ shape: readonly number[]; data: Int32Array }> {
  return withSource(path, readNpyIntegersSource);
}

export async function readNpyIntegersSource(source: ByteSource): Promise<{ shape: readonly number[]; data: Int32Array }> {
  const { dtype, shape, data } = await readNpySource(source);
  if (dtype === 'f16' || dtype === 'f32' || dtype === 'f64') {
    throw new Ptq4vmError('ERR_DATA', `${source.path} holds floats (${dtype}); expected integers`);
  }
  const values = integers(dtype, data);
  const out = new Int32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = Number(values[i]);
    out[i] = value;
    if (out[i] !== value) {
      throw new Ptq4vmError('ERR_DATA', `${source.path}: value ${values[i]} at index ${i} does not fit a 32-bit integer`);
    }
  }
  return { shape, data: out };
}

/** Writes a float32 array (format 1.0), whole or not at all. Throws TypeError/RangeError for a bad tensor, ERR_FILE_WRITE. */
export async function writeNpy(path: string, tensor: Tensor, options: AtomicWriteOptions = {}): Promise<void> {
  checkTensor(tensor, 'tensor');
  const { dims, data } = tensor;
  const shape = dims.length === 1 ? `(${dims[0]},)` : `(${dims.join(', ')})`;
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': ${shape}, }`;
  // As NumPy does: the elements begin at a multiple of 64 bytes, and the header ends in a newline.
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64 - 10;
  if (length > 0xffff) throw rangeError('a shape of fewer dimensions', 'tensor.dims', dims);
  const header = Buffer.alloc(10 + length, ' ');
  header.write('\x93NUMPY\x01\x00', 0, 'latin1');
  header.writeUInt16LE(length, 8);
  header.write(dict, 10, 'latin1');
  header[header.length - 1] = 0x0a;
  await writeFileAtomically(
    path,
    async (write) => {
      await write(header);
      await write(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    },
    options,
  );
}

/** The elements, little-endian, in C order. */
async function readBody(source: ByteSource, header: NpyHeader): Promise<Uint8Array> {
  const { shape, dtype } = header;
  const size = NPY_BYTES[dtype];
  const what = `the array of ${showShape(shape)}`;
  let bytes = await source.read(header.dataBegin, header.dataBytes, what);
  if (header.fortranOrder && shape.length > 1 && bytes.length > 0) {
    const out = allocate(bytes.length, what);
    // In Fortran order the first axis is the fastest: the strides of C order for the reversed shape, reversed.
    copyElements(elementWords(bytes, size), cStrides([...shape].reverse()).reverse(), elementWords(out, size), cStrides(shape), 0, shape);
    bytes = out;
  }
  return header.bigEndian ? swapBytes(bytes, size) : bytes;
}

function bytesToFloat32(dtype: NpyDType, shape: readonly number[], data: Uint8Array): Float32Array {
  if (dtype === 'f32' && data.byteOffset % 4 === 0) return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
  if (dtype === 'u16' || dtype === 'u32' || dtype === 'u64') return Float32Array.from(integers(dtype, data) as Uint32Array, Number);
  return toFloat32({ dtype: dtype satisfies DType, shape, data });
}

function integers(dtype: Exclude<NpyDType, 'f16' | 'f32' | 'f64'>, data: Uint8Array): ArrayLike<number | bigint> {
  const { buffer, byteOffset, byteLength } = data;
  switch (dtype) {
    case 'i64': return new BigInt64Array(buffer, byteOffset, byteLength / 8);
    case 'u64': return new BigUint64Array(buffer, byteOffset, byteLength / 8);
    case 'i32': return new Int32Array(buffer, byteOffset, byteLength / 4);
    case 'u32': return new Uint32Array(buffer, byteOffset, byteLength / 4);
    case 'i16': return new Int16Array(buffer, byteOffset, byteLength / 2);
    case 'u16': return new Uint16Array(buffer, byteOffset, byteLength / 2);
    case 'i8': return new Int8Array(buffer, byteOffset, byteLength);
    case 'u8':
    case 'bool': return data;
  }
}
