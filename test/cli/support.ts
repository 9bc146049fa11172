/** The command line with streams that are read back, and a package API that is made up. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Writable } from 'node:stream';
import type { Api, Environment } from '../../lib/cli/environment.js';
import { runCommand } from '../../lib/cli/run.js';
import { imageFolder } from '../../lib/data/folder.js';
import { npyBatch } from '../../lib/data/npy-batch.js';
import { evaluate } from '../../lib/evaluate.js';
import type { Tensor } from '../../lib/tensor.js';

class Sink extends Writable {
  text = '';
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

export interface Answer {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Calls of the API: name and arguments. */
  readonly calls: readonly (readonly [string, ...unknown[]])[];
}

export const CLASSES = ['black', 'grey', 'white'];

/** Takes 2×2 pictures and names their brightness; forgets nothing of what it was asked. */
export function fakeModel(log: unknown[][], more: object = {}): object {
  return {
    family: 'vim', classes: 3, labels: CLASSES, inputShape: [3, 2, 2], preprocess: { size: 2, mean: [0, 0, 0], std: [1, 1, 1] },
    precision: 'fp32', device: { kind: 'cpu', reason: 'made up', isa: 'portable', threads: 1 }, warnings: [],
    async forward({ dims, data }: Tensor): Promise<Tensor> {
      log.push(['forward', dims]);
      const logits = new Float32Array(dims[0]! * 3);
      for (let i = 0; i < dims[0]!; i++) {
        const mean = data.subarray(i * 12, (i + 1) * 12).reduce((a, b) => a + b, 0) / 12;
        [0, 0.5, 1].forEach((level, c) => { logits[i * 3 + c] = -10 * Math.abs(mean - level); });
      }
      return { dims: [dims[0]!, 3], data: logits };
    },
    evaluate(dataset: never, options: never) {
      return evaluate(this as never, dataset, options);
    },
    async save(file: string) { log.push(['save', file]); },
    async dispose() { log.push(['dispose']); },
    ...more,
  };
}

export function fakeApi(log: unknown[][], more: object = {}): Api {
  const api = {
    async load(file: string, options: object) {
      log.push(['load', file, options]);
      return fakeModel(log);
    },
    async quantize(_model: unknown, options: object) {
      log.push(['quantize', options]);
      return fakeModel(log, {
        quantization: { recipe: { perToken: true, smooth: true, alpha: 0.5, grid: true }, layers: new Map([['layers.0.mixer.in_proj', {}]]) },
        async save(file: string) {
          log.push(['save', file]);
          (await import('node:fs')).writeFileSync(file, 'quantized');
        },
      });
    },
    async inspectFile(file: string, options: object) {
      log.push(['inspectFile', file, options]);
      return {
        format: 'ptq4vm', family: 'vim', config: { depth: 2 }, preprocess: { size: 2 }, parameters: 4, bytes: 16, assumed: [], extras: [],
        tensors: [{ name: 'head.weight', dtype: 'f32', shape: [2, 2], bytes: 16 }],
        layers: { 'layers.0.mixer.in_proj': { weightBits: 4, actBits: 8, len: 17, shape: [2, 2] } },
      };
    },
    backends() { throw new Error('not part of this test'); },
    isQuantizedFile: async (file: string) => file.includes('quantized'),
    imageFolder, npyBatch,
    ...more,
  };
  return api as unknown as Api;
}

/** Runs a command line in this process. `api`: what differs from the fake one. */
export async function cli(args: readonly string[], api: object = {}, env: Partial<Environment> = {}): Promise<Answer> {
  const stdout = new Sink();
  const stderr = new Sink();
  const calls: [string, ...unknown[]][] = [];
  const fake = fakeApi(calls, api);
  const status = await runCommand(args, { stdout, stderr, signal: new AbortController().signal, api: async () => fake, ...env });
  return { status, stdout: stdout.text, stderr: stderr.text, calls };
}

/** The last object given to API function `name`. */
export function given(answer: Answer, name: string): Record<string, unknown> {
  const call = answer.calls.findLast(([n]) => n === name);
  if (call === undefined) throw new Error(`${name} was not called; stderr: ${answer.stderr}`);
  return call.at(-1) as Record<string, unknown>;
}

export interface Shapes {
  readonly model: string;
  readonly config: string;
  readonly calib: string;
  readonly val: string;
}

/** The trained shapes model with its pictures, from demo/ or ../shared; skips the running test, saying so, without it. */
export function shapes(context: Mocha.Context): Shapes {
  const root = path.resolve(__dirname, '../..');
  const demo = path.join(root, 'demo', 'vim-shapes');
  const beside = path.join(root, '..', 'shared');
  const places: Shapes[] = [
    { model: path.join(demo, 'model.pth'), config: path.join(demo, 'config.json'), calib: path.join(demo, 'calib'), val: path.join(demo, 'val') },
    {
      model: path.join(beside, 'models/vim-shapes/model.pth'), config: path.join(beside, 'models/vim-shapes/config.json'),
      calib: path.join(beside, 'data/shapes/calib'), val: path.join(beside, 'data/shapes/val'),
    },
  ];
  const found = places.find((p) => existsSync(p.model) && existsSync(p.val));
  if (found === undefined) {
    console.warn('      SKIPPED: neither demo/vim-shapes nor ../shared is there');
    return context.skip() as never;
  }
  return found;
}
