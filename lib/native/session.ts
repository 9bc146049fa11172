/**
 * A native Session as the rest of the package uses it: one run at a time, AbortSignal honoured between
 * ops, native errors as Ptq4vmError with the caller's stack, dispose that waits.
 */
import { Ptq4vmError, type Ptq4vmErrorCode } from '../errors.js';
import type { Program } from '../program/ir.js';
import { loadAddon } from './addon.js';
import type { CancelToken, MemoryPlan, NativeSession, RunRequest, SessionOptions } from './addon-types.js';

export type Values = Readonly<Record<string, Float32Array | Uint8Array>>;

export interface Run extends Omit<RunRequest, 'cancel'> {
  readonly signal?: AbortSignal;
}

export class EngineSession {
  private native: NativeSession | undefined;
  private queue: Promise<unknown> = Promise.resolve();
  readonly isa: string;
  readonly threads: number;

  /** Packs the Program's weights; its typed arrays are not needed afterwards. */
  constructor(program: Program, options: SessionOptions = {}) {
    const { Session } = loadAddon();
    this.native = translate(() => new Session(program, options));
    this.isa = this.native.isa;
    this.threads = this.native.threads;
  }

  /** Runs ops and returns the fetched tensors, each [images, rows, channels]. */
  async run(request: Run): Promise<Values> {
    return (await this.runWithProfile(request)).outputs;
  }

  /** As `run`, with the nanoseconds of each op when `profile` is set. */
  runWithProfile(request: Run): Promise<{ outputs: Values; opNanoseconds?: Float64Array }> {
    const { signal, ...native } = request;
    const here = new Error(); // made now: behind the queue the stack names nothing of the caller
    const result = this.queue.then(() => {
      const work = async (cancel: CancelToken) => {
        const { outputs, opNanoseconds } = await this.session().run({ ...native, cancel });
        return { outputs, opNanoseconds };
      };
      return withCancel(signal, work, here);
    });
    this.queue = result.catch(() => undefined);
    return result;
  }

  plan(images: number): MemoryPlan {
    return translate(() => this.session().plan(images));
  }

  /** Waits for the runs that were asked for, then frees weights and arenas. Idempotent. */
  async dispose(): Promise<void> {
    await this.queue;
    this.native?.dispose();
    this.native = undefined;
  }

  private session(): NativeSession {
    if (this.native === undefined) throw new Ptq4vmError('ERR_DISPOSED', 'The model has been disposed of');
    return this.native;
  }
}

/**
 * Runs native work under an AbortSignal: the token is cancelled when the signal fires, and the
 * signal's reason is thrown once the native side has stopped. Native errors become Ptq4vmErrors with the stack of `here`.
 */
export async function withCancel<T>(
  signal: AbortSignal | undefined,
  work: (cancel: CancelToken) => Promise<T>,
  here = new Error(),
): Promise<T> {
  signal?.throwIfAborted();
  const { CancelToken } = loadAddon();
  const cancel = new CancelToken();
  const onAbort = () => cancel.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    const result = await work(cancel);
    signal?.throwIfAborted();
    return result;
  } catch (error) {
    signal?.throwIfAborted();
    throw toPublicError(error, here);
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}

function translate<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw toPublicError(error, new Error());
  }
}

/** The engine throws plain Errors whose `code` is one of ours; argument errors pass as they are. */
function toPublicError(error: unknown, here: Error): unknown {
  if (!(error instanceof Error) || error instanceof Ptq4vmError) return error;
  const { code } = error as { code?: unknown };
  if (typeof code !== 'string' || !code.startsWith('ERR_') || error instanceof TypeError || error instanceof RangeError) return error;
  const made = new Ptq4vmError(code as Ptq4vmErrorCode, error.message);
  made.stack = `${made.name}: ${made.message}\n${(here.stack ?? '').split('\n').slice(1).join('\n')}`;
  return made;
}
