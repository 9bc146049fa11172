/** `ptq4vm inspect`: what a model file is, without running it. */
import type { Command } from 'commander';
import { statSync } from 'node:fs';
import type { InspectReport } from '../inspect.js';
import { showShape } from '../tensor.js';
import type { Environment } from './environment.js';
import { type ModelOptions, addConfigOptions, addOutputOptions, readClassNames } from './options.js';
import { megabytes, pairs, plural, table, writeJson, writeLine } from './output.js';

interface InspectOptions extends ModelOptions {
  readonly tensors: boolean;
}

export function addInspect(program: Command, env: Environment): void {
  const command = program
    .command('inspect')
    .description('family, configuration, tensors and sizes; of a quantized file also recipe and bits per layer')
    .argument('<file>', '.pth, .safetensors or quantized file')
    .option('--no-tensors', 'leave out the list of tensors');
  addOutputOptions(addConfigOptions(command));
  command
    .addHelpText('after', `
Examples:
  ptq4vm inspect vim_t.pth
  ptq4vm inspect vim.w4a8.safetensors --json`)
    .action((file: string, options: InspectOptions) => run(file, options, env));
}

async function run(file: string, options: InspectOptions, env: Environment): Promise<void> {
  const api = await env.api();
  const labels = options.classNames === undefined ? undefined : await readClassNames(options.classNames);
  const report = await api.inspectFile(file, { config: options.config, model: options.model, ...(labels ? { labels } : {}) });
  if (options.json) {
    const { tensors, ...rest } = report;
    writeJson(env.stdout, options.tensors ? report : rest);
  } else {
    writeLine(env.stdout, show(file, report, options.tensors));
  }
}

function show(file: string, report: InspectReport, withTensors: boolean): string {
  const { format, family, config, preprocess, labels, tensors, parameters, bytes, layers, recipe, assumed, extras } = report;
  const sections = [
    pairs([
      ['file', `${file} (${megabytes(statSync(file).size)})`],
      ['format', format],
      ['family', family],
      ['parameters', `${(parameters / 1e6).toFixed(2)} M in ${plural(tensors.length, 'tensor')}, ${megabytes(bytes)}`],
      ['labels', labels && (labels.length > 10 ? `${labels.slice(0, 10).join(', ')}, … (${labels.length})` : labels.join(', '))],
      ['also holds', extras.length > 0 ? extras.join(', ') : undefined],
    ]),
    section('configuration', settings(config)),
    section('preprocessing', settings(preprocess as Record<string, unknown>)),
  ];
  if (assumed.length > 0) {
    sections.push(section('assumed (neither the file nor the options tell: give --config to be sure)', pairs(assumed.map((a) => [a.key, `${show1(a.value)}  ${a.why}`]), '  ')));
  }
  if (recipe !== undefined) sections.push(section('recipe', settings(recipe)));
  if (layers !== undefined) {
    const rows = Object.entries(layers).map(([name, l]) => [name, showShape(l.shape), `W${l.weightBits}A${l.actBits}`, String(l.len)]);
    sections.push(table(['quantized linear', 'out×in', 'bits', 'steps'], rows, [1, 2, 3]));
  }
  if (withTensors) {
    sections.push(table(['tensor', 'type', 'shape', 'bytes'], tensors.map((t) => [t.name, t.dtype, showShape(t.shape), String(t.bytes)]), [3]));
  }
  return sections.join('\n\n');
}

function section(title: string, body: string): string {
  return `${title}\n${body}`;
}

function settings(values: Readonly<Record<string, unknown>>): string {
  return pairs(Object.entries(values).filter(([, v]) => v !== undefined).map(([key, value]) => [key, show1(value)]), '  ');
}

function show1(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}
