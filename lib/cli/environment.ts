/** What a verb sees of the world: streams, interruption, the package's API. Tests put their own in. */
import type { Writable } from 'node:stream';
import { Ptq4vmError } from '../errors.js';
import { isArtifact } from '../io/artifact.js';
import { openCheckpoint } from '../io/checkpoint.js';

type Index = typeof import('../index.js');

/** The part of the package that the command line uses. */
export interface Api extends Pick<Index, 'load' | 'quantize' | 'inspectFile' | 'backends' | 'imageFolder' | 'npyBatch' | 'ops'> {
  /** Whether a file is one that `quantize` wrote, which carries its configuration. */
  isQuantizedFile(path: string): Promise<boolean>;
}

export interface Environment {
  /** Results only. */
  readonly stdout: Writable;
  /** Progress, notes, errors. */
  readonly stderr: Writable & { readonly isTTY?: boolean };
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
  readonly api: () => Promise<Api>;
}

/** Loaded when a verb needs it, so that `--help` stays quick. */
export async function packageApi(): Promise<Api> {
  const { load, quantize, inspectFile, backends, imageFolder, npyBatch, ops } = await import('../index.js');
  return { load, quantize, inspectFile, backends, imageFolder, npyBatch, ops, isQuantizedFile };
}

async function isQuantizedFile(path: string): Promise<boolean> {
  const file = await openCheckpoint(path);
  try {
    return isArtifact(file);
  } finally {
    await file.close();
  }
}

/** The command was called wrongly: exit 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The verb did its work, but not all of it could be done and that was said: exit 1, nothing more to print. */
export class PartialFailure extends Error {
  override readonly name = 'PartialFailure';
}

/** Reason of the AbortSignal after Ctrl-C or a termination request. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  constructor(readonly exitCode: number) {
    super('interrupted');
  }
}

const HINTS: Partial<Record<string, string>> = {
  ERR_DEVICE: "'ptq4vm doctor' says what this machine offers",
  ERR_OUT_OF_MEMORY: 'a smaller --batch or --samples needs less',
};

/** One line for a user: what happened, why where the message does not say it, and the remedy where one is known. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  let text = error.message || error.name;
  const { cause } = error;
  // A Ptq4vmError has its cause in its message already.
  if (!(error instanceof Ptq4vmError) && cause instanceof Error && !text.includes(cause.message)) text += `: ${cause.message}`;
  const hint = error instanceof Ptq4vmError ? HINTS[error.code] : undefined;
  return hint === undefined ? text : `${text} (${hint})`;
}
