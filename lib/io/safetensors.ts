/**
 * safetensors: 8 bytes little-endian header length, a JSON header `{ name: { dtype, shape, data_offsets }, __metadata__ }`,
 * then the tensors' bytes, which fill the rest of the file without holes or overlap. The checks are those of the reference
 * implementation (huggingface/safetensors), which this follows also in writing: largest element type first, then by name,
 * so that every tensor is aligned.
 */
import { Ptq4vmError, rangeError, throwIfAborted, typeError } from '../errors.js';
import { type DType, DTYPE_BYTES, elementCount, showShape } from '../tensor.js';
import { CheckpointBase, type CheckpointFile } from './checkpoint-file.js';
import { type ByteSource, formatError, openSource, writeFileAtomically } from './files.js';
import { JsonError, type JsonValue, parseStrictJson } from './json.js';

const MAX_HEADER_BYTES = 100_000_000;

const NAMES: Readonly<Record<DType, string>> = {
  f64: 'F64', f32: 'F32', f16: 'F16', bf16: 'BF16', i64: 'I64', i32: 'I32', i16: 'I16', i8: 'I8', u8: 'U8', bool: 'BOOL',
};
const DTYPES: ReadonlyMap<string, DType> = new Map(Object.entries(NAMES).map(([dtype, name]) => [name, dtype as DType]));
/** In the format, but of no use here. */
const OTHER_DTYPES = new Set([
  'U16', 'U32', 'U64', 'C64', 'F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F8_E4M3FNUZ', 'F8_E5M2FNUZ', 'F4', 'F6_E2M3', 'F6_E3M2',
]);

interface SafetensorsEntry {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** From the beginning of the file. */
  readonly begin: number;
  readonly bytes: number;
}

/** Opens a safetensors file. Throws ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT, ERR_UNSUPPORTED (element type). */
export async function openSafetensors(path: string): Promise<CheckpointFile> {
  const source = await openSource(path);
  try {
    return await openSafetensorsSource(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

export async function openSafetensorsSource(source: ByteSource): Promise<CheckpointFile> {
  const { path, size } = source;
  if (size < 8) throw formatError(path, `truncated: ${size} bytes are too few for a safetensors file`);
  const head = await source.read(0, 8, 'the header length');
  const length = Number(Buffer.from(head.buffer, head.byteOffset, 8).readBigUInt64LE());
  if (length > MAX_HEADER_BYTES) throw formatError(path, `declares a header of ${length} bytes; at most ${MAX_HEADER_BYTES} are allowed`);
  if (8 + length > size) throw formatError(path, `truncated: declares a header of ${length} bytes, but the file has ${size} bytes`);
  const { entries, metadata } = parseHeader(path, await source.read(8, length, 'the header'), 8 + length, size);
  return new Safetensors(source, entries, metadata);
}

class Safetensors extends CheckpointBase<SafetensorsEntry> {
  readonly format = 'safetensors';

  protected readEntry(name: string, entry: SafetensorsEntry): Promise<Uint8Array> {
    return this.source.read(entry.begin, entry.bytes, `tensor '${name}'`);
  }
}

function parseHeader(
  path: string,
  bytes: Uint8Array,
  dataBegin: number,
  fileSize: number,
): { entries: Map<string, SafetensorsEntry>; metadata: Record<string, string> } {
  let header: JsonValue;
  try {
    header = parseStrictJson(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    const problem = cause instanceof JsonError ? cause.message : 'not UTF-8';
    throw formatError(path, `its header is no valid JSON: ${problem}`, cause);
  }
  if (!(header instanceof Map)) throw formatError(path, 'its header is no JSON object');
  const entries = new Map<string, SafetensorsEntry>();
  let metadata: Record<string, string> = Object.create(null);
  for (const [name, value] of header) {
    if (name === '__metadata__') metadata = parseMetadata(path, value);
    else entries.set(name, parseEntry(path, name, value, dataBegin));
  }
  checkLayout(path, entries, dataBegin, fileSize);
  return { entries, metadata };
}

function parseMetadata(path: string, value: JsonValue): Record<string, string> {
  const metadata: Record<string, string> = Object.create(null);
  if (!(value instanceof Map)) throw formatError(path, 'its __metadata__ is no JSON object');
  for (const [key, text] of value) {
    if (typeof text !== 'string') throw formatError(path, `its __metadata__ entry '${key.slice(0, 100)}' is no string`);
    metadata[key] = text;
  }
  return metadata;
}

function parseEntry(path: string, name: string, value: JsonValue, dataBegin: number): SafetensorsEntry {
  const bad = (problem: string): Ptq4vmError => formatError(path, `tensor '${name.slice(0, 120)}' ${problem}`);
  if (!(value instanceof Map)) throw bad('has no description');
  const dtypeName = value.get('dtype');
  const shape = value.get('shape');
  const offsets = value.get('data_offsets');
  if (typeof dtypeName !== 'string') throw bad('has no dtype');
  const dtype = DTYPES.get(dtypeName);
  if (dtype === undefined) {
    if (!OTHER_DTYPES.has(dtypeName)) throw bad(`has unknown dtype '${dtypeName.slice(0, 40)}'`);
    throw new Ptq4vmError('ERR_UNSUPPORTED', `${path}: tensor '${name.slice(0, 120)}' has type ${dtypeName}, which no model here uses`);
  }
  if (!isSizes(shape)) throw bad('has a shape that is no list of sizes');
  if (!isSizes(offsets) || offsets.length !== 2) throw bad('has data_offsets that are no pair of positions');
  const [begin, end] = offsets as [number, number];
  if (begin > end) throw bad(`has data_offsets in the wrong order (${begin}, ${end})`);
  const bytes = byteCount(shape, dtype);
  if (bytes === null) throw bad(`has an impossible size (${showShape(shape.slice(0, 16))})`);
  if (bytes !== end - begin) throw bad(`has ${end - begin} bytes of data, but ${showShape(shape)} ${dtypeName} needs ${bytes}`);
  return { dtype, shape, begin: dataBegin + begin, bytes };
}

/** Bytes of the tensor; null when the product leaves the exact integers at any step, so that a zero cannot hide an overflow. */
function byteCount(shape: readonly number[], dtype: DType): number | null {
  let bytes = DTYPE_BYTES[dtype];
  for (const d of shape) {
    bytes *= d;
    if (!Number.isSafeInteger(bytes)) return null;
  }
  return bytes;
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((d) => typeof d === 'number' && Number.isSafeInteger(d) && d >= 0);
}

/** The tensors in file order must follow each other exactly and end where the file ends. */
function checkLayout(path: string, entries: ReadonlyMap<string, SafetensorsEntry>, dataBegin: number, fileSize: number): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.bytes - b.bytes);
  let end = dataBegin;
  for (const [name, entry] of sorted) {
    const shown = `tensor '${name.slice(0, 120)}'`;
    if (entry.begin < end) throw formatError(path, `${shown} overlaps the one before it`);
    if (entry.begin > end) throw formatError(path, `a hole of ${entry.begin - end} bytes lies before ${shown}`);
    end = entry.begin + entry.bytes;
    if (end > fileSize) throw formatError(path, `truncated: ${shown} ends at byte ${end}, but the file has ${fileSize} bytes`);
  }
  if (end < fileSize) throw formatError(path, `${fileSize - end} bytes lie behind the last tensor`);
}

export interface TensorToWrite {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Little-endian bytes in C order, or a function that gives them when their turn comes. */
  readonly data: Uint8Array | (() => Uint8Array | Promise<Uint8Array>);
}

export interface WriteSafetensorsOptions {
  readonly signal?: AbortSignal;
  /** Called after each tensor. */
  readonly onTensor?: (name: string, done: number, total: number) => void;
}

/**
 * Writes a safetensors file, one tensor in memory at a time. The same tensors and metadata give the same bytes, in whatever
 * order they come. The file appears whole or not at all (see `writeFileAtomically`).
 *
 * Throws TypeError/RangeError for a bad tensor, ERR_FILE_WRITE for a disk that does not take it, the signal's reason on abort.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<TensorToWrite>,
  metadata: Readonly<Record<string, string>> = {},
  options: WriteSafetensorsOptions = {},
): Promise<void> {
  const { signal, onTensor } = options;
  throwIfAborted(signal);
  const sorted = checkTensors(tensors);
  const header = makeHeader(sorted, metadata);
  await writeFileAtomically(
    path,
    async (write) => {
      await write(header);
      let done = 0;
      for (const tensor of sorted) {
        const data = typeof tensor.data === 'function' ? await tensor.data() : tensor.data;
        checkData(tensor, data);
        await write(data);
        onTensor?.(tensor.name, ++done, sorted.length);
      }
    },
    { signal },
  );
}

function checkTensors(tensors: Iterable<TensorToWrite>): TensorToWrite[] {
  const seen = new Set<string>();
  const list = [...tensors];
  for (const tensor of list) {
    const { name, dtype, shape, data } = tensor;
    if (typeof name !== 'string' || name === '' || name === '__metadata__') throw typeError('a tensor name', 'name', name);
    if (seen.has(name)) throw rangeError('tensor names that differ', 'tensors', name);
    seen.add(name);
    if (!Object.hasOwn(NAMES, dtype)) throw rangeError(`one of ${Object.keys(NAMES).join(', ')}`, `dtype of ${name}`, dtype);
    if (!isSizes(shape)) throw typeError('an array of sizes', `shape of ${name}`, shape);
    if (byteCount(shape, dtype) === null) throw rangeError('a size below 2^53 bytes', `shape of ${name}`, shape);
    if (typeof data !== 'function') checkData(tensor, data);
  }
  return list.sort((a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1));
}

function checkData(tensor: TensorToWrite, data: unknown): asserts data is Uint8Array {
  if (!(data instanceof Uint8Array)) throw typeError('a Uint8Array', `data of ${tensor.name}`, data);
  const bytes = elementCount(tensor.shape) * DTYPE_BYTES[tensor.dtype];
  if (data.length !== bytes) {
    throw rangeError(`${bytes} bytes (${showShape(tensor.shape)} ${tensor.dtype})`, `data of ${tensor.name}`, data);
  }
}

function makeHeader(tensors: readonly TensorToWrite[], metadata: Readonly<Record<string, string>>): Uint8Array {
  const parts: string[] = [];
  const keys = Object.keys(metadata).sort();
  for (const key of keys) if (typeof metadata[key] !== 'string') throw typeError('a string', `metadata.${key}`, metadata[key]);
  if (keys.length > 0) {
    parts.push(`"__metadata__":{${keys.map((key) => `${JSON.stringify(key)}:${JSON.stringify(metadata[key])}`).join(',')}}`);
  }
  let offset = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = offset + elementCount(shape) * DTYPE_BYTES[dtype];
    parts.push(`${JSON.stringify(name)}:{"dtype":"${NAMES[dtype]}","shape":[${shape.join(',')}],"data_offsets":[${offset},${end}]}`);
    offset = end;
  }
  const json = Buffer.from(`{${parts.join(',')}}`, 'utf8');
  const length = Math.ceil(json.length / 8) * 8;
  if (length > MAX_HEADER_BYTES) throw rangeError(`at most ${MAX_HEADER_BYTES} bytes of names and metadata`, 'the header', json);
  const header = Buffer.alloc(8 + length, ' ');
  header.writeBigUInt64LE(BigInt(length), 0);
  json.copy(header, 8);
  return header;
}
