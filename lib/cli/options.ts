/** Options that several verbs share, and how their values are read. */
import type { Command } from 'commander';
import { readFile } from 'node:fs/promises';
import { Ptq4vmError, expected } from '../errors.js';
import type { LoadOptions } from '../model.js';
import { type Environment, UsageError } from './environment.js';
import type { Progress } from './progress.js';

export interface OutputOptions {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

export interface ModelOptions extends OutputOptions {
  readonly config?: string;
  readonly model?: string;
  readonly classNames?: string;
  readonly device?: LoadOptions['device'];
  readonly threads?: number;
  readonly precision?: LoadOptions['precision'];
}

export function addOutputOptions(command: Command): Command {
  return command
    .option('--json', 'print the result as JSON')
    .option('-q, --quiet', 'no progress and no notes on stderr')
    .option('--verbose', 'print the stack of an error');
}

/** What a checkpoint is: for verbs that only read it. */
export function addConfigOptions(command: Command): Command {
  return command
    .option('--config <file.json>', 'configuration that the weights cannot tell')
    .option('--model <name>', 'official registry name, or vim-tiny, vim-small, vim-base')
    .option('--class-names <file>', 'class labels in index order: one a line, or a JSON array');
}

/** … and for those that run it. */
export function addModelOptions(command: Command): Command {
  return addConfigOptions(command)
    .option('--device <device>', 'auto, cpu or cuda', choice('--device', ['auto', 'cpu', 'cuda']), 'auto')
    .option('--threads <n>', 'threads (default: physical cores)', integer('--threads', 1, 1024));
}

export function addPrecisionOption(command: Command): Command {
  const values = ['fp32', 'bf16', 'fp16', 'int', 'fake'];
  return command.option('--precision <p>', 'float files: fp32, bf16, fp16; quantized files: int, fake', choice('--precision', values));
}

/** An option's value that is an integer in a range. Throws UsageError. */
export function integer(name: string, low: number, high = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text) ? Number(text) : Number.NaN;
    const range = high === Number.MAX_SAFE_INTEGER ? `an integer ≥ ${low}` : `an integer from ${low} to ${high}`;
    if (!(value >= low && value <= high)) throw new UsageError(expected(range, name, text));
    return value;
  };
}

export function fraction(name: string): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!(value >= 0 && value <= 1)) throw new UsageError(expected('a number from 0 to 1', name, text));
    return value;
  };
}

export function choice(name: string, values: readonly string[]): (text: string) => string {
  return (text) => {
    if (!values.includes(text)) throw new UsageError(expected(`one of ${values.join(', ')}`, name, text));
    return text;
  };
}

/** Options of `load` from those of the command line. `described` false: for a quantized file, which describes itself. */
export async function loadOptions(options: ModelOptions, env: Environment, progress: Progress, described = true): Promise<LoadOptions> {
  const { device, threads, precision } = options;
  const labels = options.classNames === undefined ? undefined : await readClassNames(options.classNames);
  return {
    ...(described ? { config: options.config, model: options.model } : {}),
    ...(labels ? { labels } : {}),
    device, threads, precision,
    signal: env.signal,
    onProgress: progress.onProgress,
  };
}

/** Class names in index order: a JSON array of strings, or one name a line. */
export async function readClassNames(path: string): Promise<string[]> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).replace(/^\ufeff/, '');
  } catch (cause) {
    throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read the class names ${path}: ${(cause as Error).message}`, { cause });
  }
  const names = text.trimStart().startsWith('[') ? namesFromJson(text, path) : namesFromLines(text);
  if (names.length === 0) throw new Ptq4vmError('ERR_DATA', `${path} holds no class names`);
  const empty = names.indexOf('');
  if (empty >= 0) throw new Ptq4vmError('ERR_DATA', `${path}: class name ${empty} is empty`);
  return names;
}

function namesFromJson(text: string, path: string): string[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Ptq4vmError('ERR_DATA', `${path} is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (!Array.isArray(value) || !value.every((v) => typeof v === 'string')) {
    throw new Ptq4vmError('ERR_DATA', `Expected an array of strings in ${path}`);
  }
  return value;
}

function namesFromLines(text: string): string[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  while (lines.at(-1) === '') lines.pop();
  return lines;
}
