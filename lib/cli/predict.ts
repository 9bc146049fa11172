/** `ptq4vm predict`: pictures to labels, or an .npy batch to raw logits. */
import type { Command } from 'commander';
import { forEachBounded, prefetched } from '../data/dataset.js';
import { decodeImage } from '../data/images.js';
import { Ptq4vmError } from '../errors.js';
import { topPredictions } from '../evaluate.js';
import { writeNpy } from '../io/npy.js';
import type { Model } from '../model.js';
import { elementCount } from '../tensor.js';
import { type Environment, PartialFailure, UsageError, describeError } from './environment.js';
import { checkOutput, isNpy } from './files.js';
import { type ModelOptions, addModelOptions, addOutputOptions, addPrecisionOption, integer, loadOptions } from './options.js';
import { pairs, percent, plural, writeJson, writeLine } from './output.js';
import { Progress } from './progress.js';

interface PredictOptions extends ModelOptions {
  readonly output?: string;
  readonly topK: number;
  readonly batch: number;
}

/** One line of work: a picture, or a row of an .npy batch. */
interface Item {
  readonly input: string;
  readonly row?: number;
}

interface Top {
  readonly index: number;
  readonly label: string;
  readonly score: number;
}

type Result = Item & ({ readonly top: readonly Top[] } | { readonly error: { readonly code: string; readonly message: string } });

/** Pictures of one batch: `items[i]` is row i of `data`, or failed. */
interface Decoded {
  readonly items: readonly Item[];
  readonly data: Float32Array;
  readonly errors: ReadonlyMap<number, unknown>;
}

const DECODERS = 4;

export function addPredict(program: Command, env: Environment): void {
  const command = program
    .command('predict')
    .description('pictures to labels; or an .npy batch to raw logits')
    .argument('<model>', 'checkpoint or quantized file')
    .argument('<inputs...>', 'pictures, or .npy batches [N,3,H,W], already normalised')
    .option('--output <file.npy>', 'write the logits of one input as float32 [N, classes] instead of printing labels')
    .option('--top-k <k>', 'labels per picture', integer('--top-k', 1), 5)
    .option('--batch <n>', 'pictures per batch', integer('--batch', 1, 4096), 16);
  addOutputOptions(addPrecisionOption(addModelOptions(command)));
  command
    .addHelpText('after', `
A picture that cannot be read is reported, the others are still done, and the exit status is 1.

Examples:
  ptq4vm predict vim.w8a8.safetensors cat.jpg dog.png
  ptq4vm predict vim_t.pth --model vim-tiny --class-names imagenet.txt --json photos/*.jpg
  ptq4vm predict vim.w8a8.safetensors images.npy --output logits.npy`)
    .action((file: string, inputs: string[], options: PredictOptions) => run(file, inputs, options, env));
}

async function run(file: string, inputs: readonly string[], options: PredictOptions, env: Environment): Promise<void> {
  if (options.output !== undefined) {
    if (inputs.length !== 1) throw new UsageError(`--output takes one input but received ${inputs.length}`);
    if (!isNpy(options.output)) throw new UsageError(`Expected a name that ends in .npy for --output but received '${options.output}'`);
    checkOutput(options.output, [file, options.config, options.classNames, ...inputs]);
  }
  const api = await env.api();
  const progress = await Progress.start(env, options.quiet === true);
  let model: Model | undefined;
  try {
    model = await api.load(file, await loadOptions(options, env, progress));
    for (const warning of model.warnings) progress.note(warning);
    if (options.output !== undefined) await writeLogits(model, inputs[0]!, options.output, options, env, progress);
    else await printLabels(model, inputs, options, env, progress);
  } finally {
    progress.stop();
    await model?.dispose();
  }
}

async function printLabels(model: Model, inputs: readonly string[], options: PredictOptions, env: Environment, progress: Progress): Promise<void> {
  const results: Result[] = [];
  for (const group of groups(inputs)) {
    try {
      for await (const batch of decodedBatches(model, group, options.batch, env)) {
        for (const result of await classify(model, batch, options.topK, env)) {
          results.push(result);
          if (!options.json) print(result, env, progress);
        }
        progress.onProgress({ stage: 'predict', done: results.length, total: Math.max(results.length, inputs.length) });
      }
    } catch (error) {
      // A picture fails by itself (see classify); an .npy file that cannot be read fails as a whole.
      if (!('npy' in group) || env.signal.aborted || !(error instanceof Ptq4vmError)) throw error;
      results.push(failure({ input: group.npy }, error));
      if (!options.json) print(results.at(-1)!, env, progress);
    }
  }
  progress.stop();
  if (options.json) writeJson(env.stdout, { results });
  const failed = results.filter((r) => 'error' in r).length;
  if (failed > 0) throw new PartialFailure(`${failed} of ${plural(results.length, 'input')} failed`);
}

async function writeLogits(
  model: Model,
  input: string,
  output: string,
  options: PredictOptions,
  env: Environment,
  progress: Progress,
): Promise<void> {
  const parts: Float32Array[] = [];
  let rows = 0;
  for await (const { items, data, errors } of decodedBatches(model, groups([input])[0]!, options.batch, env)) {
    for (const error of errors.values()) throw error;
    const logits = await model.forward({ dims: [items.length, ...model.inputShape], data }, { signal: env.signal });
    parts.push(logits.data);
    rows += items.length;
    progress.onProgress({ stage: 'predict', done: rows, total: rows });
  }
  const data = new Float32Array(rows * model.classes);
  let at = 0;
  for (const part of parts) {
    data.set(part, at);
    at += part.length;
  }
  await writeNpy(output, { dims: [rows, model.classes], data }, { signal: env.signal });
  progress.stop();
  if (options.json) writeJson(env.stdout, { results: [{ input, output, shape: [rows, model.classes] }] });
  else writeLine(env.stdout, `wrote logits ${rows}×${model.classes} of ${input} to ${output}`);
}

type Group = { readonly npy: string } | { readonly pictures: readonly string[] };

/** Neighbouring pictures run together; an .npy batch stands by itself. The order of results is that of the inputs. */
function groups(inputs: readonly string[]): Group[] {
  const out: Group[] = [];
  for (const input of inputs) {
    const last = out.at(-1);
    if (isNpy(input)) out.push({ npy: input });
    else if (last !== undefined && 'pictures' in last) out[out.length - 1] = { pictures: [...last.pictures, input] };
    else out.push({ pictures: [input] });
  }
  return out;
}

/** The next batch is decoded while one is inferred. */
async function* decodedBatches(model: Model, group: Group, size: number, env: Environment): AsyncGenerator<Decoded> {
  const { signal } = env;
  if ('npy' in group) {
    const dataset = await (await env.api()).npyBatch(group.npy);
    for await (const { images, n, first } of dataset.batches({ size, preprocess: model.preprocess, signal })) {
      yield { items: Array.from({ length: n }, (_, i) => ({ input: group.npy, row: first + i })), data: images, errors: new Map() };
    }
    return;
  }
  const pixels = elementCount(model.inputShape);
  const { pictures } = group;
  const make = async (k: number, stop: AbortSignal): Promise<Decoded> => {
    const items = pictures.slice(k * size, (k + 1) * size).map((input) => ({ input }));
    const data = new Float32Array(items.length * pixels);
    const errors = new Map<number, unknown>();
    await forEachBounded(items.length, DECODERS, async (i) => {
      try {
        data.set(await decodeImage(items[i]!.input, model.preprocess), i * pixels);
      } catch (error) {
        if (!(error instanceof Ptq4vmError)) throw error;
        errors.set(i, error);
      }
    }, stop);
    return { items, data, errors };
  };
  yield* prefetched(Math.ceil(pictures.length / size), make, signal);
}

/** Infers the pictures that were decoded; failures keep their place in the results. */
async function classify(model: Model, { items, data, errors }: Decoded, topK: number, env: Environment): Promise<Result[]> {
  const pixels = elementCount(model.inputShape);
  const good = items.map((_, i) => i).filter((i) => !errors.has(i));
  let images = data;
  if (good.length < items.length) {
    images = new Float32Array(good.length * pixels);
    for (const [at, i] of good.entries()) images.set(data.subarray(i * pixels, (i + 1) * pixels), at * pixels);
  }
  const { classes } = model;
  const logits = good.length === 0 ? undefined : await model.forward({ dims: [good.length, ...model.inputShape], data: images }, { signal: env.signal });
  return items.map((item, i) => {
    const at = good.indexOf(i);
    if (at < 0) return failure(item, errors.get(i));
    const row = logits!.data.subarray(at * classes, (at + 1) * classes);
    if (!row.every(Number.isFinite)) return failure(item, new Ptq4vmError('ERR_DATA', `The model's logits for ${nameOf(item)} are not finite`));
    return { ...item, top: topPredictions(row, topK, model.labels) };
  });
}

function failure(item: Item, error: unknown): Result {
  return { ...item, error: { code: error instanceof Ptq4vmError ? error.code : 'ERR_DATA', message: describeError(error) } };
}

function nameOf({ input, row }: Item): string {
  return row === undefined ? input : `${input}[${row}]`;
}

function print(result: Result, env: Environment, progress: Progress): void {
  progress.stop();
  if ('error' in result) {
    writeLine(env.stderr, `ptq4vm: ${result.error.message}`);
    return;
  }
  const rows = result.top.map(({ label, score }) => [percent(score).padStart(8), label] as const);
  writeLine(env.stdout, `${nameOf(result)}\n${pairs(rows, '  ')}`);
}
