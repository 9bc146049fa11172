/**
 * The two kinds of failure a caller sees.
 *
 * A bad argument is the caller's mistake: `TypeError` (wrong kind of value) or `RangeError`
 * (right kind, impossible value), always in one voice, "Expected … for … but received …".
 * Everything else (files, models, devices, resources) is a `Ptq4vmError` whose `code` is stable.
 */

/** Stable codes of `Ptq4vmError.code`; messages may change between versions, codes do not. */
export type Ptq4vmErrorCode =
  | 'ERR_ADDON_NOT_FOUND' // no native addon could be loaded
  | 'ERR_FILE_NOT_FOUND' // a path that does not exist or cannot be opened
  | 'ERR_FILE_FORMAT' // truncated, corrupt, foreign or hostile file
  | 'ERR_FILE_WRITE' // disk full, permission denied, target vanished
  | 'ERR_UNSUPPORTED' // well-formed, but a thing this version does not do
  | 'ERR_CONFIG' // unknown key, contradiction between configuration and weights
  | 'ERR_WEIGHTS' // tensor missing, of the wrong shape, or not finite
  | 'ERR_DATA' // image or batch that cannot be used
  | 'ERR_DEVICE' // device or instruction set that is not there
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_DISPOSED' // use of a model after dispose()
  | 'ERR_ENGINE'; // a Program that the engine refuses; a bug in this package

export class Ptq4vmError extends Error {
  readonly code: Ptq4vmErrorCode;

  constructor(code: Ptq4vmErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'Ptq4vmError';
    this.code = code;
  }
}

/** `Expected <expected> for <name> but received <value>`, the one voice of argument errors. */
export function expected(what: string, name: string, received: unknown): string {
  return `Expected ${what} for ${name} but received ${show(received)}`;
}

export function typeError(what: string, name: string, received: unknown): TypeError {
  return new TypeError(expected(what, name, received));
}

export function rangeError(what: string, name: string, received: unknown): RangeError {
  return new RangeError(expected(what, name, received));
}

/** Throws the `AbortSignal`'s own reason, as the platform's APIs do. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  signal?.throwIfAborted();
}

/** A short rendering of any value for messages: never throws, never prints a page. */
export function show(value: unknown): string {
  if (typeof value === 'string') return value.length > 80 ? `'${value.slice(0, 77)}…'` : `'${value}'`;
  if (value === null || value === undefined || typeof value !== 'object') return String(value);
  if (ArrayBuffer.isView(value)) {
    return `${value.constructor.name}(${'length' in value ? (value as { length: unknown }).length : value.byteLength})`;
  }
  if (Array.isArray(value) && value.length <= 8 && value.every((v) => typeof v === 'number')) return `[${value.join(', ')}]`;
  if (Array.isArray(value)) return `Array(${value.length})`;
  return `[object ${(value as object).constructor?.name ?? 'Object'}]`;
}
