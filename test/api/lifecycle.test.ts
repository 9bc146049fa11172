/** A model's life at its edges: odd arguments, disposal, aborts in the queue, worker threads, memory. Small random models. */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { load, Model, quantize } from '../../lib/model.js';
import { expectFailure, scratchFolder } from '../io/support.js';
import { memoryDataset, type RandomVim, randomPictures, randomVim, writeVim } from '../models/random-vim.js';
import { SEED } from '../ops/random.js';

const SIZE = 16;
const PIXELS = 3 * SIZE * SIZE;
const PREPROCESS = { size: SIZE, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] };

async function argumentError(work: Promise<unknown> | (() => unknown), kind: typeof TypeError | typeof RangeError, message: RegExp): Promise<void> {
  let error: unknown;
  try {
    await (typeof work === 'function' ? work() : work);
  } catch (e) {
    error = e;
  }
  expect(error, 'it should have failed').to.be.instanceOf(kind);
  expect((error as Error).message).to.match(message);
}

describe('Model: a life', () => {
  const folder = scratchFolder();
  let vim: RandomVim;
  let file: string;
  let config: Record<string, unknown>;
  let pictures: Float32Array;
  let float: Model;
  const batch = (n: number, from = 0) => ({ dims: [n, 3, SIZE, SIZE], data: pictures.slice(from * PIXELS, (from + n) * PIXELS) });
  const fresh = (options = {}) => load(file, { config, ...options });

  before(async () => {
    vim = randomVim({ imageSize: SIZE, dim: 24, depth: 2, classes: 7 }, 'lifecycle');
    file = await writeVim(path.join(folder(), 'vim.safetensors'), vim.weights);
    config = { ...vim.config, preprocess: PREPROCESS };
    pictures = randomPictures(vim, 16, 'lifecycle pictures');
    float = await fresh();
  });
  after(() => float.dispose());

  describe('arguments', () => {
    it('of load', async () => {
      const cases: readonly [unknown, typeof TypeError | typeof RangeError, RegExp][] = [
        [null, TypeError, /^Expected an object for options but received null/],
        ['vim-tiny', TypeError, /^Expected an object for options but received 'vim-tiny'/],
        [{ threads: 1.5 }, RangeError, /^Expected an integer from 0 to 256 for threads but received 1.5/],
        [{ threads: -1 }, RangeError, /for threads but received -1/],
        [{ threads: Number.NaN }, RangeError, /for threads but received NaN/],
        [{ threads: 257 }, RangeError, /for threads but received 257/],
        [{ threads: '2' }, TypeError, /^Expected a number for threads but received '2'/],
        [{ labels: 'abc' }, TypeError, /^Expected an array of strings for labels/],
        [{ labels: [1, 2, 3, 4, 5, 6, 7] }, TypeError, /^Expected an array of strings for labels/],
        [{ device: 'CPU' }, RangeError, /for device but received 'CPU'/],
        [{ precision: 'int8' }, RangeError, /^Expected one of fp32, bf16, fp16, int, fake for precision but received 'int8'/],
      ];
      for (const [options, kind, message] of cases) {
        const given = typeof options === 'object' && options !== null ? { config, ...options } : options;
        await argumentError(load(file, given as never), kind, message);
      }
      for (const precision of ['bf16', 'fp16', 'int', 'fake'] as const) {
        await expectFailure(load(file, { config, precision }), 'ERR_UNSUPPORTED', new RegExp(`'${precision}' is not available for a float model.*fp32`));
      }
    });

    it('bad options are found before the file is read', async () => {
      await argumentError(load(path.join(folder(), 'none.pth'), { threads: 1.5 }), RangeError, /threads/);
      await expectFailure(load(path.join(folder(), 'none.pth'), { device: 'cuda' }), 'ERR_DEVICE', "device 'cuda' cannot be used: ");
    });

    it('of plan, with, evaluate, quantize', async () => {
      for (const bad of [0, -1, 1.5, Number.NaN, '2', null]) await argumentError(() => float.plan(bad as never), RangeError, /^Expected a positive integer for batch/);
      await argumentError(() => float.with({ threads: 0.5 }), RangeError, /threads/);
      await expectFailure((async () => float.with({ precision: 'int' }))(), 'ERR_UNSUPPORTED', /'int'.*float/);
      await argumentError(float.evaluate(null as never), TypeError, /^Expected a dataset .* for dataset but received null/);
      await argumentError(async () => quantize({} as never, {} as never), TypeError, /^Expected a Model for model/);
      await argumentError(quantize(float, undefined as never), TypeError, /^Expected an object for options but received undefined/);
    });

    it('predict on a model that is not of colour pictures', async () => {
      const grey = randomVim({ channels: 1, imageSize: SIZE, depth: 1 }, 'grey');
      const model = await load(await writeVim(path.join(folder(), 'grey.safetensors'), grey.weights), { config: { ...grey.config, preprocess: PREPROCESS } });
      const raw = { data: new Uint8Array(PIXELS), width: SIZE, height: SIZE, channels: 3 as const };
      await expectFailure(model.predict(raw), 'ERR_UNSUPPORTED', /3 colour channels, this model takes 1/);
      expect((await model.forward({ dims: [1, 1, SIZE, SIZE], data: new Float32Array(SIZE * SIZE) })).dims).to.deep.equal([1, 6]);
      await model.dispose();
    });

    it('forward takes shared memory and frozen dims, and does not look at dims again', async () => {
      const wanted = await float.forward(batch(2));
      const data = new Float32Array(new SharedArrayBuffer(2 * PIXELS * 4));
      data.set(batch(2).data);
      const dims = [2, 3, SIZE, SIZE];
      const running = float.forward({ dims, data });
      dims[0] = 1;
      data.fill(Number.NaN);
      expect(await running).to.deep.equal(wanted);
      expect(await float.forward({ ...batch(2), dims: Object.freeze([2, 3, SIZE, SIZE]) })).to.deep.equal(wanted);
    });

    it('a view into a larger buffer is read where it lies', async () => {
      const wanted = await float.forward(batch(1, 3));
      expect(await float.forward({ dims: [1, 3, SIZE, SIZE], data: pictures.subarray(3 * PIXELS, 4 * PIXELS) })).to.deep.equal(wanted);
    });
  });

  describe('disposal', () => {
    it('afterwards every call fails with ERR_DISPOSED, dispose itself does not', async () => {
      const model = await fresh();
      const q = await quantize(model, { weights: 8, activations: 8, calibration: memoryDataset(pictures, 16) });
      const reference = await q.forward(batch(2));
      await model.dispose();
      const raw = { data: new Uint8Array(PIXELS), width: SIZE, height: SIZE, channels: 3 as const };
      const calls: readonly (() => unknown)[] = [
        () => model.forward(batch(1)), () => model.forward({ dims: [0, 3, SIZE, SIZE], data: new Float32Array(0) }), () => model.predict(raw), () => model.predict([]),
        () => model.plan(), () => model.with({ threads: 1 }), () => model.save(path.join(folder(), 'x')), () => model.evaluate(memoryDataset(pictures, 16)),
        () => quantize(model, { weights: 8, activations: 8, calibration: memoryDataset(pictures, 16) }),
      ];
      for (const call of calls) await expectFailure((async () => call())(), 'ERR_DISPOSED', 'disposed');
      await model.dispose();
      await Promise.all([model.dispose(), model[Symbol.asyncDispose]()]);
      // What came of it has its own memory.
      expect(await q.forward(batch(2))).to.deep.equal(reference);
      await q.dispose();
    });

    it('calls before it are answered, calls after it are not, though both wait in the queue', async () => {
      const model = await fresh({ threads: 1 });
      const wanted = await model.forward(batch(8));
      const before = [model.forward(batch(8)), model.forward(batch(8)), model.forward(batch(8))];
      const disposing = model.dispose();
      const after = expectFailure(model.forward(batch(8)), 'ERR_DISPOSED', 'disposed');
      for (const run of before) expect(await run).to.deep.equal(wanted);
      await Promise.all([disposing, after]);
    });

    it('disposing does not touch the model that `with` came from, nor the other way round', async () => {
      const model = await fresh();
      const [one, two] = [model.with({ threads: 1 }), model.with({ threads: 2 })];
      expect([one.device.threads, two.device.threads]).to.deep.equal([1, 2]);
      const wanted = await model.forward(batch(3));
      await model.dispose();
      expect(await one.forward(batch(3))).to.deep.equal(wanted);
      await one.dispose();
      expect(await two.forward(batch(3))).to.deep.equal(wanted);
      await two.dispose();
    });

    it('a run that fails or is aborted does not hold up dispose', async () => {
      const model = await fresh();
      const bad = batch(1);
      bad.data[0] = Number.NaN;
      const controller = new AbortController();
      const runs = [model.forward(bad), model.forward(batch(16), { signal: controller.signal })].map((r) => r.catch((e: unknown) => e));
      const disposing = model.dispose();
      controller.abort(new Error('no more'));
      expect((await runs[0]) as Error).to.have.property('code', 'ERR_DATA');
      expect((await runs[1]) as Error).to.have.property('message', 'no more');
      await disposing;
    });
  });

  describe('the queue', () => {
    it('a failing call among others: the rest get their own results', async () => {
      const wanted = await Promise.all([...Array(16).keys()].map(async (i) => (await float.forward(batch(1, i))).data));
      const results = await Promise.allSettled([...Array(16).keys()].map((i) => {
        const images = batch(1, i);
        if (i % 3 === 1) images.data[i] = Number.POSITIVE_INFINITY;
        return float.forward(images, i % 5 === 4 ? { signal: AbortSignal.abort(new Error(`call ${i}`)) } : {});
      }));
      results.forEach((result, i) => {
        if (i % 5 === 4) expect(result).to.have.nested.property('reason.message', `call ${i}`);
        else if (i % 3 === 1) expect(result).to.have.nested.property('reason.code', 'ERR_DATA');
        else expect((result as PromiseFulfilledResult<{ data: Float32Array }>).value.data, `call ${i}`).to.deep.equal(wanted[i]);
      });
    });

    it('one signal for many calls: no listener stays behind and no warning comes', async () => {
      const { signal } = new AbortController();
      let listeners = 0;
      const add = signal.addEventListener.bind(signal);
      const remove = signal.removeEventListener.bind(signal);
      signal.addEventListener = ((...a: Parameters<typeof add>) => (listeners++, add(...a))) as typeof add;
      signal.removeEventListener = ((...a: Parameters<typeof remove>) => (listeners--, remove(...a))) as typeof remove;
      const warnings: Error[] = [];
      const onWarning = (w: Error) => warnings.push(w);
      process.on('warning', onWarning);
      await Promise.all(Array.from({ length: 40 }, () => float.forward(batch(1), { signal })));
      await new Promise((resolve) => setImmediate(resolve));
      process.off('warning', onWarning);
      expect(listeners).to.equal(0);
      expect(warnings).to.deep.equal([]);
    });

    it('a rejected call that nobody awaits in time is the caller’s own, not a second one of ours', async () => {
      const unhandled: unknown[] = [];
      const note = (reason: unknown) => unhandled.push(reason);
      process.on('unhandledRejection', note);
      const bad = batch(1);
      bad.data.fill(Number.NaN);
      await float.forward(bad).catch(() => undefined);
      await float.forward(batch(1), { signal: AbortSignal.abort() }).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 20));
      process.off('unhandledRejection', note);
      expect(unhandled).to.deep.equal([]);
    });
  });

  it('evaluate: counts, and agrees with itself as reference', async () => {
    const labels = Int32Array.from({ length: 16 }, (_, i) => i % 7);
    const dataset = { ...memoryDataset(pictures, 16), labels };
    const report = await float.evaluate(dataset, { batchSize: 5, reference: float });
    const logits = (await float.forward(batch(16))).data;
    let right = 0;
    labels.forEach((label, i) => {
      const row = [...logits.subarray(i * 7, i * 7 + 7)];
      if (row.indexOf(Math.max(...row)) === label) right++;
    });
    expect(report).to.deep.include({ images: 16, top1: right / 16, reference: { top1: right / 16, agreement: 1, kl: 0, logitError: 0 } });
    expect(report.top5).to.be.at.least(report.top1!);
    await expectFailure(float.evaluate({ ...dataset, labels: labels.map((l) => l + 1) }), 'ERR_DATA', /label 7.*7 classes/);
    const reason = new Error('stop');
    expect(await float.evaluate(dataset, { signal: AbortSignal.abort(reason) }).catch((e: unknown) => e)).to.equal(reason);
  });

  it('load: progress counts the tensors, an abort between two of them stops it, a throwing listener fails it', async () => {
    const seen: number[] = [];
    const model = await fresh({ onProgress: ({ stage, done, total }: { stage: string; done: number; total: number }) => stage === 'read' && seen.push(done / total) });
    expect(seen).to.have.length(vim.weights.size);
    expect(seen).to.deep.equal([...seen].sort((a, b) => a - b));
    expect(seen.at(-1)).to.equal(1);
    await model.dispose();
    const controller = new AbortController();
    const reason = new Error('enough');
    const aborted = fresh({ signal: controller.signal, onProgress: () => controller.abort(reason) });
    expect(await aborted.catch((e: unknown) => e)).to.equal(reason);
    const thrown = new Error('listener');
    expect(await fresh({ onProgress: () => { throw thrown; } }).catch((e: unknown) => e)).to.equal(thrown);
  });

  it('two worker threads load, quantize and run at once, with this thread, and end cleanly', async function () {
    this.timeout(30_000);
    const code = `
      const { workerData, parentPort } = require('node:worker_threads');
      require(workerData.tsx);
      const { load, quantize } = require(workerData.lib);
      (async () => {
        const model = await load(workerData.file, { config: workerData.config, threads: 2 });
        const calibration = { length: 4, name: 'worker', async *batches() { yield { images: workerData.pictures.slice(0, 4 * ${PIXELS}), n: 4, first: 0 }; } };
        const q = await quantize(model, { weights: 8, activations: 8, calibration });
        const images = { dims: [16, 3, ${SIZE}, ${SIZE}], data: workerData.pictures };
        let last;
        for (let i = 0; i < 20; i++) last = [await model.forward(images), await q.forward(images)];
        await model.dispose();
        if (workerData.tidy) await q.dispose(); // the other one is left to the end of its thread
        parentPort.postMessage(last.map((t) => t.data));
      })();`;
    const lib = path.resolve(__dirname, '../../lib/model.ts');
    const start = (tidy: boolean) => new Promise<Float32Array[]>((resolve, reject) => {
      let answer: Float32Array[];
      const worker = new Worker(code, { eval: true, execArgv: [], workerData: { tsx: require.resolve('tsx/cjs'), lib, file, config, pictures, tidy } });
      worker.on('message', (m) => (answer = m)).on('error', reject).on('exit', (status) => (status === 0 ? resolve(answer) : reject(new Error(`exit ${status}`))));
    });
    const both = Promise.all([start(true), start(false)]);
    both.catch(() => undefined); // reported where it is awaited
    const wanted = (await float.forward(batch(16))).data;
    for (let i = 0; i < 30; i++) expect((await float.forward(batch(16))).data).to.deep.equal(wanted);
    const [a, b] = await both;
    expect(a[0], `SEED=${SEED}`).to.deep.equal(wanted);
    expect(b[0]).to.deep.equal(wanted);
    expect(a[1], 'quantized alike').to.deep.equal(b[1]);
  });

  // In a process of its own that uses the package in workers alone: what fails here kills the process, without an
  // exception that anybody could catch. The addon's threads outlive a worker, so its code has to stay mapped as well.
  const WORKERS: Readonly<Record<string, string>> = {
    'is terminated in the middle of its work': `for (let i = 0; i < 50; i++) model.forward(images).catch(() => {}); parentPort.postMessage('terminate');`,
    'ends after disposing of its model': 'await model.forward(images); await model.dispose();',
    'ends without disposing of its model': 'await model.forward(images);',
  };
  for (const [what, work] of Object.entries(WORKERS)) {
    it(`a worker that ${what} does not take the process with it`, function () {
      this.timeout(30_000);
      const code = `
        const { Worker, isMainThread, parentPort } = require('node:worker_threads');
        const [tsx, lib, file, config] = JSON.parse(process.env.WORK);
        if (isMainThread) (async () => {
          for (let i = 0; i < 4; i++) {
            const worker = new Worker(__filename);
            worker.once('message', () => worker.terminate());
            await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
          }
          console.log('survived');
        })();
        else {
          require(tsx);
          require(lib).load(file, { config, threads: 2 }).then(async (model) => {
            const images = { dims: [512, 3, ${SIZE}, ${SIZE}], data: new Float32Array(512 * ${PIXELS}) };
            ${work}
          });
        }`;
      const script = path.join(folder(), 'workers.cjs');
      writeFileSync(script, code);
      const lib = path.resolve(__dirname, '../../lib/model.ts');
      const env = { ...process.env, NODE_OPTIONS: '', WORK: JSON.stringify([require.resolve('tsx/cjs'), lib, file, config]) };
      const { stdout, stderr, status, signal } = spawnSync(process.execPath, [script], { env, encoding: 'utf8' });
      expect({ stdout, stderr, status, signal }).to.deep.equal({ stdout: 'survived\n', stderr: '', status: 0, signal: null });
    });
  }

  it('memory: 200 inferences, 30 models and 10 quantizations come and go without growth', async function () {
    this.timeout(60_000);
    setFlagsFromString('--expose_gc');
    const gc = runInNewContext('gc') as () => void;
    const large = randomVim({ imageSize: 32, dim: 64, depth: 4 }, 'memory');
    const name = await writeVim(path.join(folder(), 'large.safetensors'), large.weights);
    const many = { dims: [16, 3, 32, 32], data: randomPictures(large, 16, 'memory pictures') };
    const round = async () => {
      const model = await load(name, { config: { ...large.config, preprocess: { ...PREPROCESS, size: 32 } } });
      for (let i = 0; i < 7; i++) await model.forward(many);
      await model.dispose();
    };
    const calibrated = async () => {
      const calibration = memoryDataset(pictures, 16);
      await (await quantize(float, { weights: 4, activations: 4, calibration, method: 'minmax' })).dispose();
    };
    const megabytes = async () => {
      for (let i = 0; i < 3; i++) {
        gc();
        await new Promise((resolve) => setImmediate(resolve));
      }
      return process.memoryUsage().rss / 2 ** 20;
    };
    for (let i = 0; i < 8; i++) await round();
    for (let i = 0; i < 3; i++) await calibrated();
    const before = await megabytes();
    for (let i = 0; i < 30; i++) await round();
    for (let i = 0; i < 10; i++) await calibrated();
    // One such model packs more than 1 MB of weights and its batch of 16 takes more than 2 MB.
    expect((await megabytes()) - before, 'MB').to.be.below(24);
  });
});
