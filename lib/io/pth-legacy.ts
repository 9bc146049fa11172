/**
 * torch.save's format before PyTorch 1.6 (and later with `_use_new_zipfile_serialization=False`), after
 * torch/serialization.py: five pickles in a row (magic number, protocol 1001, system information, the object, the list of
 * storage keys), then for each key an int64 number of elements and the raw little-endian elements.
 *
 * Nothing says how long a pickle is, so they are read through a window that grows until the STOP lies inside.
 */
import { DTYPE_BYTES } from '../tensor.js';
import { CheckpointBase, type CheckpointFile } from './checkpoint-file.js';
import { type ByteSource, formatError } from './files.js';
import { unpickle } from './pickle.js';
import { PickleTruncatedError } from './pickle-bytes.js';
import { readView } from './strided.js';
import { readTorchState, storageFromId, type TorchEntry, type TorchState } from './torch-state.js';

const MAGIC = 0x1950a86a20f9469cfc6cn;
const PROTOCOL = 1001;
const FIRST_WINDOW = 1 << 18;
const MAX_PICKLE_BYTES = 1 << 26;

/** True when the file begins with the pickle of the magic number, written by any protocol. */
export function isLegacyHead(head: Uint8Array): boolean {
  // Protocols 2 and later begin with PROTO; 0 and 1 write LONG as decimal text.
  if (head[0] !== 0x80 && head[0] !== 0x4c) return false;
  try {
    return unpickle(head.subarray(0, 64), { label: '' }).value === MAGIC;
  } catch {
    return false;
  }
}

export async function openPthLegacy(source: ByteSource): Promise<CheckpointFile> {
  const reader = new PickleReader(source);
  await reader.next('magic number');
  const protocol = await reader.next('protocol version');
  if (protocol !== PROTOCOL) {
    const shown = typeof protocol === 'number' ? `protocol ${protocol}` : 'unknown protocol';
    throw formatError(source.path, `legacy torch file of ${shown}; only ${PROTOCOL} exists`);
  }
  await reader.next('system information');

  // Keys refer to whole storages; views into them (written before PyTorch 0.4) share the key.
  const elementBytes = new Map<string, number>();
  const root = await reader.next('object', (id) => {
    if (Array.isArray(id) && id[0] === 'module') return id[1];
    const storage = storageFromId(id);
    elementBytes.set(storage.key, storage.element.bytes);
    return storage;
  });
  const keys = await reader.next('storage list');
  const storages = await locateStorages(source, keys, elementBytes, reader.position);
  const state = readTorchState(source.path, root, (key) => storages.get(key)?.bytes);
  return new PthLegacy(source, state, storages);
}

interface StoredBytes {
  readonly begin: number;
  readonly bytes: number;
}

/** Walks the storages at the end of the file: each position follows from the sizes before it. */
async function locateStorages(
  source: ByteSource,
  keys: unknown,
  elementBytes: ReadonlyMap<string, number>,
  position: number,
): Promise<Map<string, StoredBytes>> {
  const { path } = source;
  if (!Array.isArray(keys)) throw formatError(path, 'its list of storages is no list');
  const storages = new Map<string, StoredBytes>();
  for (const rawKey of keys) {
    if (typeof rawKey !== 'string' && typeof rawKey !== 'number') {
      throw formatError(path, 'its list of storages holds something that is no key');
    }
    const key = String(rawKey);
    const shown = `storage '${key.slice(0, 40)}'`;
    const size = elementBytes.get(key);
    if (size === undefined) throw formatError(path, `it lists ${shown}, which no tensor uses`);
    if (storages.has(key)) throw formatError(path, `it lists ${shown} twice`);
    const header = await source.read(position, 8, `the size of ${shown}`);
    const numel = Buffer.from(header.buffer, header.byteOffset, 8).readBigInt64LE();
    const begin = position + 8;
    if (numel < 0n || numel > BigInt(source.size)) {
      throw formatError(path, `${shown} declares ${numel} elements, more than the file can hold`);
    }
    const bytes = Number(numel) * size;
    if (begin + bytes > source.size) {
      throw formatError(path, `truncated: ${shown} needs ${bytes} bytes at offset ${begin}, but the file has ${source.size} bytes`);
    }
    storages.set(key, { begin, bytes });
    position = begin + bytes;
  }
  return storages;
}

class PthLegacy extends CheckpointBase<TorchEntry> {
  readonly format = 'pth-legacy';

  constructor(
    source: ByteSource,
    state: TorchState,
    private readonly storages: ReadonlyMap<string, StoredBytes>,
  ) {
    super(source, state.entries, state.metadata);
  }

  protected readEntry(name: string, entry: TorchEntry): Promise<Uint8Array> {
    const { begin } = this.storages.get(entry.storageKey)!;
    const elementBytes = DTYPE_BYTES[entry.dtype] as 1 | 2 | 4 | 8;
    return readView((at, length) => this.source.read(begin + at, length, `tensor '${name}'`), { ...entry, elementBytes });
  }
}

/** Pickles one after the other, from the beginning of the file. */
class PickleReader {
  position = 0;
  #window = FIRST_WINDOW;

  constructor(private readonly source: ByteSource) {}

  async next(what: string, persistentLoad?: (id: unknown) => unknown): Promise<unknown> {
    const { path, size } = this.source;
    for (;;) {
      const length = Math.min(this.#window, size - this.position, MAX_PICKLE_BYTES);
      const bytes = await this.source.read(this.position, length, `the ${what}`);
      try {
        const { value, end } = unpickle(bytes, { label: `${path} (${what})`, baseOffset: this.position, persistentLoad });
        this.position += end;
        return value;
      } catch (error) {
        if (!(error instanceof PickleTruncatedError) || length === size - this.position) throw error;
        if (length === MAX_PICKLE_BYTES) throw formatError(path, `its ${what} is a pickle of more than ${MAX_PICKLE_BYTES} bytes`);
        this.#window *= 4;
      }
    }
  }
}
