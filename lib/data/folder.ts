/** A folder of pictures, read recursively; a first-level folder is a class. */
import { type BigIntStats, type Dirent, readdirSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import * as path from 'node:path';
import { Ptq4vmError, typeError } from '../errors.js';
import { type Batch, type BatchRequest, type Dataset, checkRequest, forEachBounded, prefetched } from './dataset.js';
import { decodeImageInto } from './images.js';
import { checkPreprocess, sizeOf } from './preprocess.js';

/** What counts as a picture. Some of these sharp cannot read: better a clear error for that file than to leave it out silently. */
const EXTENSIONS: ReadonlySet<string> = new Set([
  '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif', '.bmp', '.ppm', '.pgm',
]);

/** Pictures decoded at once. libuv has four threads for them; more would only hold more files in memory. */
const DECODERS = Math.max(2, Math.min(8, availableParallelism()));

export interface FolderDataset extends Dataset {
  /** Relative to the folder, with forward slashes, sorted by bytes. */
  readonly paths: readonly string[];
  /** Files that were left out because they are no pictures. */
  readonly ignored: number;
}

/**
 * The pictures below `dir`. Hidden files and folders are skipped, files without a picture's extension ignored (and
 * counted), symbolic links followed, every folder read once. `labels` and `classNames` are there when any picture lies
 * in a subfolder.
 *
 * @throws Ptq4vmError ERR_FILE_NOT_FOUND (no such folder, broken link), ERR_DATA (not a folder, no pictures)
 */
export function imageFolder(dir: string): FolderDataset {
  if (typeof dir !== 'string' || dir === '') throw typeError('a folder path', 'dir', dir);
  return new ImageFolder(dir);
}

class ImageFolder implements FolderDataset {
  readonly name: string;
  readonly paths: readonly string[];
  readonly ignored: number;
  readonly labels?: Int32Array;
  readonly classNames?: readonly string[];

  constructor(dir: string) {
    this.name = dir;
    const { paths, ignored } = scan(dir);
    if (paths.length === 0) {
      const others = ignored === 1 ? ' (one other file)' : ignored > 1 ? ` (${ignored} other files)` : '';
      throw new Ptq4vmError('ERR_DATA', `${dir} holds no pictures${others}`);
    }
    this.paths = paths;
    this.ignored = ignored;
    const classOf = (p: string): string | undefined => (p.includes('/') ? p.slice(0, p.indexOf('/')) : undefined);
    const names = sortByBytes([...new Set(paths.map(classOf))].filter((c) => c !== undefined));
    if (names.length > 0) {
      const index = new Map(names.map((n, i) => [n, i]));
      this.classNames = names;
      this.labels = Int32Array.from(paths, (p) => index.get(classOf(p) ?? '') ?? -1);
    }
  }

  get length(): number {
    return this.paths.length;
  }

  describe(index: number): string {
    return path.join(this.name, this.paths[index] ?? `[${index}]`);
  }

  batches(request: BatchRequest): AsyncIterable<Batch> {
    const total = checkRequest(request, this.length);
    const preprocess = checkPreprocess(request.preprocess);
    const { size, indices, signal } = request;
    const [height, width] = sizeOf(preprocess);
    const pixels = 3 * height * width;
    const make = async (k: number, stop: AbortSignal): Promise<Batch> => {
      const first = k * size;
      const n = Math.min(size, total - first);
      const at = (i: number): number => indices?.[first + i] ?? first + i;
      const images = new Float32Array(n * pixels);
      const decode = (i: number): Promise<void> =>
        decodeImageInto(images.subarray(i * pixels, (i + 1) * pixels), this.describe(at(i)), preprocess);
      await forEachBounded(n, DECODERS, decode, stop);
      const labels = this.labels && Int32Array.from({ length: n }, (_, i) => this.labels![at(i)]!);
      return { images, n, first, ...(labels ? { labels } : {}) };
    };
    return prefetched(Math.ceil(total / size), make, signal);
  }
}

/** Sorted by the bytes of their UTF-8 form: the same on every system and locale, unlike the order of UTF-16 units. */
export function sortByBytes(names: readonly string[]): string[] {
  return names
    .map((name) => ({ name, bytes: Buffer.from(name) }))
    .sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    .map(({ name }) => name);
}

function scan(dir: string): { paths: string[]; ignored: number } {
  const found: string[] = [];
  let ignored = 0;
  const visited = new Set<string>();
  // In sorted order, so that of two links to one folder the same one always wins.
  const visit = (relative: string): void => {
    const here = path.join(dir, relative);
    const info = statOf(here, true);
    const identity = `${info.dev}:${info.ino}`;
    // Links may form a loop. Where a system has no inode numbers (0) the depth of a path ends one.
    if (info.ino !== 0n && visited.has(identity)) return;
    visited.add(identity);
    if (relative.split('/').length > 64) throw new Ptq4vmError('ERR_DATA', `${here}: folders are nested too deeply`);
    const entries = new Map(list(here).map((entry) => [entry.name, entry]));
    for (const name of sortByBytes([...entries.keys()])) {
      if (name.startsWith('.')) continue;
      const child = relative === '' ? name : `${relative}/${name}`;
      const picture = EXTENSIONS.has(path.extname(name).toLowerCase());
      const entry = entries.get(name)!;
      const kind = entry.isSymbolicLink() ? statOf(path.join(here, name), picture) : entry;
      if (kind.isDirectory()) visit(child);
      else if (picture && kind.isFile()) found.push(child);
      else ignored++;
    }
  };
  visit('');
  return { paths: sortByBytes(found), ignored };
}

const NOTHING = { isDirectory: () => false, isFile: () => false, dev: 0n, ino: 0n };

/** Follows links. What cannot be looked at is an error where it matters, else nothing. */
function statOf(file: string, needed: boolean): BigIntStats | typeof NOTHING {
  try {
    return statSync(file, { bigint: true });
  } catch (cause) {
    if (!needed) return NOTHING;
    throw unreadable(file, cause);
  }
}

function list(dir: string): Dirent[] {
  try {
    return readdirSync(dir, { withFileTypes: true });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOTDIR') throw new Ptq4vmError('ERR_DATA', `${dir} is not a folder`, { cause });
    throw unreadable(dir, cause);
  }
}

function unreadable(file: string, cause: unknown): Ptq4vmError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reason = code === 'ENOENT' ? 'no such file or folder' : code === 'ELOOP' ? 'a loop of links' : code === 'EACCES' ? 'permission denied' : message;
  return new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read ${file}: ${reason}`, { cause });
}
