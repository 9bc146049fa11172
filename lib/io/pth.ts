/**
 * torch.save's zip format (PyTorch 1.6 and later): entries `<name>/data.pkl`, a pickle that refers to storages, and
 * `<name>/data/<key>`, the bytes of each storage, stored without compression. yauzl reads the directory; tensors are
 * positional reads inside the stored entries. CRCs are not checked: torch.save can be told to write wrong ones, and
 * PyTorch ignores them.
 */
import { promisify } from 'node:util';
import { inflateRaw } from 'node:zlib';
import * as yauzl from 'yauzl';
import { Ptq4vmError } from '../errors.js';
import { DTYPE_BYTES } from '../tensor.js';
import { CheckpointBase, type CheckpointFile } from './checkpoint-file.js';
import { type ByteSource, formatError } from './files.js';
import { unpickle } from './pickle.js';
import { readView, type ReadRange, swapBytes } from './strided.js';
import { readTorchState, storageFromId, type TorchEntry, type TorchState } from './torch-state.js';

/** More than any model has tensors; a zip directory grows some twentyfold in memory. */
const MAX_ENTRIES = 100_000;
const MAX_PICKLE_BYTES = 1 << 26;
/** Deflated entries (a file that was zipped anew) may grow this much: weights hardly compress, zip bombs do. */
const MAX_INFLATED_BASE = 1 << 26;
const MAX_INFLATION = 20;
/** Bytes of the directory read at once. */
const WINDOW = 1 << 16;

const inflate = promisify(inflateRaw) as (data: Uint8Array, options: { maxOutputLength: number }) => Promise<Buffer>;

export async function openPthZip(source: ByteSource): Promise<CheckpointFile> {
  const archive = await ZipArchive.open(source);
  const pickleName = findPickle(source.path, archive);
  const folder = pickleName.slice(0, -'data.pkl'.length);
  const pickle = await archive.readWhole(pickleName, MAX_PICKLE_BYTES);
  const { value } = unpickle(pickle, { label: `${source.path} (${pickleName})`, persistentLoad: storageFromId });
  const state = readTorchState(source.path, value, (key) => archive.size(`${folder}data/${key}`));
  const bigEndian = (await byteOrder(source.path, archive, `${folder}byteorder`)) === 'big';
  return new PthZip(source, state, archive, `${folder}data/`, bigEndian);
}

/** The one data.pkl; clear words for the zip files that are something else. */
function findPickle(path: string, archive: ZipArchive): string {
  const names = [...archive.names()].filter((n) => !n.startsWith('__MACOSX/'));
  const pickles = names.filter((n) => n === 'data.pkl' || n.endsWith('/data.pkl'));
  if (pickles.length > 1) throw formatError(path, `ambiguous: it holds ${pickles.length} pickles (${pickles.slice(0, 3).join(', ')}, …)`);
  const torchScript = names.find((n) => /(^|\/)constants\.pkl$/.test(n) || /(^|\/)code\/.*\.py$/.test(n));
  if (torchScript !== undefined) {
    throw new Ptq4vmError(
      'ERR_UNSUPPORTED',
      `${path}: a TorchScript program, not a state dict; in Python: torch.save({'model': torch.jit.load(…).state_dict()}, …)`,
    );
  }
  if (pickles.length === 1) return pickles[0]!;
  const what = names.length === 0 ? 'an empty zip archive'
    : names.every((n) => n.endsWith('.npy')) ? 'a NumPy .npz archive, which holds data, not a model'
    : names.includes('[Content_Types].xml') ? 'an office document'
    : names.some((n) => /\.(pth|pt|ckpt|safetensors)$/.test(n)) ? 'a zip archive around a checkpoint (unpack it first)'
    : `a zip archive without data.pkl (its first entry is '${names[0]!.slice(0, 80)}')`;
  throw formatError(path, `not a checkpoint that can be read (PyTorch .pth or .safetensors): it looks like ${what}`);
}

/** Files without the entry are older than it, and little-endian. */
async function byteOrder(path: string, archive: ZipArchive, name: string): Promise<'little' | 'big'> {
  if (archive.size(name) === undefined) return 'little';
  const text = Buffer.from(await archive.readWhole(name, 64)).toString('latin1').trim();
  if (text !== 'little' && text !== 'big') throw formatError(path, `its byteorder entry says neither 'little' nor 'big'`);
  return text;
}

class PthZip extends CheckpointBase<TorchEntry> {
  readonly format = 'pth-zip';

  constructor(
    source: ByteSource,
    state: TorchState,
    private readonly archive: ZipArchive,
    private readonly folder: string,
    private readonly bigEndian: boolean,
  ) {
    super(source, state.entries, state.metadata);
  }

  protected async readEntry(name: string, entry: TorchEntry): Promise<Uint8Array> {
    const elementBytes = DTYPE_BYTES[entry.dtype] as 1 | 2 | 4 | 8;
    const read = this.archive.reader(`${this.folder}${entry.storageKey}`, `tensor '${name}'`);
    const bytes = await readView(read, { ...entry, elementBytes });
    return this.bigEndian ? swapBytes(bytes, elementBytes) : bytes;
  }
}

/** The entries of a zip file, read at random. */
class ZipArchive {
  readonly #starts = new Map<string, Promise<number>>();
  /** The entry inflated last: tensors of one storage are usually read one after the other. */
  #inflated: { name: string; data: Promise<Uint8Array> } | null = null;

  private constructor(
    private readonly source: ByteSource,
    private readonly zip: yauzl.ZipFile,
    private readonly entries: ReadonlyMap<string, yauzl.Entry>,
  ) {}

  static async open(source: ByteSource): Promise<ZipArchive> {
    try {
      const reader = new SourceReader(source);
      const crashed = new Promise<never>((_, reject) => {
        reader.onCrash = reject;
      });
      const opened = yauzl.fromRandomAccessReaderPromise(reader, source.size, { autoClose: false, validateEntrySizes: true });
      const zip = await Promise.race([opened, crashed]);
      if (!(zip.entryCount <= MAX_ENTRIES)) {
        throw formatError(source.path, `it declares ${zip.entryCount} zip entries; at most ${MAX_ENTRIES} are read`);
      }
      const entries = await Promise.race([readEntries(source.path, zip), crashed]);
      checkOverlap(source.path, entries);
      return new ZipArchive(source, zip, entries);
    } catch (cause) {
      if (cause instanceof Ptq4vmError) throw cause;
      throw formatError(source.path, `truncated or damaged zip file: ${message(cause)}`, cause);
    }
  }

  names(): Iterable<string> {
    return this.entries.keys();
  }

  /** Uncompressed bytes of an entry; undefined when there is none. */
  size(name: string): number | undefined {
    return this.entries.get(name)?.uncompressedSize;
  }

  async readWhole(name: string, limit: number): Promise<Uint8Array> {
    const size = this.size(name)!;
    if (size > limit) throw formatError(this.source.path, `its entry ${name} has ${size} bytes; at most ${limit} are read`);
    return this.reader(name, name)(0, size);
  }

  reader(name: string, what: string): ReadRange {
    const entry = this.entries.get(name)!;
    const { path } = this.source;
    const unsupported = (how: string, remedy: string) => new Ptq4vmError('ERR_UNSUPPORTED', `${path}: its entry ${name} ${how}; ${remedy}`);
    if (entry.isEncrypted()) throw unsupported('is encrypted', 'save it without a password');
    if (entry.compressionMethod === 0) {
      return async (begin, length) => {
        if (begin + length > entry.uncompressedSize) throw formatError(path, `${what} reaches beyond its zip entry ${name}`);
        return this.source.read((await this.#start(name, entry)) + begin, length, what);
      };
    }
    if (entry.compressionMethod !== 8) {
      throw unsupported(`uses zip compression method ${entry.compressionMethod}`, 'store it uncompressed');
    }
    return async (begin, length) => (await this.#inflate(name, entry)).slice(begin, begin + length);
  }

  #start(name: string, entry: yauzl.Entry): Promise<number> {
    let start = this.#starts.get(name);
    if (start === undefined) {
      start = this.zip.readLocalFileHeaderPromise(entry, { minimal: true }).then(
        (header) => header.fileDataStart,
        (cause) => {
          throw cause instanceof Ptq4vmError ? cause : formatError(this.source.path, `damaged zip entry ${name}: ${message(cause)}`, cause);
        },
      );
      this.#starts.set(name, start);
    }
    return start;
  }

  #inflate(name: string, entry: yauzl.Entry): Promise<Uint8Array> {
    if (this.#inflated?.name !== name) this.#inflated = { name, data: this.#inflateNow(name, entry) };
    return this.#inflated.data;
  }

  async #inflateNow(name: string, entry: yauzl.Entry): Promise<Uint8Array> {
    const { path } = this.source;
    const { compressedSize, uncompressedSize } = entry;
    if (uncompressedSize > Math.max(MAX_INFLATED_BASE, MAX_INFLATION * compressedSize)) {
      throw formatError(path, `its entry ${name} would grow from ${compressedSize} to ${uncompressedSize} bytes; a zip bomb?`);
    }
    const packed = await this.source.read(await this.#start(name, entry), compressedSize, name);
    let data: Buffer;
    try {
      data = await inflate(packed, { maxOutputLength: Math.max(1, uncompressedSize) });
    } catch (cause) {
      throw formatError(path, `damaged zip entry ${name}: ${message(cause)}`, cause);
    }
    if (data.length !== uncompressedSize) {
      throw formatError(path, `damaged zip entry ${name}: ${data.length} bytes where ${uncompressedSize} were declared`);
    }
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
}

type ReadCallback = (error: Error | null, count?: number) => void;

/**
 * yauzl's access to the source. Errors go to its callback and never out of it: yauzl computes positions from what the file
 * declares and would let the exception of a bad one escape. Small reads come from a window, one system call for many entries.
 */
class SourceReader extends yauzl.RandomAccessReader {
  #window: { begin: number; bytes: Uint8Array } = { begin: 0, bytes: new Uint8Array(0) };
  /** Called with what escapes from yauzl itself; what it throws in its own callbacks would otherwise be lost. */
  onCrash: ((error: unknown) => void) | null = null;

  constructor(private readonly bytes: ByteSource) {
    super();
  }

  override read(buffer: Buffer, offset: number, length: number, position: number, callback: ReadCallback): void {
    this.#fetch(position, length)
      .then(
        (data) => {
          buffer.set(data, offset);
          callback(null, length);
        },
        (error: Error) => callback(error),
      )
      .catch((error: unknown) => this.onCrash?.(error));
  }

  async #fetch(position: number, length: number): Promise<Uint8Array> {
    const { begin, bytes } = this.#window;
    if (position >= begin && position + length <= begin + bytes.length) return bytes.subarray(position - begin, position - begin + length);
    // A position or length that is no part of the file is for the source to refuse.
    const ahead = await this.bytes.read(position, Math.max(length, Math.min(WINDOW, this.bytes.size - position)), 'the zip directory');
    this.#window = { begin: position, bytes: ahead };
    return ahead.subarray(0, length);
  }
}

function readEntries(path: string, zip: yauzl.ZipFile): Promise<Map<string, yauzl.Entry>> {
  const entries = new Map<string, yauzl.Entry>();
  return new Promise((resolve, reject) => {
    zip.on('error', reject);
    zip.on('end', () => resolve(entries));
    zip.on('entry', (entry: yauzl.Entry) => {
      if (entries.has(entry.fileName)) return reject(formatError(path, `duplicate zip entry ${entry.fileName.slice(0, 120)}`));
      entries.set(entry.fileName, entry);
      zip.readEntry();
    });
    zip.readEntry();
  });
}

/** Entries that share bytes of the file make a small file stand for a huge one; no honest writer makes them. */
function checkOverlap(path: string, entries: ReadonlyMap<string, yauzl.Entry>): void {
  const LOCAL_HEADER = 30;
  const sorted = [...entries.values()].sort((a, b) => a.relativeOffsetOfLocalHeader - b.relativeOffsetOfLocalHeader);
  let end = 0;
  for (const entry of sorted) {
    if (entry.relativeOffsetOfLocalHeader < end) throw formatError(path, `zip entry ${entry.fileName.slice(0, 120)} overlaps another one`);
    end = entry.relativeOffsetOfLocalHeader + LOCAL_HEADER + entry.fileNameLength + entry.compressedSize;
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message.split('\n')[0]!.slice(0, 200) : String(error);
}
