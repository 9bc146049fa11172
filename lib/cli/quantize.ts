/** `ptq4vm quantize`: checkpoint and calibration pictures in, one quantized file out. */
import type { Command } from 'commander';
import { statSync } from 'node:fs';
import * as path from 'node:path';
import type { Dataset } from '../data/dataset.js';
import type { Model } from '../model.js';
import { METHODS } from '../ptq/recipe.js';
import { type Environment, UsageError } from './environment.js';
import { checkOutput, isNpy, openData } from './files.js';
import { type ModelOptions, addModelOptions, addOutputOptions, choice, fraction, integer, loadOptions } from './options.js';
import { megabytes, pairs, percent, plural, writeJson, writeLine } from './output.js';
import { Progress } from './progress.js';

interface QuantizeCliOptions extends ModelOptions {
  readonly calibration: string;
  readonly weights: number;
  readonly activations: number;
  readonly output: string;
  readonly method: string;
  readonly grid?: boolean;
  readonly alpha?: number;
  readonly samples: number;
  readonly seed: number;
}

/** What the summary says, and `--json` prints. */
interface Summary {
  readonly output: string;
  readonly bytes: number;
  readonly inputBytes: number;
  readonly layers: number;
  readonly weights: number;
  readonly activations: number;
  readonly method: string;
  readonly calibrationImages: number;
  readonly seconds: number;
  readonly recipe: Readonly<Record<string, unknown>>;
  readonly warnings: readonly string[];
}

const NO_JLSS = '--method ptq4vm equals pts+smooth in this version: joint learning of the scales (JLSS) is not part of it yet';

export function addQuantize(program: Command, env: Environment): void {
  const bits = (name: string) => (text: string) => {
    if (!['8', '6', '4'].includes(text)) throw new UsageError(`Expected 8, 6 or 4 for ${name} but received '${text}'`);
    return Number(text);
  };
  const onOff = (text: string): boolean => choice('--grid', ['on', 'off'])(text) === 'on';
  const command = program
    .command('quantize')
    .description('quantize a float checkpoint after training (PTQ4VM) and write one file')
    .argument('<model>', 'float checkpoint: .pth or .safetensors')
    .requiredOption('--calibration <dir|npy>', 'pictures to calibrate on; their classes do not matter')
    .requiredOption('--weights <bits>', 'bits of the weights: 8, 6 or 4', bits('--weights'))
    .requiredOption('--activations <bits>', 'bits of the activations: 8, 6 or 4', bits('--activations'))
    .requiredOption('--output <file>', 'quantized file to write (.safetensors)')
    .option('--method <method>', METHODS.join(', '), choice('--method', METHODS), 'ptq4vm')
    .option('--grid <on|off>', 'search the steps (default: off for minmax and smoothquant, else on)', onOff)
    .option('--alpha <a>', 'smoothing exponent, 0…1 (default 0.5)', fraction('--alpha'))
    .option('--samples <n>', 'calibration pictures at most, spread evenly', integer('--samples', 1), 256)
    .option('--seed <n>', 'seed of everything random', integer('--seed', 0), 0);
  addOutputOptions(addModelOptions(command));
  command
    .addHelpText('after', `
Methods, each adding to the one before: minmax (plain ranges, one step per tensor), smoothquant (+ smoothing),
pts (one step per token position, searched), pts+smooth, ptq4vm.

Examples:
  ptq4vm quantize vim.pth --config vim.json --calibration calib/ --weights 8 --activations 8 --output vim.w8a8.safetensors
  ptq4vm quantize vim_t.pth --model vim-tiny --calibration images.npy --weights 4 --activations 8 --samples 128 --output vim_t.w4a8.safetensors`)
    .action((file: string, options: QuantizeCliOptions) => run(file, options, env));
}

async function run(file: string, options: QuantizeCliOptions, env: Environment): Promise<void> {
  checkOutput(options.output, [file, options.config, options.classNames, isNpy(options.calibration) ? options.calibration : undefined]);
  const api = await env.api();
  const progress = await Progress.start(env, options.quiet === true);
  const begin = performance.now();
  let model: Model | undefined;
  let quantized: Model | undefined;
  try {
    const calibration = await openData(api, options.calibration, progress);
    model = await api.load(file, await loadOptions(options, env, progress));
    const warnings = [...model.warnings, ...(options.method === 'ptq4vm' ? [NO_JLSS] : [])];
    for (const warning of warnings) progress.note(warning);
    const { weights, activations, method, grid, alpha, samples, seed } = options;
    quantized = await api.quantize(model, {
      weights, activations, method, samples, seed, calibration,
      ...(grid === undefined ? {} : { grid }),
      ...(alpha === undefined ? {} : { alpha }),
      signal: env.signal,
      onProgress: progress.onProgress,
    });
    await quantized.save(options.output, { signal: env.signal });
    progress.stop();
    const seconds = (performance.now() - begin) / 1000;
    report(env, options, summarize(file, options, quantized, calibration, seconds, warnings), calibration);
  } finally {
    progress.stop();
    await quantized?.dispose();
    await model?.dispose();
  }
}

function summarize(
  file: string,
  options: QuantizeCliOptions,
  quantized: Model,
  calibration: Dataset,
  seconds: number,
  warnings: readonly string[],
): Summary {
  const { recipe, layers } = quantized.quantization!;
  return {
    output: options.output,
    bytes: statSync(options.output).size,
    inputBytes: statSync(file).size,
    layers: layers.size,
    weights: options.weights,
    activations: options.activations,
    method: options.method,
    calibrationImages: Math.min(calibration.length, options.samples),
    seconds: Number(seconds.toFixed(3)),
    recipe,
    warnings,
  };
}

function report(env: Environment, options: QuantizeCliOptions, summary: Summary, calibration: Dataset): void {
  if (options.json) {
    writeJson(env.stdout, summary);
    return;
  }
  const { recipe, bytes, inputBytes } = summary;
  const choices = [
    recipe.perToken ? 'a step per token position' : 'a step per tensor',
    recipe.smooth ? `smoothing α ${recipe.alpha}` : 'no smoothing',
    recipe.grid ? 'grid search' : 'plain ranges',
  ];
  writeLine(env.stdout, pairs([
    ['wrote', path.normalize(summary.output)],
    ['layers', `${plural(summary.layers, 'linear')}, weights ${summary.weights} bits, activations ${summary.activations} bits`],
    ['method', `${summary.method} (${choices.join(', ')})`],
    ['calibrated on', `${summary.calibrationImages} of ${plural(calibration.length, 'picture')} in ${options.calibration}`],
    ['size', `${megabytes(inputBytes)} → ${megabytes(bytes)} (${percent(bytes / inputBytes, 0)})`],
    ['time', `${summary.seconds.toFixed(1)} s`],
  ]));
}
