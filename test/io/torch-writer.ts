/**
 * Writes what torch.save writes, and what it never would: pickles, zip files and legacy files for the tests of the readers.
 * Small and literal on purpose; offsets and lengths can be overridden to make broken and hostile files.
 */
import { crc32 } from './crc32.js';

/** A piece of pickle code that leaves one value on the stack. */
export class Code {
  constructor(readonly bytes: Uint8Array) {}
}

export type Py = null | boolean | number | bigint | string | Uint8Array | Code | readonly Py[] | Map<Py, Py>;

const cat = (...parts: (Uint8Array | number | string)[]): Buffer =>
  Buffer.concat(parts.map((p) => (typeof p === 'number' ? Buffer.from([p]) : typeof p === 'string' ? Buffer.from(p, 'latin1') : p)));

const u32 = (n: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(n);
  return b;
};
const u64 = (n: number | bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt.asUintN(64, BigInt(n)));
  return b;
};

/** LONG1: the shortest little-endian two's complement. */
export function long1(value: bigint): Buffer {
  const out: number[] = [];
  for (let v = value; ; ) {
    out.push(Number(v & 0xffn));
    const negative = (out.at(-1)! & 0x80) !== 0;
    v >>= 8n;
    if ((v === 0n && !negative) || (v === -1n && negative)) break;
  }
  return cat(0x8a, out.length, Buffer.from(out));
}

/** Code of a value with protocol 2 opcodes. Arrays are lists, Maps are dicts, numbers are int or float as they look. */
export function code(value: Py): Buffer {
  if (value instanceof Code) return Buffer.from(value.bytes);
  if (value === null) return cat('N');
  if (typeof value === 'boolean') return cat(value ? 0x88 : 0x89);
  if (typeof value === 'bigint') return long1(value);
  if (typeof value === 'number') {
    if (Number.isInteger(value) && !Object.is(value, -0)) {
      if (value >= 0 && value < 256) return cat('K', value);
      if (Math.abs(value) < 2 ** 31) {
        const b = Buffer.alloc(4);
        b.writeInt32LE(value);
        return cat('J', b);
      }
      return long1(BigInt(value));
    }
    const b = Buffer.alloc(8);
    b.writeDoubleBE(value);
    return cat('G', b);
  }
  if (typeof value === 'string') return cat('X', u32(Buffer.byteLength(value)), Buffer.from(value));
  if (value instanceof Uint8Array) return cat('B', u32(value.length), value);
  if (value instanceof Map) return cat('}', '(', ...[...value].map(([k, v]) => cat(code(k), code(v))), 'u');
  return cat(']', '(', ...(value as readonly Py[]).map(code), 'e');
}

export const raw = (...parts: (Uint8Array | number | string)[]): Code => new Code(cat(...parts));
export const tuple = (...items: Py[]): Code => raw('(', ...items.map(code), 't');
export const global = (module: string, name: string): Code => raw(`c${module}\n${name}\n`);
export const call = (callable: Py, ...args: Py[]): Code => raw(code(callable), code(tuple(...args)), 'R');
export const newObject = (cls: Py, ...args: Py[]): Code => raw(code(cls), code(tuple(...args)), 0x81);
export const build = (object: Py, state: Py): Code => raw(code(object), code(state), 'b');
export const persistent = (id: Py): Code => raw(code(id), 'Q');
export const dict = (entries: Record<string, Py>): Map<Py, Py> => new Map(Object.entries(entries));
export const orderedDict = (entries: Record<string, Py> | Map<Py, Py>): Code => {
  const items = entries instanceof Map ? [...entries] : Object.entries(entries);
  return raw(code(call(global('collections', 'OrderedDict'))), '(', ...items.map(([k, v]) => cat(code(k), code(v))), 'u');
};
export const pickle = (value: Py): Buffer => cat(0x80, 2, code(value), '.');

export interface TensorSpec {
  storage?: Py;
  type?: string;
  shape?: Py;
  strides?: Py;
  offset?: Py;
  numel?: Py;
  /** Legacy storage view: [key, offset, size]. */
  view?: [string, number, number];
  rebuild?: Code;
}

/** `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict())`, contiguous unless told. */
export function tensor(spec: TensorSpec = {}): Code {
  const shape = spec.shape ?? tuple(2);
  const dims = spec.shape instanceof Code || spec.shape === undefined ? [2] : (spec.shape as number[]);
  let step = 1;
  const dense = [...dims]
    .reverse()
    .map((d) => ((step *= d), step / (d || 1)))
    .reverse();
  const id: Py[] = ['storage', global('torch', spec.type ?? 'FloatStorage'), spec.storage ?? '0', 'cpu', spec.numel ?? step];
  if (spec.view !== undefined) id.push(tuple(...spec.view));
  const asTuple = (v: Py): Py => (Array.isArray(v) ? tuple(...(v as Py[])) : v);
  return call(
    spec.rebuild ?? global('torch._utils', '_rebuild_tensor_v2'),
    persistent(tuple(...id)),
    spec.offset ?? 0,
    asTuple(shape),
    asTuple(spec.strides ?? dense),
    false,
    call(global('collections', 'OrderedDict')),
  );
}

export interface ZipEntry {
  name: string;
  data: Uint8Array;
  /** 0 stored (default), 8 deflated; `data` is what lies in the file. */
  method?: number;
  /** Declared sizes, when they should differ from the data. */
  size?: number;
  packed?: number;
  flags?: number;
  /** Position of the local header as the directory declares it. */
  offset?: number;
  /** Zip64 extra field with this position, for offsets that are no 32-bit number. */
  zip64Offset?: bigint;
}

export interface ZipOptions {
  comment?: Uint8Array;
  /** Declared number of entries and position of the directory. */
  count?: number;
  directory?: number;
  /** Bytes of `data` begin at a multiple of this, as torch pads them. */
  align?: number;
}

export function zip(entries: readonly ZipEntry[], options: ZipOptions = {}): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  const push = (b: Buffer): void => {
    parts.push(b);
    at += b.length;
  };
  for (const entry of entries) {
    const name = Buffer.from(entry.name);
    const header = Buffer.alloc(30);
    const size = entry.size ?? entry.data.length;
    const packed = entry.packed ?? (entry.method === 8 ? entry.data.length : size);
    const offset = entry.offset ?? at;
    header.writeUInt32LE(0x04034b50, 0);
    header.writeUInt16LE(entry.flags ?? 0, 6);
    header.writeUInt16LE(entry.method ?? 0, 8);
    header.writeUInt32LE(crc32(entry.data), 14);
    header.writeUInt32LE(packed >>> 0, 18);
    header.writeUInt32LE(size >>> 0, 22);
    header.writeUInt16LE(name.length, 26);
    const align = options.align ?? 64;
    const pad = (align - ((at + 30 + name.length + 4) % align)) % align;
    header.writeUInt16LE(pad + 4, 28);
    const extra = Buffer.alloc(pad + 4, 'Z');
    extra.write('FB', 0, 'latin1');
    extra.writeUInt16LE(pad, 2);
    push(cat(header, name, extra));
    push(Buffer.from(entry.data));

    const central = Buffer.alloc(46);
    central.writeUInt32LE(0x02014b50, 0);
    header.copy(central, 6, 4, 28);
    const zip64 = entry.zip64Offset === undefined ? Buffer.alloc(0) : cat(1, 0, 8, 0, u64(entry.zip64Offset));
    central.writeUInt16LE(name.length, 28);
    central.writeUInt16LE(zip64.length, 30);
    central.writeUInt32LE(entry.zip64Offset === undefined ? offset : 0xffffffff, 42);
    directory.push(cat(central, name, zip64));
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  const comment = options.comment ?? Buffer.alloc(0);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(options.count ?? entries.length, 8);
  end.writeUInt16LE(options.count ?? entries.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(options.directory ?? at, 16);
  end.writeUInt16LE(comment.length, 20);
  return cat(...parts, central, end, comment);
}

/** A torch zip file: archive/data.pkl, archive/data/<key>, archive/version. */
export function torchZip(root: Py, storages: Record<string, Uint8Array>, more: ZipEntry[] = [], options: ZipOptions = {}): Buffer {
  return zip(
    [
      { name: 'archive/data.pkl', data: pickle(root) },
      ...Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data })),
      { name: 'archive/version', data: Buffer.from('3\n') },
      ...more,
    ],
    options,
  );
}

export const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;

export interface LegacyOptions {
  magic?: Py;
  protocol?: Py;
  keys?: Py;
  /** Declared number of elements, by key. */
  numel?: Record<string, number | bigint>;
}

/** A legacy torch file; storages as [key, bytes per element, data] in file order. */
export function torchLegacy(root: Py, storages: readonly (readonly [string, number, Uint8Array])[], options: LegacyOptions = {}): Buffer {
  const system = dict({ protocol_version: 1001, little_endian: true, type_sizes: dict({ short: 2, int: 4, long: 4 }) });
  return cat(
    pickle(options.magic ?? LEGACY_MAGIC),
    pickle(options.protocol ?? 1001),
    pickle(system),
    pickle(root),
    pickle(options.keys ?? storages.map(([key]) => key)),
    ...storages.map(([key, size, data]) => cat(u64(options.numel?.[key] ?? data.length / size), data)),
  );
}

/** The bytes of numbers in an element type. */
export function bytesOf(
  type: 'f64' | 'f32' | 'f16' | 'bf16' | 'i64' | 'i32' | 'i16' | 'i8' | 'u8' | 'bool',
  values: readonly number[],
): Uint8Array {
  const bytes = (a: ArrayBufferView): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  switch (type) {
    case 'f64':
      return bytes(Float64Array.from(values));
    case 'f32':
      return bytes(Float32Array.from(values));
    case 'f16':
      return bytes(Uint16Array.from(values, toHalf));
    // The tests use values that bfloat16 holds exactly, so cutting the low half off is right.
    case 'bf16':
      return bytes(Uint16Array.from(new Uint32Array(Float32Array.from(values).buffer), (b) => b >>> 16));
    case 'i64':
      return bytes(BigInt64Array.from(values, BigInt));
    case 'i32':
      return bytes(Int32Array.from(values));
    case 'i16':
      return bytes(Int16Array.from(values));
    case 'i8':
      return bytes(Int8Array.from(values));
    case 'u8':
    case 'bool':
      return Uint8Array.from(values);
  }
}

/** binary16 of a number that it holds exactly. */
function toHalf(value: number): number {
  if (value === 0) return Object.is(value, -0) ? 0x8000 : 0;
  const sign = value < 0 ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (magnitude === Infinity) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(magnitude)));
  const scaled = magnitude / 2 ** exponent;
  return scaled < 1 ? sign | (scaled * 1024) : sign | ((exponent + 15) << 10) | ((scaled - 1) * 1024);
}
