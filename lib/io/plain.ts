/**
 * Unpickled values as plain data for `CheckpointFile.metadata`: a finite tree that JSON.stringify can print.
 *
 * Objects have no prototype, so a key `__proto__` is a key like any other. Cycles, and whatever lies too deep or beyond a
 * fixed number of values, become short strings in angle brackets: a small pickle can share values so that the tree it
 * stands for is astronomically large.
 */
import { showShape } from '../tensor.js';
import { numpyNumber } from './pickle-classes.js';
import { PyDict, PyGlobal, PyObject, PySet, TorchStorage, TorchTensor } from './pickle-values.js';

export type PlainRecord = Record<string, unknown>;

const MAX_DEPTH = 48;
const MAX_VALUES = 200_000;
/** NumPy arrays longer than this are described, not listed. */
const MAX_ARRAY_VALUES = 1024;

export function plainRecord(): PlainRecord {
  return Object.create(null) as PlainRecord;
}

/** Converts values one after the other under one common limit. */
export class PlainConverter {
  #left = MAX_VALUES;
  readonly #path: unknown[] = [];

  convert(value: unknown): unknown {
    if (typeof value === 'bigint') return value.toString();
    if (typeof value !== 'object' || value === null) return value === undefined ? null : value;
    if (this.#left-- <= 0) return '<left out: too much data>';
    if (this.#path.length >= MAX_DEPTH) return '<left out: nested too deep>';
    if (this.#path.includes(value)) return '<cycle>';
    this.#path.push(value);
    const plain = this.#object(value);
    this.#path.pop();
    return plain;
  }

  #object(value: object): unknown {
    if (value instanceof Uint8Array) return value.length <= MAX_ARRAY_VALUES ? Array.from(value) : `<${value.length} bytes>`;
    if (Array.isArray(value)) return this.#list(value);
    if (value instanceof PyDict) return this.#map(value.map);
    if (value instanceof PySet) return this.#list([...value.items]);
    if (value instanceof PyGlobal) return value.module === 'torch' ? value.path : record({ __global__: value.path });
    if (value instanceof TorchTensor) return describeTensor(value);
    if (value instanceof TorchStorage) return record({ __class__: 'torch.storage', dtype: value.element.name, numel: value.numel });
    if (value instanceof PyObject) return numpyArray(value) ?? this.#instance(value);
    return `<${value.constructor?.name ?? 'object'}>`;
  }

  #list(items: readonly unknown[]): unknown[] {
    const out: unknown[] = [];
    for (const item of items) {
      if (this.#left-- <= 0) {
        out.push('<left out: too much data>');
        break;
      }
      out.push(this.convert(item));
    }
    return out;
  }

  #map(map: ReadonlyMap<unknown, unknown>): PlainRecord {
    const out = plainRecord();
    for (const [key, value] of map) {
      if (this.#left-- <= 0) {
        out['<left out: too much data>'] = true;
        break;
      }
      out[keyText(key)] = this.convert(value);
    }
    return out;
  }

  #instance(object: PyObject): PlainRecord {
    const out = record({ __class__: object.className });
    if (object.args !== undefined && !(Array.isArray(object.args) && object.args.length === 0)) out.args = this.convert(object.args);
    if (object.items !== undefined) out.items = this.#map(object.items);
    if (object.list !== undefined) out.list = this.#list(object.list);
    if (object.state !== undefined) out.state = this.convert(object.state);
    return out;
  }
}

function record(fields: PlainRecord): PlainRecord {
  return Object.assign(plainRecord(), fields);
}

/** A dict key as a property name: strings as they are, the rest as Python would print them, more or less. */
function keyText(key: unknown): string {
  if (typeof key === 'string') return key;
  if (key === null) return 'None';
  if (typeof key === 'boolean') return key ? 'True' : 'False';
  if (Array.isArray(key)) {
    const parts = key.slice(0, 16).map((k) => (typeof k === 'object' && k !== null ? '…' : keyText(k)));
    return `(${parts.join(', ')})`;
  }
  return typeof key === 'object' ? '<object>' : String(key);
}

function describeTensor(tensor: TorchTensor): PlainRecord {
  const element = tensor.element ?? (tensor.storage instanceof TorchStorage ? tensor.storage.element : null);
  const shape =
    Array.isArray(tensor.shape) && tensor.shape.length <= 64 && tensor.shape.every((d) => typeof d === 'number') ? [...tensor.shape] : null;
  return record({ __class__: 'torch.Tensor', dtype: element?.name ?? 'unknown', shape });
}

/** An ndarray after BUILD: state = (version, shape, dtype, Fortran order, data). */
function numpyArray(object: PyObject): PlainRecord | null {
  if (object.className !== 'numpy.ndarray' || !Array.isArray(object.state)) return null;
  const [, shape, dtype, fortran, data] = object.state as unknown[];
  if (!Array.isArray(shape) || shape.length > 64 || !shape.every((d) => Number.isSafeInteger(d) && (d as number) >= 0)) return null;
  if (!(dtype instanceof PyObject) || !Array.isArray(dtype.args) || typeof dtype.args[0] !== 'string') return null;
  const out = record({ __class__: 'numpy.ndarray', dtype: dtype.args[0], shape: [...shape] });
  if (fortran === true) out.fortranOrder = true;
  const count = (shape as number[]).reduce((n, d) => n * d, 1);
  if (data instanceof Uint8Array && count > 0 && count <= MAX_ARRAY_VALUES && data.length % count === 0) {
    const size = data.length / count;
    const values = Array.from({ length: count }, (_, i) => numpyNumber(dtype, data.subarray(i * size, (i + 1) * size)));
    if (values.every((v) => v !== null)) {
      out.values = values.map((v) => (typeof v === 'bigint' ? v.toString() : v));
      return out;
    }
  }
  out.values = `<${showShape(shape as number[])} values>`;
  return out;
}
