/**
 * Positional reads and atomic writes: the only place where lib/io touches the file system.
 *
 * Readers see a `ByteSource`: a size and exact reads, so that the same code runs over a file or over bytes in
 * memory (tests, fuzzing). A read that would pass the end fails before anything is allocated, so a length
 * found in a hostile header can never ask for more memory than the file holds.
 */
import { constants } from 'node:fs';
import * as fs from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import * as path from 'node:path';
import { Ptq4vmError, throwIfAborted, typeError } from '../errors.js';

export interface ByteSource {
  /** For messages. */
  readonly path: string;
  /** Bytes, fixed when the source was opened. */
  readonly size: number;
  /**
   * Exactly `length` bytes from `position`, in memory of their own (offset 0 of a fresh buffer).
   * `what` names the thing read. Throws ERR_FILE_FORMAT when the range is not inside the file.
   */
  read(position: number, length: number, what: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** One fs.read call takes less than 2 GiB; smaller pieces also keep a read from blocking others for long. */
const READ_PIECE = 1 << 28;
const WRITE_PIECE = 1 << 24;

/** A file's bytes are wrong: `<path>: <problem>`. */
export function formatError(filePath: string, problem: string, cause?: unknown): Ptq4vmError {
  return new Ptq4vmError('ERR_FILE_FORMAT', `${filePath}: ${problem}`, cause === undefined ? undefined : { cause });
}

/** Bytes of fresh, unshared memory; ERR_OUT_OF_MEMORY instead of the RangeError of the platform. */
export function allocate(length: number, what: string): Uint8Array {
  try {
    // allocUnsafeSlow: uninitialised and never from the shared pool. Not a Buffer for the caller: Buffer.slice does not copy.
    return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer, 0, length);
  } catch (cause) {
    throw new Ptq4vmError('ERR_OUT_OF_MEMORY', `Cannot allocate ${length} bytes for ${what}`, { cause });
  }
}

function checkRange(source: ByteSource, position: number, length: number, what: string): void {
  if (!Number.isSafeInteger(position) || !Number.isSafeInteger(length) || position < 0 || length < 0 || position + length > source.size) {
    throw formatError(
      source.path,
      `truncated or damaged: ${what} needs ${length} bytes at offset ${position}, but the file has ${source.size} bytes`,
    );
  }
}

/** Opens a regular file for positional reads. Throws ERR_FILE_NOT_FOUND (absent, a folder, a device, no permission). */
export async function openSource(filePath: string): Promise<ByteSource> {
  if (typeof filePath !== 'string' || filePath === '') throw typeError('a file path', 'path', filePath);
  if (filePath.includes('\0')) throw new Ptq4vmError('ERR_FILE_NOT_FOUND', 'Cannot open a path that contains a NUL character');
  let handle: fs.FileHandle | undefined;
  try {
    // O_NONBLOCK: opening a named pipe must fail below, not wait for a writer. Absent on Windows, where it is not needed.
    handle = await fs.open(filePath, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stat = await handle.stat();
    if (!stat.isFile()) {
      const kind = stat.isDirectory() ? 'a folder' : 'not a regular file';
      throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read ${filePath}: it is ${kind}`);
    }
    return new FileSource(filePath, stat.size, handle);
  } catch (cause) {
    await handle?.close().catch(() => undefined);
    if (cause instanceof Ptq4vmError) throw cause;
    throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot open ${filePath}: ${reason(cause)}`, { cause });
  }
}

class FileSource implements ByteSource {
  readonly path: string;
  readonly size: number;
  #handle: fs.FileHandle | null;

  constructor(filePath: string, size: number, handle: fs.FileHandle) {
    this.path = filePath;
    this.size = size;
    this.#handle = handle;
  }

  async read(position: number, length: number, what: string): Promise<Uint8Array> {
    const handle = this.#handle;
    if (handle === null) throw new Ptq4vmError('ERR_DISPOSED', `${this.path} is closed`);
    checkRange(this, position, length, what);
    const bytes = allocate(length, what);
    let done = 0;
    while (done < length) {
      let count: number;
      try {
        ({ bytesRead: count } = await handle.read(bytes, done, Math.min(READ_PIECE, length - done), position + done));
      } catch (cause) {
        throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read ${what} from ${this.path}: ${reason(cause)}`, { cause });
      }
      if (count === 0) throw formatError(this.path, `truncated while it was read: ${what} ends at offset ${position + done}`);
      done += count;
    }
    return bytes;
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = null;
    await handle?.close();
  }
}

/** The same over bytes in memory, for tests and for files inside files. */
export function memorySource(bytes: Uint8Array, name = '(memory)'): ByteSource {
  let open = true;
  const source: ByteSource = {
    path: name,
    size: bytes.length,
    async read(position, length, what) {
      if (!open) throw new Ptq4vmError('ERR_DISPOSED', `${name} is closed`);
      checkRange(source, position, length, what);
      // Uint8Array.prototype.slice, spelled out: `bytes` may be a Buffer, whose own slice would share memory.
      return Uint8Array.prototype.slice.call(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length), position, position + length);
    },
    async close() {
      open = false;
    },
  };
  return source;
}

/** Runs `use` over an opened source and closes it, whatever happens. */
export async function withSource<T>(filePath: string, use: (source: ByteSource) => Promise<T>): Promise<T> {
  const source = await openSource(filePath);
  try {
    return await use(source);
  } finally {
    await source.close();
  }
}

export interface AtomicWriteOptions {
  readonly signal?: AbortSignal;
}

/** Appends bytes to the file being written. */
export type WriteBytes = (chunk: Uint8Array) => Promise<void>;

/**
 * Writes a whole file or nothing: `produce` writes to a temporary file in the same folder, which is flushed to disk
 * and renamed over the target. On failure or abort the temporary file is removed and an older target stays as it was.
 * The method is that of the safetensors library. A symbolic link is followed; a target that exists and is no regular
 * file is refused, because a rename would replace it.
 *
 * Throws ERR_FILE_WRITE with the system's error as cause; the signal's reason on abort; what `produce` throws, unchanged.
 */
export async function writeFileAtomically(
  filePath: string,
  produce: (write: WriteBytes) => Promise<void>,
  options: AtomicWriteOptions = {},
): Promise<void> {
  if (typeof filePath !== 'string' || filePath === '') throw typeError('a file path', 'path', filePath);
  const { signal } = options;
  throwIfAborted(signal);
  const guard = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (cause) {
      if (cause instanceof Ptq4vmError) throw cause;
      throw new Ptq4vmError('ERR_FILE_WRITE', `Cannot write ${filePath}: ${reason(cause)}`, { cause });
    }
  };

  const { target, mode } = await guard(() => resolveTarget(filePath));
  const unique = `${process.pid}.${randomBytes(6).toString('hex')}`;
  const temporary = path.join(path.dirname(target), `.${path.basename(target).slice(0, 100)}.${unique}.tmp`);
  const handle = await guard(() => fs.open(temporary, 'wx', mode));
  let open = true;
  try {
    await produce(async (chunk) => {
      for (let at = 0; at < chunk.length; ) {
        throwIfAborted(signal);
        const piece = chunk.subarray(at, at + WRITE_PIECE);
        at += (await guard(() => handle.write(piece, 0, piece.length))).bytesWritten;
      }
    });
    await guard(() => handle.sync());
    open = false;
    await guard(() => handle.close());
    throwIfAborted(signal);
    await guard(() => fs.rename(temporary, target));
  } catch (error) {
    if (open) await handle.close().catch(() => undefined);
    await fs.rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(path.dirname(target));
}

async function resolveTarget(filePath: string): Promise<{ target: string; mode: number }> {
  let target: string;
  try {
    target = await fs.realpath(filePath);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return { target: filePath, mode: 0o666 };
  }
  const stat = await fs.stat(target);
  if (!stat.isFile()) {
    throw new Ptq4vmError('ERR_FILE_WRITE', `Cannot write ${filePath}: it is ${stat.isDirectory() ? 'a folder' : 'not a regular file'}`);
  }
  return { target, mode: stat.mode & 0o777 };
}

/** Makes the rename itself durable. Some systems cannot open or sync a folder; the file is complete either way. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await fs.open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch {
    // Durability of the name is best effort.
  }
}

/** The system's own words without the repeated path: `ENOSPC: no space left on device`. */
function reason(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const comma = message.indexOf(',');
  return comma > 0 ? message.slice(0, comma) : message;
}
