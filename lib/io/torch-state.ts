/**
 * From an unpickled torch.save object to named tensors: finds the state dict among what published checkpoints carry,
 * checks every tensor against its storage, and describes the rest. Common to the zip and the legacy format.
 */
import { Ptq4vmError } from '../errors.js';
import { type DType, DTYPE_BYTES, elementCount, showShape } from '../tensor.js';
import { formatError } from './files.js';
import { PersistentIdError } from './pickle.js';
import {
  describeValue, PyDict, PyGlobal, PyObject, STORAGE_ELEMENTS, TorchStorage, TorchTensor,
} from './pickle-values.js';
import { PlainConverter, plainRecord } from './plain.js';
import { viewSpan } from './strided.js';

/** Where a checkpoint keeps its state dict, the likeliest first; '' is the top level itself. */
const STATE_DICT_KEYS = ['model', 'state_dict', 'model_state_dict', 'module', 'net', ''] as const;
/** Averaged weights: used only when there is nothing else. */
const EMA_KEYS = ['model_ema', 'state_dict_ema', 'ema', 'ema_state_dict'] as const;
/** Put in front of every name by DistributedDataParallel and torch.compile. */
const WRAPPER_PREFIXES = ['module.', '_orig_mod.'] as const;

const MAX_DIMENSIONS = 64;
/** How far tensors may outgrow the bytes behind them (expanded or shared views) before the file is refused. */
const MAX_GROWTH = 8;
const GROWTH_BASE = 1 << 22;

/** A tensor of the state dict, checked: the view lies inside its storage. */
export interface TorchEntry {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  /** In elements, from the beginning of the stored storage. */
  readonly offset: number;
  readonly storageKey: string;
}

export interface TorchState {
  readonly entries: ReadonlyMap<string, TorchEntry>;
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** The storage that a persistent id `('storage', type, key, location, numel[, view])` names. */
export function storageFromId(id: unknown): TorchStorage {
  if (!Array.isArray(id) || id[0] !== 'storage') throw new PersistentIdError('it refers to something outside that is no tensor storage');
  const [, type, key, , numel, view] = id as unknown[];
  const element = type instanceof PyGlobal && /^torch(\.cuda|\.storage)?$/.test(type.module) ? STORAGE_ELEMENTS.get(type.name) : undefined;
  if (element === undefined) throw new PersistentIdError(`it has a storage of unknown type (${describeValue(type)})`);
  if (typeof key !== 'string' && typeof key !== 'number') throw new PersistentIdError('it has a storage without a name');
  if (!isCount(numel)) throw new PersistentIdError('it has a storage whose size is no size');
  if (view === undefined || view === null) return new TorchStorage(String(key), element, numel, 0);
  const [, offset, size] = Array.isArray(view) ? (view as unknown[]) : [];
  if (!isCount(offset) || !isCount(size) || offset + size > numel) throw new PersistentIdError('it has a storage view beyond its storage');
  return new TorchStorage(String(key), element, size, offset);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/**
 * @param storageBytes Bytes that the file holds for a storage; undefined where it holds none.
 */
export function readTorchState(path: string, root: unknown, storageBytes: (key: string) => number | undefined): TorchState {
  const { key, dict, note } = findStateDict(path, root);
  const prefix = wrapperPrefix(dict);
  const entries = new Map<string, TorchEntry>();
  const converter = new PlainConverter();
  const skipped = plainRecord();
  const used = new Map<string, number>();
  let total = 0;
  for (const [rawName, value] of dict.map) {
    if (typeof rawName !== 'string') {
      skipped[typeof rawName === 'object' ? '<object>' : String(rawName)] = describeValue(value);
      continue;
    }
    const name = rawName.slice(prefix.length);
    if (!(value instanceof TorchTensor)) {
      refuseTensorLike(path, rawName, value);
      skipped[rawName] = describeValue(value);
      continue;
    }
    const entry = checkTensor(path, rawName, value, storageBytes);
    entries.set(name, entry);
    used.set(entry.storageKey, storageBytes(entry.storageKey)!);
    total += elementCount(entry.shape) * DTYPE_BYTES[entry.dtype];
  }
  let stored = 0;
  for (const bytes of used.values()) stored += bytes;
  if (total > GROWTH_BASE + MAX_GROWTH * stored) {
    throw formatError(path, `its tensors would take ${total} bytes, made from ${stored} bytes of data`);
  }

  const metadata = plainRecord();
  for (const [k, value] of (root as PyDict).map) {
    if (k === key || (key === '' && value instanceof TorchTensor)) continue;
    metadata[typeof k === 'object' ? '<object>' : String(k)] =
      isAveraged(k) && value instanceof PyDict ? `<${value.map.size} averaged weights, not used>` : converter.convert(value);
  }
  const reader = plainRecord();
  reader.stateDict = key === '' ? '(top level)' : key;
  if (prefix !== '') reader.strippedPrefix = prefix;
  if (note !== undefined) reader.note = note;
  if (key !== '' && Object.keys(skipped).length > 0) reader.skipped = skipped;
  metadata.__reader__ = reader;
  return { entries, metadata };
}

interface Found {
  readonly key: string;
  readonly dict: PyDict;
  readonly note?: string;
}

function findStateDict(path: string, root: unknown): Found {
  if (root instanceof PyObject) {
    throw unsupported(
      path,
      `it holds a whole pickled object of class ${root.className.slice(0, 120)}, not a state dict; ` +
        "in Python, load it and save torch.save({'model': model.state_dict()}, …)",
    );
  }
  if (!(root instanceof PyDict)) throw formatError(path, `no state dict in it: its content is ${describeValue(root)}, not a dict`);
  for (const key of STATE_DICT_KEYS) {
    const dict = candidate(root, key);
    if (dict !== null) return { key, dict };
  }
  // A name of one's own ('generator', say) is clear enough when nothing else holds tensors.
  const others = [...root.map.keys()].filter((k): k is string => typeof k === 'string' && !isAveraged(k) && candidate(root, k) !== null);
  const [only] = others;
  if (only !== undefined && others.length === 1) {
    return { key: only, dict: root.map.get(only) as PyDict, note: `'${only.slice(0, 80)}' is all that holds tensors` };
  }
  for (const key of EMA_KEYS) {
    const dict = candidate(root, key);
    if (dict !== null) return { key, dict, note: `the weights are the averaged ones of '${key}'; the file has no others` };
  }
  const model = root.map.get('model') ?? root.map.get('module') ?? root.map.get('net');
  if (model instanceof PyObject) {
    const shown = model.className.slice(0, 120);
    throw unsupported(path, `its 'model' is a whole pickled object of class ${shown}; save model.state_dict() instead`);
  }
  const keys = [...root.map.keys()].slice(0, 12).map((k) => (typeof k === 'string' ? `'${k.slice(0, 40)}'` : describeValue(k)));
  throw formatError(path, `no state dict in it: none of ${keys.length === 0 ? 'its (zero) keys' : keys.join(', ')} holds named tensors`);
}

const isAveraged = (key: unknown): boolean => (EMA_KEYS as readonly unknown[]).includes(key);

/** The dict under `key` when it holds at least one tensor. */
function candidate(root: PyDict, key: string): PyDict | null {
  const value = key === '' ? root : root.map.get(key);
  if (!(value instanceof PyDict)) return null;
  for (const [name, item] of value.map) {
    if (typeof name === 'string' && (item instanceof TorchTensor || tensorLike(item) !== null)) return value;
  }
  return null;
}

/** The wrapper prefixes that all names share, as often as they repeat. */
function wrapperPrefix(dict: PyDict): string {
  const names = [...dict.map.keys()].filter((k): k is string => typeof k === 'string');
  if (names.length === 0) return '';
  let prefix = '';
  for (let round = 0; round < 4; round++) {
    const next = WRAPPER_PREFIXES.find((p) => names.every((n) => n.startsWith(p, prefix.length) && n.length > prefix.length + p.length));
    if (next === undefined) break;
    prefix += next;
  }
  return prefix;
}

const REBUILDERS: readonly (readonly [RegExp, string, string])[] = [
  [/_rebuild_qtensor$/, 'quantized', 'call .dequantize() on it and save again'],
  [/_rebuild_sparse/, 'sparse', 'call .to_dense() on it and save again'],
  [/_rebuild_meta_tensor/, 'a meta tensor without data', 'save the model after its weights are loaded'],
  [/_rebuild_nested_tensor/, 'nested', 'save plain tensors'],
  [/^torch\._(utils|tensor)\._rebuild_/, 'of a special tensor type', 'save plain tensors'],
];

function tensorLike(value: unknown): (typeof REBUILDERS)[number] | null {
  if (!(value instanceof PyObject)) return null;
  return REBUILDERS.find(([pattern]) => pattern.test(value.className)) ?? null;
}

function refuseTensorLike(path: string, name: string, value: unknown): void {
  const known = tensorLike(value);
  if (known !== null) throw unsupported(path, `tensor '${name}' is ${known[1]} (${(value as PyObject).className}); ${known[2]}`);
}

function unsupported(path: string, problem: string): Ptq4vmError {
  return new Ptq4vmError('ERR_UNSUPPORTED', `${path}: ${problem}`);
}

function checkTensor(path: string, name: string, tensor: TorchTensor, storageBytes: (key: string) => number | undefined): TorchEntry {
  const shown = name.length > 120 ? `${name.slice(0, 117)}…` : name;
  const bad = (problem: string): Ptq4vmError => formatError(path, `tensor '${shown}' ${problem}`);
  const { storage, offset, shape, strides } = tensor;
  if (!(storage instanceof TorchStorage)) throw bad(`has no storage but ${describeValue(storage)}`);
  const element = tensor.element ?? storage.element;
  if (element.dtype === null) {
    const remedy = 'convert it to a float type and save again';
    throw unsupported(path, `tensor '${shown}' has type ${element.name}, which no model here uses; ${remedy}`);
  }
  const dims = sizes(shape);
  if (dims === null) throw bad('has a shape that is no list of sizes');
  if (!Array.isArray(strides) || strides.length !== dims.length) throw bad(`has ${dims.length} dimensions but other strides`);
  if (strides.some((s) => typeof s === 'number' && s < 0)) throw bad('has a negative stride');
  const steps = sizes(strides);
  if (steps === null) throw bad('has strides that are no numbers');
  if (!isCount(offset)) throw bad('has an offset that is no position');

  const count = elementCount(dims);
  const span = viewSpan(dims, steps);
  if (!Number.isSafeInteger(count * element.bytes) || !Number.isSafeInteger((offset + span) * element.bytes)) {
    throw bad(`has an impossible size (${showShape(dims)})`);
  }
  const held = storageBytes(storage.key);
  if (held === undefined) throw bad(`refers to storage '${storage.key.slice(0, 40)}', which the file does not hold`);
  const declared = storage.numel * storage.element.bytes;
  const begin = storage.viewOffset * storage.element.bytes;
  if (begin + declared > held) {
    throw bad(`is in storage '${storage.key.slice(0, 40)}' of ${begin + declared} declared bytes, but the file holds ${held} of it`);
  }
  if (begin % element.bytes !== 0) throw bad('begins inside an element of its storage');
  if (span > 0 && (offset + span) * element.bytes > declared) {
    throw bad(`reaches beyond its storage: ${(offset + span) * element.bytes} bytes of ${declared}`);
  }
  if (count * element.bytes > GROWTH_BASE + MAX_GROWTH * held) {
    throw bad(`expands ${held} bytes of data to ${count * element.bytes} bytes (${showShape(dims)})`);
  }
  return { dtype: element.dtype, shape: dims, strides: steps, offset: offset + begin / element.bytes, storageKey: storage.key };
}

function sizes(value: unknown): number[] | null {
  if (!Array.isArray(value) || value.length > MAX_DIMENSIONS || !value.every(isCount)) return null;
  return [...value];
}
