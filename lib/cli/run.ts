/** The command line as a function: arguments and an environment in, an exit status out. */
import { Command, CommanderError } from 'commander';
import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { addDoctor } from './doctor.js';
import { type Environment, Interrupted, PartialFailure, UsageError, describeError } from './environment.js';
import { addEval } from './eval.js';
import { addInspect } from './inspect.js';
import { addPredict } from './predict.js';
import { addQuantize } from './quantize.js';

/**
 * Runs one command. Never throws; errors are said on `env.stderr`.
 *
 * @param args without the interpreter and the script
 * @returns 0 done, 1 failed, 2 wrongly called, 130 or 143 interrupted
 */
export async function runCommand(args: readonly string[], env: Environment): Promise<number> {
  const program = buildProgram(env);
  try {
    if (args.length === 0) {
      program.outputHelp({ error: true });
      return 2;
    }
    await program.parseAsync([...args], { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, args, env);
  }
}

function report(error: unknown, args: readonly string[], env: Environment): number {
  // Commander has printed its own message by now.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  const { reason } = env.signal;
  if (env.signal.aborted) {
    env.stderr.write('ptq4vm: interrupted\n');
    return reason instanceof Interrupted ? reason.exitCode : 1;
  }
  if (error instanceof PartialFailure) {
    env.stderr.write(`ptq4vm: ${error.message}\n`);
    return 1;
  }
  env.stderr.write(`ptq4vm: ${describeError(error)}\n`);
  if (error instanceof UsageError) return 2;
  if (args.includes('--verbose') || process.env.DEBUG) {
    for (let e: unknown = error; e instanceof Error; e = e.cause) env.stderr.write(`${e === error ? '' : 'caused by '}${e.stack ?? e.message}\n`);
  }
  return 1;
}

function buildProgram(env: Environment): Command {
  const version = packageVersion();
  const program = new Command('ptq4vm')
    .description('Quantize Visual Mamba models after training (PTQ4VM) and run them in integers.')
    .version(version, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .showSuggestionAfterError(true)
    .exitOverride()
    .configureHelp({ sortSubcommands: false, showGlobalOptions: false })
    .configureOutput({
      writeOut: (text) => void env.stdout.write(text),
      writeErr: (text) => void env.stderr.write(text),
      outputError: (text, write) => write(text.replace(/^error: /, 'ptq4vm: ')),
    })
    .addHelpText('after', `
Results go to stdout, progress and errors to stderr. Exit status: 0 done, 1 failed, 2 wrongly called.

Examples:
  ptq4vm doctor
  ptq4vm quantize vim.pth --config vim.json --calibration calib/ --weights 8 --activations 8 --output vim.w8a8.safetensors
  ptq4vm eval vim.w8a8.safetensors --data val/
  ptq4vm predict vim.w8a8.safetensors cat.jpg`);
  addDoctor(program, env, version);
  addInspect(program, env);
  addPredict(program, env);
  addQuantize(program, env);
  addEval(program, env);
  return program;
}

function packageVersion(): string {
  // Two levels up both from lib/cli and from dist/cli.
  const text = readFileSync(path.join(__dirname, '..', '..', 'package.json'), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
