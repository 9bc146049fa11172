/**
 * The bytes of a pickle: positions, bounds, the arguments of opcodes in binary and in the text of protocol 0, and the budget
 * that keeps what is built in proportion to what was read.
 */
import { Ptq4vmError } from '../errors.js';

/** The pickle ends before its STOP: more bytes may help. */
export class PickleTruncatedError extends Ptq4vmError {}

/** Longest integer in bytes, and in decimal digits (CPython's own limit): conversion of long ones is quadratic. */
const MAX_LONG_BYTES = 2048;
const MAX_LONG_DIGITS = 4300;
/** Budget in rough bytes of memory: generous for real files, whose pickles grow about tenfold. */
const BUDGET_BASE = 1 << 20;
const BUDGET_PER_BYTE = 192;
const BUDGET_MAX = 2 ** 29;

export class PickleBytes {
  readonly #bytes: Buffer;
  readonly #label: string;
  readonly #base: number;
  #at = 0;
  /** Offset of the opcode being executed, for messages. */
  #opAt = 0;
  #budget: number;

  /** `label` begins every message; `base` is the offset of `bytes[0]` in what it names. */
  constructor(bytes: Uint8Array, label: string, base: number) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#label = label;
    this.#base = base;
    this.#budget = Math.min(BUDGET_MAX, BUDGET_BASE + BUDGET_PER_BYTE * bytes.length);
  }

  get position(): number {
    return this.#at;
  }

  /** Throws ERR_FILE_FORMAT: `<label>: <problem>` with the offset of the opcode. */
  fail(problem: string): never {
    throw new Ptq4vmError('ERR_FILE_FORMAT', `${this.#label}: ${problem} (at byte ${this.#base + this.#opAt} of the pickle)`);
  }

  /** Takes `bytes` of memory, or elements of copying, from the budget. */
  charge(bytes: number): void {
    this.#budget -= bytes;
    if (this.#budget < 0) this.fail('it would build far more data than its length warrants');
  }

  opcode(): number {
    this.#opAt = this.#at;
    return this.u8();
  }

  truncated(): never {
    throw new PickleTruncatedError(
      'ERR_FILE_FORMAT',
      `${this.#label}: truncated: the pickle breaks off at byte ${this.#base + this.#bytes.length}, ` +
        `inside what begins at byte ${this.#base + this.#opAt}`,
    );
  }

  /** Moves past `length` bytes and returns where they begin. */
  take(length: number): number {
    const begin = this.#at;
    if (!(length <= this.#bytes.length - begin)) this.truncated();
    this.#at = begin + length;
    return begin;
  }

  u8(): number {
    return this.#bytes[this.take(1)]!;
  }

  u16(): number {
    return this.#bytes.readUInt16LE(this.take(2));
  }

  i32(): number {
    return this.#bytes.readInt32LE(this.take(4));
  }

  f64(): number {
    return this.#bytes.readDoubleBE(this.take(8));
  }

  u32(): number {
    return this.#bytes.readUInt32LE(this.take(4));
  }

  /** As a number: lengths beyond 2^53 lose digits, and are beyond the end of any pickle anyway. */
  u64(): number {
    return Number(this.#bytes.readBigUInt64LE(this.take(8)));
  }

  i32Length(): number {
    const length = this.i32();
    if (length < 0) this.fail(`it declares a length of ${length}`);
    return length;
  }

  /** Text up to a newline, as protocol 0 writes arguments. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.truncated();
    const text = this.#bytes.toString('utf8', this.#at, end);
    this.charge(2 * text.length);
    this.#at = end + 1;
    return text;
  }

  string(length: number): string {
    const begin = this.take(length);
    this.charge(2 * length);
    return this.#bytes.toString('utf8', begin, begin + length);
  }

  binary(length: number): Uint8Array {
    const begin = this.take(length);
    this.charge(length + 64);
    return new Uint8Array(this.#bytes.subarray(begin, begin + length));
  }

  decimal(): number {
    const text = this.line();
    if (!/^\d{1,15}$/.test(text)) this.fail('it has a memo index that is no number');
    return Number(text);
  }

  textInt(): unknown {
    const text = this.line();
    if (text === '00') return false;
    if (text === '01') return true;
    const digits = text.replace(/L$/, '').trim();
    if (digits.length > MAX_LONG_DIGITS || !/^[+-]?\d+$/.test(digits)) this.fail('it has an integer that is no number, or far too long');
    return narrow(BigInt(digits.replace(/^\+/, '')));
  }

  textFloat(): number {
    const text = this.line().trim();
    const special = /^([+-]?)(inf|nan)$/i.exec(text);
    if (special) return special[2]!.toLowerCase() === 'nan' ? Number.NaN : special[1] === '-' ? -Infinity : Infinity;
    if (text.length > 64 || !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text)) this.fail('it has a float that is no number');
    return Number(text);
  }

  /** LONG1 and LONG4: little-endian two's complement; no bytes at all are zero. */
  long(length: number): number | bigint {
    if (length < 0 || length > MAX_LONG_BYTES) this.fail(`it has an integer of ${length} bytes`);
    const begin = this.take(length);
    if (length === 0) return 0;
    const hex = Buffer.from(this.#bytes.subarray(begin, begin + length)).reverse().toString('hex');
    return narrow(BigInt.asIntN(8 * length, BigInt(`0x${hex}`)));
  }

  /** STRING: a Python 2 literal in quotes with backslash escapes. */
  quoted(): string {
    const text = this.line();
    const quote = text[0];
    if (text.length < 2 || (quote !== "'" && quote !== '"') || text.at(-1) !== quote) this.fail('it has a string without quotes');
    return text.slice(1, -1).replace(/\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)/g, (_, e: string) => {
      if (e.length > 1 && e[0] === 'x') return String.fromCharCode(Number.parseInt(e.slice(1), 16));
      if (/^[0-7]/.test(e)) return String.fromCharCode(Number.parseInt(e, 8) & 0xff);
      return ({ n: '\n', t: '\t', r: '\r', '\\': '\\', "'": "'", '"': '"' } as Record<string, string>)[e] ?? `\\${e}`;
    });
  }

  /** UNICODE: raw-unicode-escape, that is Latin-1 with \uXXXX and \UXXXXXXXX. */
  rawUnicode(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.truncated();
    const text = this.#bytes.toString('latin1', this.#at, end);
    this.charge(2 * text.length);
    this.#at = end + 1;
    return text.replace(/\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})/g, (all, short?: string, long?: string) => {
      const point = Number.parseInt(short ?? long!, 16);
      return point <= 0x10ffff ? String.fromCodePoint(point) : all;
    });
  }
}

/** An int of Python: a number where that is exact. */
function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
