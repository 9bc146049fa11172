/** Paths that the command line is given: data to read, files to write. */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import * as path from 'node:path';
import type { Dataset } from '../data/dataset.js';
import { Ptq4vmError } from '../errors.js';
import { type Api, UsageError } from './environment.js';
import { plural } from './output.js';
import type { Progress } from './progress.js';

export function isNpy(file: string): boolean {
  return path.extname(file).toLowerCase() === '.npy';
}

/** DIR_OR_NPY: a folder of pictures, or an .npy batch with its labels. */
export async function openData(api: Api, source: string, progress: Progress, labels?: string): Promise<Dataset> {
  if (isNpy(source)) return api.npyBatch(source, { labels });
  if (labels !== undefined) throw new UsageError('--labels goes with an .npy batch; in a folder of pictures the subfolders are the classes');
  const folder = api.imageFolder(source);
  if (folder.ignored > 0) progress.note(`${plural(folder.ignored, 'file')} in ${source} ignored: no picture's extension`);
  return folder;
}

/**
 * Checks where a result will go before the work is begun, not after it. Throws UsageError when that is one of
 * `inputs` (a result must not destroy what it was made from), ERR_FILE_WRITE when it cannot be written there.
 */
export function checkOutput(output: string, inputs: readonly (string | undefined)[]): void {
  for (const input of inputs) {
    if (input !== undefined && sameFile(input, output)) throw new UsageError(`--output ${output} would overwrite the input ${input}`);
  }
  const folder = path.dirname(path.resolve(output));
  const cannot = (reason: string): Ptq4vmError => new Ptq4vmError('ERR_FILE_WRITE', `Cannot write ${output}: ${reason}`);
  if (!existsSync(folder)) throw cannot(`the folder ${folder} does not exist`);
  if (!statSync(folder).isDirectory()) throw cannot(`${folder} is not a folder`);
  if (existsSync(output) && statSync(output).isDirectory()) throw cannot('it is a folder');
  try {
    accessSync(folder, constants.W_OK);
  } catch {
    throw cannot(`no permission to write in ${folder}`);
  }
}

function sameFile(a: string, b: string): boolean {
  if (path.resolve(a) === path.resolve(b)) return true;
  if (!existsSync(a) || !existsSync(b)) return false;
  const [x, y] = [statSync(a, { bigint: true }), statSync(b, { bigint: true })];
  return x.ino !== 0n && x.ino === y.ino && x.dev === y.dev;
}
