/**
 * Strided views of stored elements, read into C order.
 *
 * A contiguous view is one read. Any other is gathered from the byte range it spans; a range above `PIECE` is halved along
 * its widest axis until each part is small, so that a thin slice of a huge storage costs little memory.
 */
import { elementCount } from '../tensor.js';
import { allocate } from './files.js';

export interface StridedView {
  readonly shape: readonly number[];
  /** In elements, none negative, one per dimension. */
  readonly strides: readonly number[];
  /** First element. */
  readonly offset: number;
  readonly elementBytes: 1 | 2 | 4 | 8;
}

/** Bytes of a storage, by offset and length. */
export type ReadRange = (begin: number, length: number) => Promise<Uint8Array>;

const PIECE = 1 << 25;

/** Elements from the first to the last one that the view touches, both included; 0 for an empty view. */
export function viewSpan(shape: readonly number[], strides: readonly number[]): number {
  let span = 1;
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] === 0) return 0;
    span += (shape[i]! - 1) * strides[i]!;
  }
  return span;
}

export function cStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step;
    step *= shape[i]!;
  }
  return strides;
}

function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  const dense = cStrides(shape);
  return shape.every((d, i) => d === 1 || strides[i] === dense[i]);
}

/** The view's elements in C order. The caller has checked that the view lies inside the storage. */
export async function readView(read: ReadRange, view: StridedView): Promise<Uint8Array> {
  const { shape, strides, offset, elementBytes } = view;
  const count = elementCount(shape);
  if (count === 0) return new Uint8Array(0);
  if (isContiguous(shape, strides)) return read(offset * elementBytes, count * elementBytes);
  const out = allocate(count * elementBytes, 'a strided tensor');
  await gather(read, view, out, cStrides(shape), 0);
  return out;
}

async function gather(
  read: ReadRange,
  view: StridedView,
  out: Uint8Array,
  outStrides: readonly number[],
  outOffset: number,
): Promise<void> {
  const { shape, strides, offset, elementBytes } = view;
  const span = viewSpan(shape, strides);
  if (span * elementBytes > PIECE) {
    let axis = 0;
    for (let i = 1; i < shape.length; i++) if ((shape[i]! - 1) * strides[i]! > (shape[axis]! - 1) * strides[axis]!) axis = i;
    const half = Math.floor(shape[axis]! / 2);
    const part = (begin: number, length: number) =>
      gather(
        read,
        { shape: shape.map((d, i) => (i === axis ? length : d)), strides, offset: offset + begin * strides[axis]!, elementBytes },
        out,
        outStrides,
        outOffset + begin * outStrides[axis]!,
      );
    await part(0, half);
    await part(half, shape[axis]! - half);
    return;
  }
  const source = await read(offset * elementBytes, span * elementBytes);
  copyElements(elementWords(source, elementBytes), strides, elementWords(out, elementBytes), outStrides, outOffset, shape);
}

type Words = Uint8Array | Uint16Array | Uint32Array | BigUint64Array;

/** Elements as unsigned words: bits are moved, never interpreted (a NaN keeps its payload). `bytes` begins its own buffer. */
export function elementWords(bytes: Uint8Array, elementBytes: number): Words {
  const { buffer, byteOffset, byteLength } = bytes;
  switch (elementBytes) {
    case 2: return new Uint16Array(buffer, byteOffset, byteLength / 2);
    case 4: return new Uint32Array(buffer, byteOffset, byteLength / 4);
    case 8: return new BigUint64Array(buffer, byteOffset, byteLength / 8);
    default: return bytes;
  }
}

/** out[outOffset + Σ i·outStride] = source[Σ i·stride] for every index of `shape`. */
export function copyElements(
  source: Words,
  strides: readonly number[],
  out: Words,
  outStrides: readonly number[],
  outOffset: number,
  shape: readonly number[],
): void {
  const from = source as Uint32Array;
  const to = out as Uint32Array;
  const rank = shape.length;
  if (rank === 0) {
    to[outOffset] = from[0]!;
    return;
  }
  const inner = shape[rank - 1]!;
  const innerStride = strides[rank - 1]!;
  const innerOut = outStrides[rank - 1]!;
  const index = new Array<number>(rank - 1).fill(0);
  let a = 0;
  let b = outOffset;
  for (;;) {
    for (let i = 0; i < inner; i++) to[b + i * innerOut] = from[a + i * innerStride]!;
    let axis = rank - 2;
    for (; axis >= 0; axis--) {
      a += strides[axis]!;
      b += outStrides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      a -= shape[axis]! * strides[axis]!;
      b -= shape[axis]! * outStrides[axis]!;
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}

/** Reverses the bytes of every element, in place. */
export function swapBytes(bytes: Uint8Array, elementBytes: number): Uint8Array {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (elementBytes === 2) buffer.swap16();
  else if (elementBytes === 4) buffer.swap32();
  else if (elementBytes === 8) buffer.swap64();
  return bytes;
}
