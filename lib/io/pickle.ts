/**
 * A pickle machine that can only build tensors and plain data.
 *
 * Python's pickle is a program for a stack machine; loading one in Python runs whatever it names. This machine knows the
 * opcodes of protocols 0 to 5, but naming a class yields a name (`PyGlobal`), and "calling" one (REDUCE, NEWOBJ, OBJ, INST,
 * BUILD) goes through the short table of pickle-classes.ts, which builds lists, dicts and tensor records; every other class
 * becomes an inert record. The opcodes and their order of arguments are those of CPython's Lib/pickletools.py.
 *
 * Memory and time are bounded: every value made and every element copied is charged to a budget proportional to the length
 * of the pickle. The machine never recurses, so deep nesting costs no stack; cycles are data like any other.
 */
import { PickleBytes } from './pickle-bytes.js';
import { instantiate, setState } from './pickle-classes.js';
import { describeValue, PyDict, PyGlobal, PyObject, PySet, type UnpickleContext } from './pickle-values.js';

export interface UnpickleOptions {
  /** Prefix of messages: the file, and which pickle in it. */
  readonly label: string;
  /** Offset of `bytes[0]` in what `label` names, added to the offsets in messages. */
  readonly baseOffset?: number;
  /** What a persistent id stands for. Without it, persistent ids are errors. */
  readonly persistentLoad?: (id: unknown) => unknown;
}

const MAX_PROTOCOL = 5;

/** Runs one pickle. `end` is the offset after its STOP. Throws ERR_FILE_FORMAT with the byte offset of the failure. */
export function unpickle(bytes: Uint8Array, options: UnpickleOptions): { value: unknown; end: number } {
  return new Unpickler(bytes, options).run();
}

class Unpickler implements UnpickleContext {
  readonly #in: PickleBytes;
  readonly #persistentLoad: ((id: unknown) => unknown) | undefined;
  readonly #stack: unknown[] = [];
  /** Stack heights at the MARKs; what lies below the last one is out of reach. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(bytes: Uint8Array, options: UnpickleOptions) {
    this.#in = new PickleBytes(bytes, options.label, options.baseOffset ?? 0);
    this.#persistentLoad = options.persistentLoad;
  }

  fail(problem: string): never {
    this.#in.fail(problem);
  }

  charge(bytes: number): void {
    this.#in.charge(bytes);
  }

  run(): { value: unknown; end: number } {
    for (;;) {
      const op = this.#in.opcode();
      if (op === 0x2e /* STOP */) return { value: this.#pop(), end: this.#in.position };
      this.#step(op);
    }
  }

  #step(op: number): void {
    switch (op) {
      // Stack and memo
      case 0x28: return void this.#marks.push(this.#stack.length); // MARK (
      case 0x30: return this.#popTop(); // POP 0
      case 0x31: return void this.#popMark(); // POP_MARK 1
      case 0x32: return this.#push(this.#top()); // DUP 2
      case 0x67: return this.#get(this.#in.decimal()); // GET g
      case 0x68: return this.#get(this.#in.u8()); // BINGET h
      case 0x6a: return this.#get(this.#in.u32()); // LONG_BINGET j
      case 0x70: return this.#put(this.#in.decimal()); // PUT p
      case 0x71: return this.#put(this.#in.u8()); // BINPUT q
      case 0x72: return this.#put(this.#in.u32()); // LONG_BINPUT r
      case 0x94: return this.#put(this.#memo.size); // MEMOIZE
      // Protocol and framing: nothing to do, frames only help buffered readers
      case 0x80: return this.#proto();
      case 0x95: return void this.#in.take(8); // FRAME
      // Scalars
      case 0x4e: return this.#push(null); // NONE N
      case 0x88: return this.#push(true); // NEWTRUE
      case 0x89: return this.#push(false); // NEWFALSE
      case 0x49: return this.#push(this.#in.textInt()); // INT I
      case 0x4c: return this.#push(this.#in.textInt()); // LONG L
      case 0x4a: return this.#push(this.#in.i32()); // BININT J
      case 0x4b: return this.#push(this.#in.u8()); // BININT1 K
      case 0x4d: return this.#push(this.#in.u16()); // BININT2 M
      case 0x8a: return this.#push(this.#in.long(this.#in.u8())); // LONG1
      case 0x8b: return this.#push(this.#in.long(this.#in.i32())); // LONG4
      case 0x46: return this.#push(this.#in.textFloat()); // FLOAT F
      case 0x47: return this.#push(this.#in.f64()); // BINFLOAT G
      // Strings and bytes
      case 0x53: return this.#push(this.#in.quoted()); // STRING S
      case 0x54: return this.#push(this.#in.string(this.#in.i32Length())); // BINSTRING T
      case 0x55: return this.#push(this.#in.string(this.#in.u8())); // SHORT_BINSTRING U
      case 0x56: return this.#push(this.#in.rawUnicode()); // UNICODE V
      case 0x58: return this.#push(this.#in.string(this.#in.u32())); // BINUNICODE X
      case 0x8c: return this.#push(this.#in.string(this.#in.u8())); // SHORT_BINUNICODE
      case 0x8d: return this.#push(this.#in.string(this.#in.u64())); // BINUNICODE8
      case 0x42: return this.#push(this.#in.binary(this.#in.u32())); // BINBYTES B
      case 0x43: return this.#push(this.#in.binary(this.#in.u8())); // SHORT_BINBYTES C
      case 0x8e: return this.#push(this.#in.binary(this.#in.u64())); // BINBYTES8
      case 0x96: return this.#push(this.#in.binary(this.#in.u64())); // BYTEARRAY8
      // Containers
      case 0x5d: return this.#push(this.#made([])); // EMPTY_LIST ]
      case 0x29: return this.#push(this.#made([])); // EMPTY_TUPLE )
      case 0x7d: return this.#push(this.#made(new PyDict())); // EMPTY_DICT }
      case 0x8f: return this.#push(this.#made(new PySet())); // EMPTY_SET
      case 0x6c: return this.#push(this.#made(this.#popMark())); // LIST l
      case 0x74: return this.#push(this.#made(this.#popMark())); // TUPLE t
      case 0x85: return this.#push(this.#made(this.#popCount(1))); // TUPLE1
      case 0x86: return this.#push(this.#made(this.#popCount(2))); // TUPLE2
      case 0x87: return this.#push(this.#made(this.#popCount(3))); // TUPLE3
      case 0x64: return this.#dictFromMark(); // DICT d
      case 0x91: return this.#frozenSet(); // FROZENSET
      case 0x61: return this.#append(this.#popCount(1)); // APPEND a
      case 0x65: return this.#append(this.#popMark()); // APPENDS e
      case 0x73: return this.#setItems(this.#popCount(2)); // SETITEM s
      case 0x75: return this.#setItems(this.#popMark()); // SETITEMS u
      case 0x90: return this.#addItems(this.#popMark()); // ADDITEMS
      // Classes, which are names here
      case 0x63: return this.#push(this.#global(this.#in.line(), this.#in.line())); // GLOBAL c
      case 0x93: return this.#stackGlobal(); // STACK_GLOBAL
      case 0x52: return this.#reduce(); // REDUCE R
      case 0x81: return this.#newObject(false); // NEWOBJ
      case 0x92: return this.#newObject(true); // NEWOBJ_EX
      case 0x69: return this.#inst(); // INST i
      case 0x6f: return this.#obj(); // OBJ o
      case 0x62: return this.#build(); // BUILD b
      case 0x50: return this.#persistent(this.#in.line()); // PERSID P
      case 0x51: return this.#persistent(this.#pop()); // BINPERSID Q
      case 0x82: case 0x83: case 0x84: return this.fail('it uses the extension registry (EXT), which no checkpoint needs');
      case 0x97: case 0x98: return this.fail('it refers to out-of-band buffers, which are not in the file');
      default: return this.fail(`it has an unknown opcode 0x${op.toString(16).padStart(2, '0')}; damaged, or not a pickle`);
    }
  }

  #proto(): void {
    const version = this.#in.u8();
    if (version > MAX_PROTOCOL) this.fail(`it declares pickle protocol ${version}; 5 is the highest known`);
  }

  // -- stack

  #push(value: unknown): void {
    this.charge(8);
    this.#stack.push(value);
  }

  /** Charges a container that was just made. */
  #made<T>(value: T): T {
    this.charge(Array.isArray(value) ? 40 + 8 * value.length : 160);
    return value;
  }

  get #fence(): number {
    return this.#marks.at(-1) ?? 0;
  }

  #top(): unknown {
    if (this.#stack.length <= this.#fence) this.fail('its stack runs empty');
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    if (this.#stack.length <= this.#fence) this.fail('its stack runs empty');
    return this.#stack.pop();
  }

  /** POP discards a MARK when that is what lies on top. */
  #popTop(): void {
    if (this.#marks.length > 0 && this.#stack.length === this.#fence) this.#marks.pop();
    else this.#pop();
  }

  #popCount(count: number): unknown[] {
    if (this.#stack.length - count < this.#fence) this.fail('its stack runs empty');
    return this.#stack.splice(this.#stack.length - count, count);
  }

  #popMark(): unknown[] {
    const height = this.#marks.pop();
    if (height === undefined) this.fail('it closes a group that it never opened');
    return this.#stack.splice(height, this.#stack.length - height);
  }

  #get(index: number): void {
    if (!this.#memo.has(index)) this.fail(`it refers to memo entry ${index}, which it never stored`);
    this.#push(this.#memo.get(index));
  }

  #put(index: number): void {
    this.charge(32);
    this.#memo.set(index, this.#top());
  }

  // -- containers

  #append(values: unknown[]): void {
    const target = this.#top();
    this.charge(8 * values.length);
    let list: unknown[];
    if (Array.isArray(target)) list = target;
    else if (target instanceof PyObject) list = target.list ??= [];
    else return this.fail(`it appends to ${describeValue(target)}`);
    for (const value of values) list.push(value);
  }

  #setItems(pairs: unknown[]): void {
    const target = this.#top();
    if (pairs.length % 2 !== 0) this.fail('it sets a key without a value');
    this.charge(24 * pairs.length);
    let map: Map<unknown, unknown>;
    if (target instanceof PyDict) map = target.map;
    else if (target instanceof PyObject) map = target.items ??= new Map();
    else return this.fail(`it sets an item of ${describeValue(target)}`);
    for (let i = 0; i < pairs.length; i += 2) map.set(pairs[i], pairs[i + 1]);
  }

  #dictFromMark(): void {
    const pairs = this.#popMark();
    this.#push(this.#made(new PyDict()));
    this.#setItems(pairs);
  }

  #addItems(values: unknown[]): void {
    const target = this.#top();
    if (!(target instanceof PySet)) return this.fail(`it adds to ${describeValue(target)} as to a set`);
    this.charge(24 * values.length);
    for (const value of values) target.items.add(value);
  }

  #frozenSet(): void {
    const values = this.#popMark();
    this.#push(this.#made(new PySet()));
    this.#addItems(values);
  }

  // -- classes

  #global(module: string, name: string): PyGlobal {
    this.charge(64);
    return new PyGlobal(module, name);
  }

  #stackGlobal(): void {
    const [module, name] = this.#popCount(2);
    if (typeof module !== 'string' || typeof name !== 'string') return this.fail('it names a class by something other than two strings');
    this.#push(this.#global(module, name));
  }

  #reduce(): void {
    const [callable, args] = this.#popCount(2);
    if (!Array.isArray(args)) return this.fail(`it calls ${describeValue(callable)} with ${describeValue(args)} for arguments`);
    this.#push(this.#made(instantiate(callable, args, this)));
  }

  #newObject(withKeywords: boolean): void {
    const keywords = withKeywords ? this.#pop() : undefined;
    const [cls, args] = this.#popCount(2);
    if (!(cls instanceof PyGlobal) || !Array.isArray(args)) return this.fail(`it makes an object of ${describeValue(cls)}`);
    const object = this.#made(instantiate(cls, args, this));
    if (object instanceof PyObject && keywords instanceof PyDict && keywords.map.size > 0) object.state = keywords;
    this.#push(object);
  }

  #inst(): void {
    const cls = this.#global(this.#in.line(), this.#in.line());
    this.#push(this.#made(instantiate(cls, this.#popMark(), this)));
  }

  #obj(): void {
    const [cls, ...args] = this.#popMark();
    if (!(cls instanceof PyGlobal)) return this.fail(`it makes an object of ${describeValue(cls)}`);
    this.#push(this.#made(instantiate(cls, args, this)));
  }

  #build(): void {
    const state = this.#pop();
    setState(this.#top(), state, this);
  }

  #persistent(id: unknown): void {
    if (this.#persistentLoad === undefined) return this.fail('it refers to data outside the pickle');
    let value: unknown;
    try {
      value = this.#persistentLoad(id);
    } catch (error) {
      if (error instanceof PersistentIdError) return this.fail(error.message);
      throw error;
    }
    this.charge(128);
    this.#push(value);
  }
}

/** Thrown by `persistentLoad`; the machine adds file and offset. */
export class PersistentIdError extends Error {}
