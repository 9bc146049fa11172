/**
 * The header of a NumPy .npy file (format 1.0, 2.0 and 3.0, see numpy/lib/format.py): magic, version, length, and a Python
 * dict literal that a parser for exactly this much Python reads. Nothing is evaluated.
 */
import { Ptq4vmError } from '../errors.js';
import { type ByteSource, formatError } from './files.js';

export type NpyDType = 'f64' | 'f32' | 'f16' | 'i64' | 'i32' | 'i16' | 'i8' | 'u64' | 'u32' | 'u16' | 'u8' | 'bool';

export const NPY_BYTES: Readonly<Record<NpyDType, 1 | 2 | 4 | 8>> = {
  f64: 8, f32: 4, f16: 2, i64: 8, i32: 4, i16: 2, i8: 1, u64: 8, u32: 4, u16: 2, u8: 1, bool: 1,
};

export interface NpyHeader {
  readonly dtype: NpyDType;
  readonly bigEndian: boolean;
  readonly fortranOrder: boolean;
  readonly shape: readonly number[];
  /** Where the elements begin, and how many bytes they take. */
  readonly dataBegin: number;
  readonly dataBytes: number;
}

const MAX_HEADER_BYTES = 1 << 20;
const MAX_DIMENSIONS = 64;

const DTYPES: ReadonlyMap<string, NpyDType> = new Map<string, NpyDType>([
  ['f8', 'f64'], ['f4', 'f32'], ['f2', 'f16'],
  ['i8', 'i64'], ['i4', 'i32'], ['i2', 'i16'], ['i1', 'i8'],
  ['u8', 'u64'], ['u4', 'u32'], ['u2', 'u16'], ['u1', 'u8'],
  ['b1', 'bool'], ['?', 'bool'],
]);

const KINDS: Readonly<Record<string, string>> = {
  O: 'Python objects (which only running code could load)', c: 'complex numbers', U: 'text', S: 'byte strings', a: 'byte strings',
  M: 'dates', m: 'time spans', V: 'raw bytes (bfloat16 arrays are saved so: convert to float32 first)', f: 'floats of a rare width',
};

/** Reads and checks the header; the body must be exactly as long as it says. Throws ERR_FILE_FORMAT, ERR_UNSUPPORTED. */
export async function readNpyHeader(source: ByteSource): Promise<NpyHeader> {
  const { path, size } = source;
  const head = await source.read(0, Math.min(12, size), 'the header');
  if (Buffer.from(head.subarray(0, 6)).toString('latin1') !== '\x93NUMPY') {
    throw formatError(path, size === 0 ? 'not a .npy file: it is empty' : 'not a .npy file: it does not begin with \\x93NUMPY');
  }
  const major = head[6] ?? 0;
  if (major < 1 || major > 3 || head[7] !== 0) throw formatError(path, `.npy version ${major}.${head[7] ?? 0} is unknown`);
  const lengthBytes = major === 1 ? 2 : 4;
  const headerBegin = 8 + lengthBytes;
  if (size < headerBegin) throw formatError(path, 'truncated: the .npy header has no length');
  const view = Buffer.from(head.buffer, head.byteOffset, head.length);
  const length = major === 1 ? view.readUInt16LE(8) : view.readUInt32LE(8);
  if (length > MAX_HEADER_BYTES) throw formatError(path, `declares a .npy header of ${length} bytes`);
  const text = Buffer.from(await source.read(headerBegin, length, 'the header')).toString(major === 3 ? 'utf8' : 'latin1');
  const { dtype, bigEndian, fortranOrder, shape } = parseNpyDict(path, text);

  let count = 1;
  for (const d of shape) count *= d;
  const dataBegin = headerBegin + length;
  const dataBytes = count * NPY_BYTES[dtype];
  // A zero hides an overflow of the product: check without zeros.
  if (!Number.isSafeInteger(shape.reduce((n, d) => n * (d || 1), 8))) throw formatError(path, 'declares an impossible shape');
  if (size - dataBegin !== dataBytes) {
    const problem = size - dataBegin < dataBytes ? 'truncated' : 'too long';
    const needs = `its shape (${shape.join(', ')}) needs ${dataBytes} bytes of data`;
    throw formatError(path, `${problem}: ${needs}, but ${size - dataBegin} follow the header`);
  }
  return { dtype, bigEndian, fortranOrder, shape, dataBegin, dataBytes };
}

function parseNpyDict(path: string, text: string): Pick<NpyHeader, 'dtype' | 'bigEndian' | 'fortranOrder' | 'shape'> {
  let value: PyLiteral;
  try {
    value = new LiteralParser(text).parse();
  } catch (cause) {
    throw formatError(path, `its .npy header is malformed: ${(cause as Error).message}`, cause);
  }
  if (!(value instanceof Map)) throw formatError(path, 'its .npy header is no dict');
  for (const key of value.keys()) {
    if (!['descr', 'fortran_order', 'shape'].includes(key)) {
      throw formatError(path, `its .npy header has an unknown key '${key.slice(0, 40)}'`);
    }
  }
  const descr = value.get('descr');
  const fortranOrder = value.get('fortran_order');
  const shape = value.get('shape');
  if (Array.isArray(descr)) throw new Ptq4vmError('ERR_UNSUPPORTED', `${path}: it holds records with named fields, not numbers`);
  if (typeof descr !== 'string') throw formatError(path, "its .npy header has no 'descr'");
  if (typeof fortranOrder !== 'boolean') throw formatError(path, "its .npy header has no 'fortran_order'");
  if (!Array.isArray(shape) || shape.length > MAX_DIMENSIONS || !shape.every((d) => Number.isSafeInteger(d) && (d as number) >= 0)) {
    throw formatError(path, "its .npy header has no valid 'shape'");
  }
  const match = /^([<>|=]?)([a-zA-Z?])(\d*)(?:\[.*\])?$/.exec(descr);
  if (match === null) throw formatError(path, `its .npy header has an unreadable type '${descr.slice(0, 40)}'`);
  const [, order, kind, width] = match as unknown as [string, string, string, string];
  const dtype = DTYPES.get(kind + width);
  if (dtype === undefined) {
    const what = KINDS[kind];
    if (what === undefined) throw formatError(path, `its .npy header has an unknown type '${descr.slice(0, 40)}'`);
    throw new Ptq4vmError('ERR_UNSUPPORTED', `${path}: it holds ${what} ('${descr.slice(0, 40)}'), not plain numbers`);
  }
  return { dtype, bigEndian: order === '>', fortranOrder, shape: shape as number[] };
}

type PyLiteral = null | boolean | number | string | PyLiteral[] | Map<string, PyLiteral>;

/** Python literals: dict with string keys, tuple, list, string, non-negative integer, True, False, None. Tuples become arrays. */
class LiteralParser {
  #at = 0;

  constructor(private readonly text: string) {}

  parse(): PyLiteral {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.text.length) this.#fail('unexpected text after the dict');
    return value;
  }

  #value(depth: number): PyLiteral {
    if (depth > 16) this.#fail('nested too deep');
    this.#space();
    const c = this.text[this.#at];
    if (c === '{') return this.#dict(depth);
    if (c === '(') return this.#sequence(')', depth);
    if (c === '[') return this.#sequence(']', depth);
    if (c === "'" || c === '"') return this.#string();
    const word = /^(?:True|False|None|\d{1,16}L?)(?![\w.])/.exec(this.text.slice(this.#at, this.#at + 24))?.[0];
    if (word === undefined) return this.#fail(c === undefined ? 'unexpected end' : 'unexpected character');
    this.#at += word.length;
    if (word === 'None') return null;
    if (word === 'True' || word === 'False') return word === 'True';
    // Python 2 wrote long integers with an L.
    return Number(word.replace('L', ''));
  }

  #dict(depth: number): Map<string, PyLiteral> {
    const dict = new Map<string, PyLiteral>();
    this.#at++;
    for (;;) {
      if (this.#skip('}')) return dict;
      const key = this.#value(depth + 1);
      if (typeof key !== 'string') return this.#fail('a key that is no string');
      if (dict.has(key)) return this.#fail(`duplicate key '${key.slice(0, 40)}'`);
      if (!this.#skip(':')) return this.#fail("expected ':'");
      dict.set(key, this.#value(depth + 1));
      if (!this.#skip(',') && this.#peek() !== '}') return this.#fail("expected ',' or '}'");
    }
  }

  /** `(3)` is the number 3 in Python; no writer of .npy means that, and it is refused as a shape anyway. */
  #sequence(close: string, depth: number): PyLiteral[] | PyLiteral {
    const items: PyLiteral[] = [];
    let commas = 0;
    this.#at++;
    for (;;) {
      if (this.#skip(close)) return close === ')' && items.length === 1 && commas === 0 ? items[0]! : items;
      items.push(this.#value(depth + 1));
      if (this.#skip(',')) commas++;
      else if (this.#peek() !== close) return this.#fail(`expected ',' or '${close}'`);
    }
  }

  #string(): string {
    const quote = this.text[this.#at]!;
    const end = this.text.indexOf(quote, this.#at + 1);
    if (end < 0) return this.#fail('string without end');
    const text = this.text.slice(this.#at + 1, end);
    if (/[\\\n]/.test(text)) return this.#fail('string with escapes');
    this.#at = end + 1;
    return text;
  }

  #peek(): string | undefined {
    this.#space();
    return this.text[this.#at];
  }

  #skip(c: string): boolean {
    if (this.#peek() !== c) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    while (this.#at < this.text.length && ' \t\r\n'.includes(this.text[this.#at]!)) this.#at++;
  }

  #fail(problem: string): never {
    throw new Error(`${problem} at character ${this.#at}`);
  }
}
