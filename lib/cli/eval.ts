/** `ptq4vm eval`: accuracy, speed, and fidelity to a reference model. */
import type { Command } from 'commander';
import type { EvaluateReport } from '../evaluate.js';
import type { Model } from '../model.js';
import { type Api, type Environment, UsageError } from './environment.js';
import { openData } from './files.js';
import { type ModelOptions, addModelOptions, addOutputOptions, addPrecisionOption, integer, loadOptions } from './options.js';
import { number, pairs, percent, plural, writeJson, writeLine } from './output.js';
import { Progress } from './progress.js';

interface EvalOptions extends ModelOptions {
  readonly data: string;
  readonly labels?: string;
  readonly reference?: string;
  readonly batch: number;
}

export function addEval(program: Command, env: Environment): void {
  const command = program
    .command('eval')
    .description('top-1, top-5 and images per second; against a reference also agreement and logit error')
    .argument('<model>', 'checkpoint or quantized file')
    .requiredOption('--data <dir|npy>', 'folder of pictures (a subfolder is a class), or .npy [N,3,H,W], already normalised')
    .option('--labels <file.npy>', 'class indices [N] for an .npy batch')
    .option('--reference <file>', 'model to compare with, usually the float checkpoint')
    .option('--batch <n>', 'images per batch', integer('--batch', 1, 4096), 32);
  addOutputOptions(addPrecisionOption(addModelOptions(command)));
  command
    .addHelpText('after', `
--config, --model and --class-names apply to the model and to the reference; a quantized file carries its own
configuration and takes only the class names. Images per second count the model alone, not decoding.

Examples:
  ptq4vm eval vim.pth --config vim.json --data val/
  ptq4vm eval vim.w4a8.safetensors --data val/ --reference vim.pth --config vim.json
  ptq4vm eval vim.w8a8.safetensors --data images.npy --labels labels.npy --json`)
    .action((file: string, options: EvalOptions) => run(file, options, env));
}

async function run(file: string, options: EvalOptions, env: Environment): Promise<void> {
  const api = await env.api();
  const progress = await Progress.start(env, options.quiet === true);
  let model: Model | undefined;
  let reference: Model | undefined;
  try {
    const data = await openData(api, options.data, progress, options.labels);
    if (data.labels === undefined && options.reference === undefined) {
      throw new UsageError(`${options.data} has no labels: give --labels FILE.npy (for an .npy batch), class folders, or a --reference to compare with`);
    }
    const described = await describedFiles(api, file, options);
    model = await api.load(file, await loadOptions(options, env, progress, described.model));
    if (options.reference !== undefined) {
      const own = await loadOptions({ ...options, precision: undefined }, env, progress, described.reference);
      reference = await api.load(options.reference, own);
    }
    for (const warning of new Set([...model.warnings, ...(reference?.warnings ?? [])])) progress.note(warning);
    const report = await model.evaluate(data, { batchSize: options.batch, reference, signal: env.signal, onProgress: progress.onProgress });
    progress.stop();
    if (options.json) writeJson(env.stdout, report);
    else writeLine(env.stdout, show(report, model, options));
  } finally {
    progress.stop();
    await model?.dispose();
    await reference?.dispose();
  }
}

/**
 * Which of the two files --config and --model describe: those that are not quantized. When that is none, the model is
 * given them all the same and refuses them in its own words.
 */
async function describedFiles(api: Api, file: string, options: EvalOptions): Promise<{ model: boolean; reference: boolean }> {
  if (options.config === undefined && options.model === undefined) return { model: true, reference: true };
  const reference = options.reference !== undefined && !(await api.isQuantizedFile(options.reference));
  return { model: !reference || !(await api.isQuantizedFile(file)), reference };
}

function show(report: EvaluateReport, model: Model, options: EvalOptions): string {
  const { images, top1, top5, imagesPerSecond, reference } = report;
  const { device } = model;
  const lines = pairs([
    ['images', String(images)],
    ['top-1', top1 === undefined ? undefined : percent(top1)],
    ['top-5', top5 === undefined ? undefined : percent(top5)],
    ['images/s', `${number(imagesPerSecond)}  (${model.precision} on ${device.kind}, ${device.isa}, ${plural(device.threads, 'thread')}, batches of ${options.batch})`],
  ]);
  if (reference === undefined) return lines;
  return `${lines}\n\nagainst ${options.reference}\n${pairs([
    ['top-1 of the reference', reference.top1 === undefined ? undefined : percent(reference.top1)],
    ['same class named', percent(reference.agreement)],
    ['KL divergence', `${number(reference.kl)} nats`],
    ['relative logit error', number(reference.logitError)],
  ], '  ')}`;
}
