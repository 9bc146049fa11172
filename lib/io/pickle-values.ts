/**
 * What an unpickled file is made of here. Python's None, bool, float, str, bytes, list and tuple become null, boolean,
 * number, string, Uint8Array and arrays; int becomes number, or bigint beyond 2^53. Everything else is one of the inert
 * classes below. None of them has behaviour: no code of the file, and no code named by the file, ever runs.
 */
import type { DType } from '../tensor.js';

/** A class or function that the file names: only its name. */
export class PyGlobal {
  constructor(
    readonly module: string,
    readonly name: string,
  ) {}

  get path(): string {
    return `${this.module}.${this.name}`;
  }
}

/** dict, OrderedDict, defaultdict, Counter. `state` is what BUILD attached (a state_dict's `_metadata`). */
export class PyDict {
  readonly map = new Map<unknown, unknown>();
  state: unknown = undefined;
}

export class PySet {
  readonly items = new Set<unknown>();
}

/** An instance of any class that is not plain data: a record of how it was to be made. */
export class PyObject {
  state: unknown = undefined;
  /** Items set on it, when it is a subclass of dict (a yacs CfgNode, say). */
  items: Map<unknown, unknown> | undefined = undefined;
  /** Values appended to it, when it is a subclass of list. */
  list: unknown[] | undefined = undefined;

  constructor(
    readonly className: string,
    readonly args: unknown,
  ) {}
}

/** Element type of a storage. `dtype` is null for a type that no model here uses (complex, quantized, 8-bit float, …). */
export interface TorchElement {
  readonly name: string;
  readonly bytes: number;
  readonly dtype: DType | null;
}

/** A storage named by a persistent id; its bytes stay in the file. */
export class TorchStorage {
  constructor(
    readonly key: string,
    readonly element: TorchElement,
    /** Elements that the pickle declares (bytes, for an untyped storage). */
    readonly numel: number,
    /** First element of this storage inside the stored one (legacy storage views), else 0. */
    readonly viewOffset: number,
  ) {}
}

/** A tensor as the file declares it: nothing about it is checked before it is used. */
export class TorchTensor {
  constructor(
    readonly storage: unknown,
    readonly offset: unknown,
    readonly shape: unknown,
    readonly strides: unknown,
    /** Given for storages without an element type of their own. */
    readonly element: TorchElement | null,
  ) {}
}

const element = (name: string, bytes: number, dtype: DType | null): TorchElement => ({ name, bytes, dtype });

const ELEMENTS = {
  float64: element('float64', 8, 'f64'),
  float32: element('float32', 4, 'f32'),
  float16: element('float16', 2, 'f16'),
  bfloat16: element('bfloat16', 2, 'bf16'),
  int64: element('int64', 8, 'i64'),
  int32: element('int32', 4, 'i32'),
  int16: element('int16', 2, 'i16'),
  int8: element('int8', 1, 'i8'),
  uint8: element('uint8', 1, 'u8'),
  bool: element('bool', 1, 'bool'),
  complex64: element('complex64', 8, null),
  complex128: element('complex128', 16, null),
  complex32: element('complex32', 4, null),
  qint8: element('qint8', 1, null),
  quint8: element('quint8', 1, null),
  qint32: element('qint32', 4, null),
  quint4x2: element('quint4x2', 1, null),
  quint2x4: element('quint2x4', 1, null),
  uint16: element('uint16', 2, null),
  uint32: element('uint32', 4, null),
  uint64: element('uint64', 8, null),
  float8_e4m3fn: element('float8_e4m3fn', 1, null),
  float8_e5m2: element('float8_e5m2', 1, null),
  float8_e4m3fnuz: element('float8_e4m3fnuz', 1, null),
  float8_e5m2fnuz: element('float8_e5m2fnuz', 1, null),
} as const;

/** Storage classes of PyTorch (in module torch, torch.cuda or torch.storage), by class name. */
export const STORAGE_ELEMENTS: ReadonlyMap<string, TorchElement> = new Map<string, TorchElement>([
  ['DoubleStorage', ELEMENTS.float64],
  ['FloatStorage', ELEMENTS.float32],
  ['HalfStorage', ELEMENTS.float16],
  ['BFloat16Storage', ELEMENTS.bfloat16],
  ['LongStorage', ELEMENTS.int64],
  ['IntStorage', ELEMENTS.int32],
  ['ShortStorage', ELEMENTS.int16],
  ['CharStorage', ELEMENTS.int8],
  ['ByteStorage', ELEMENTS.uint8],
  ['UntypedStorage', ELEMENTS.uint8],
  ['_UntypedStorage', ELEMENTS.uint8],
  ['BoolStorage', ELEMENTS.bool],
  ['ComplexFloatStorage', ELEMENTS.complex64],
  ['ComplexDoubleStorage', ELEMENTS.complex128],
  ['QInt8Storage', ELEMENTS.qint8],
  ['QUInt8Storage', ELEMENTS.quint8],
  ['QInt32Storage', ELEMENTS.qint32],
  ['QUInt4x2Storage', ELEMENTS.quint4x2],
  ['QUInt2x4Storage', ELEMENTS.quint2x4],
]);

/** torch.float32 and its kin, by attribute name. */
export const DTYPE_ELEMENTS: ReadonlyMap<string, TorchElement> = new Map<string, TorchElement>([
  ...Object.values(ELEMENTS).map((e) => [e.name, e] as const),
  ['double', ELEMENTS.float64],
  ['float', ELEMENTS.float32],
  ['half', ELEMENTS.float16],
  ['long', ELEMENTS.int64],
  ['int', ELEMENTS.int32],
  ['short', ELEMENTS.int16],
  ['cfloat', ELEMENTS.complex64],
  ['cdouble', ELEMENTS.complex128],
]);

/** The names by which Python code would call a class; Python 2 and NumPy 1 spellings folded into the present ones. */
export function canonicalClass(g: PyGlobal): string {
  const module = g.module
    .replace(/^__builtin__$/, 'builtins')
    .replace(/^copy_reg$/, 'copyreg')
    .replace(/^numpy\.core\b/, 'numpy._core');
  return `${module}.${g.name}`;
}

/** One word or two for an error message. */
export function describeValue(value: unknown): string {
  if (value === null) return 'None';
  if (value === undefined) return 'nothing';
  if (typeof value === 'string') return 'a str';
  if (typeof value === 'boolean') return 'a bool';
  if (typeof value === 'bigint') return 'an int';
  if (typeof value === 'number') return Number.isInteger(value) ? 'an int' : 'a float';
  if (value instanceof Uint8Array) return 'bytes';
  if (Array.isArray(value)) return 'a list or tuple';
  if (value instanceof PyDict) return 'a dict';
  if (value instanceof PySet) return 'a set';
  if (value instanceof PyGlobal) return `the class ${value.path.slice(0, 80)}`;
  if (value instanceof PyObject) return `an object of ${value.className.slice(0, 80)}`;
  if (value instanceof TorchTensor) return 'a tensor';
  if (value instanceof TorchStorage) return 'a storage';
  return typeof value;
}

/** Handed to pickle-classes.ts: errors with an offset, and the budget. */
export interface UnpickleContext {
  fail(problem: string): never;
  charge(bytes: number): void;
}
