/** The JavaScript API as an inference server uses it: concurrency, aborts, disposal, bad input. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { imageFolder } from '../../lib/data/folder.js';
import { Ptq4vmError } from '../../lib/errors.js';
import { load, type Model, quantize } from '../../lib/model.js';
import { readSome } from '../support/pictures.js';
import { maxDifference } from '../support/shared.js';

const DEMO = path.resolve(__dirname, '../../demo/vim-shapes');
const CHECKPOINT = path.join(DEMO, 'model.pth');
const CONFIG = path.join(DEMO, 'config.json');
const STAR = path.join(DEMO, 'val/star/0000.jpg');
const PIXELS = 3 * 64 * 64;

async function failure(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  const error = await promise.then(() => undefined, (e: unknown) => e);
  expect(error, 'it should have failed').to.be.instanceOf(Error);
  return error as Error & { code?: string };
}

describe('Model', function () {
  this.timeout(60_000);
  let model: Model;
  let pictures: Float32Array;
  const batch = (n: number) => ({ dims: [n, 3, 64, 64], data: pictures.slice(0, n * PIXELS) });

  before(async () => {
    model = await load(CHECKPOINT, { config: CONFIG });
    pictures = await readSome(path.join(DEMO, 'val'), model.preprocess, 8);
  });
  after(() => model.dispose());

  it('refuses what is not a batch of its pictures, in the voice of argument errors', async () => {
    const bad: [unknown, string, RegExp][] = [
      [null, 'TypeError', /Expected \{ dims, data \} for images/],
      [{ dims: [1, 3, 64, 64], data: [] }, 'TypeError', /a Float32Array for images.data/],
      [{ dims: [1, 3, 64, 64.5], data: new Float32Array(PIXELS) }, 'TypeError', /images.dims/],
      [{ dims: [2, 3, 64, 64], data: new Float32Array(PIXELS) }, 'RangeError', /24576 elements.*images.data/],
      [{ dims: [1, 3, 32, 32], data: new Float32Array(3 * 32 * 32) }, 'RangeError', /Expected \[N, 3, 64, 64\].*\[1, 3, 32, 32\]/],
      [{ dims: [3, 64, 64], data: new Float32Array(PIXELS) }, 'RangeError', /\[N, 3, 64, 64\]/],
    ];
    for (const [images, name, message] of bad) {
      const error = await failure(model.forward(images as never));
      expect([error.name, message.test(error.message)], error.message).to.deep.equal([name, true]);
    }
    expect((await model.forward({ dims: [0, 3, 64, 64], data: new Float32Array(0) })).dims).to.deep.equal([0, 10]);
  });

  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    it(`names the image that holds ${value}`, async () => {
      const images = batch(3);
      images.data[PIXELS + 5] = value;
      const error = await failure(model.forward(images));
      expect([error.code, error.message]).to.deep.equal(['ERR_DATA', 'image 1 of the batch holds NaN or infinite values']);
    });
  }

  it('an error of the engine carries the caller’s stack', async () => {
    async function whoCalls() {
      return await model.forward({ dims: [1, 3, 64, 64], data: new Float32Array(PIXELS).fill(Number.NaN) });
    }
    expect((await failure(whoCalls())).stack).to.match(/whoCalls/);
  });

  it('the caller may change or transfer his memory while it runs', async () => {
    const wanted = (await model.forward(batch(4))).data;
    const images = batch(4);
    const running = model.forward(images);
    structuredClone(images.data.buffer, { transfer: [images.data.buffer] });
    expect(maxDifference((await running).data, wanted)).to.equal(0);
  });

  it('answers concurrent calls in order, on one model and on several', async () => {
    const other = await load(CHECKPOINT, { config: CONFIG, threads: 1 });
    const wanted = (await model.forward(batch(8))).data;
    const order: number[] = [];
    const runs = Array.from({ length: 16 }, (_, i) => {
      const n = i % 8;
      const images = { dims: [1, 3, 64, 64], data: pictures.slice(n * PIXELS, (n + 1) * PIXELS) };
      return (i % 2 ? other : model).forward(images).then(({ data }) => {
        if (i % 2 === 0) order.push(i);
        expect(maxDifference(data, wanted.subarray(n * 10, n * 10 + 10))).to.equal(0);
      });
    });
    await Promise.all(runs);
    expect(order).to.deep.equal([...order].sort((a, b) => a - b));
    await other.dispose();
  });

  it('AbortSignal: before the start, and in the middle', async () => {
    const reason = new Error('enough');
    expect(await failure(model.forward(batch(1), { signal: AbortSignal.abort(reason) }))).to.equal(reason);
    const controller = new AbortController();
    const large = { dims: [256, 3, 64, 64], data: new Float32Array(256 * PIXELS).fill(0.5) };
    const running = failure(model.forward(large, { signal: controller.signal }));
    setTimeout(() => controller.abort(reason), 5);
    expect(await running).to.equal(reason);
    expect((await model.forward(batch(1))).dims, 'the model is as good as before').to.deep.equal([1, 10]);
  });

  it('predict takes a path, bytes, raw pixels, and lists of them', async () => {
    const fromPath = await model.predict(STAR, { topK: 3 });
    expect(fromPath.map((p) => p.label)[0]).to.equal('star');
    expect(fromPath).to.have.length(3);
    expect(fromPath[0]!.score).to.be.within(0, 1);
    const [fromBytes, again] = await model.predict([await readFile(STAR), STAR], { topK: 3 });
    expect(fromBytes).to.deep.equal(fromPath);
    expect(again).to.deep.equal(fromPath);
    const raw = { data: new Uint8Array(PIXELS).fill(128), width: 64, height: 64, channels: 3 as const };
    expect(await model.predict(raw, { topK: 20 })).to.have.length(10);
    expect(await model.predict([])).to.deep.equal([]);
    expect((await failure(model.predict(STAR, { topK: 0 }))).name).to.equal('RangeError');
    expect((await failure(model.predict(CONFIG))).code).to.equal('ERR_DATA');
  });

  it('dispose waits for what runs; later calls say so', async () => {
    const own = await load(CHECKPOINT, { config: CONFIG });
    const running = own.forward(batch(8));
    const disposed = own.dispose();
    expect((await running).dims).to.deep.equal([8, 10]);
    await disposed;
    await own.dispose();
    expect((await failure(own.forward(batch(1)))).code).to.equal('ERR_DISPOSED');
    const other = await load(CHECKPOINT, { config: CONFIG });
    await other[Symbol.asyncDispose]();
    expect((await failure(other.forward(batch(1)))).code).to.equal('ERR_DISPOSED');
  });

  it('load says what is wrong with a path, a device, a precision, a thread count', async () => {
    const wrong: [() => Promise<unknown>, string, RegExp][] = [
      [() => load(path.join(DEMO, 'missing.pth')), 'ERR_FILE_NOT_FOUND', /missing\.pth/],
      [() => load(DEMO), 'ERR_FILE_', /vim-shapes/],
      [() => load(CONFIG), 'ERR_FILE_FORMAT', /config\.json/],
      [() => load(CHECKPOINT, { config: CONFIG, device: 'cuda' }), 'ERR_DEVICE', /'cuda' cannot be used: ./],
      [() => load(CHECKPOINT, { config: CONFIG, precision: 'int' }), 'ERR_UNSUPPORTED', /precision 'int'.*fp32/],
      [() => load(CHECKPOINT, { config: path.join(DEMO, 'nothing.json') }), 'ERR_FILE_NOT_FOUND', /nothing\.json/],
    ];
    for (const [attempt, code, message] of wrong) {
      const error = await failure(attempt());
      expect(error).to.be.instanceOf(Ptq4vmError);
      expect(error.code).to.match(new RegExp(`^${code}`));
      expect(error.message).to.match(message);
    }
    for (const options of [{ device: 'tpu' }, { precision: 'fp8' }, { threads: -1 }, { threads: 1e9 }]) {
      expect((await failure(load(CHECKPOINT, { config: CONFIG, ...(options as object) }))).name, JSON.stringify(options)).to.equal('RangeError');
    }
    expect((await failure(load('' as never))).name).to.equal('TypeError');
    expect((await failure(load(42 as never))).name).to.equal('TypeError');
  });

  it('plan() tells what memory a batch takes', () => {
    const plan = model.plan(8);
    expect(plan.segments.length).to.be.at.least(6);
    expect(plan.weightBytes).to.be.above(2e6);
    expect(plan.tensors.some((t) => t.scope === 'tile')).to.equal(true);
    expect(plan.batchBytes).to.be.at.least(Math.max(...plan.tensors.filter((t) => t.scope === 'batch').map((t) => t.bytes)));
  });

  it('memory does not grow with inferences or with models that come and go', async () => {
    const round = async () => {
      const own = await load(CHECKPOINT, { config: CONFIG });
      for (let i = 0; i < 20; i++) await own.forward(batch(4));
      await own.dispose();
    };
    for (let i = 0; i < 4; i++) await round();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 12; i++) await round();
    // Twelve models of some 6 MB each and 240 inferences: a leak of either would show.
    expect((process.memoryUsage().rss - before) / 2 ** 20, 'MB').to.be.below(48);
  });

  it('works in two worker threads at once', async () => {
    const dist = path.resolve(__dirname, '../../dist/index.js');
    const code = `
      const { parentPort, workerData } = require('node:worker_threads');
      const { load } = require(workerData.dist);
      load(workerData.checkpoint, { config: workerData.config }).then(async (m) => {
        const [best] = await m.predict(workerData.picture);
        await m.dispose();
        parentPort.postMessage(best.label);
      });`;
    const answer = () => new Promise((resolve, reject) => {
      const worker = new Worker(code, { eval: true, workerData: { dist, checkpoint: CHECKPOINT, config: CONFIG, picture: STAR } });
      worker.once('message', resolve).once('error', reject);
    });
    expect(await Promise.all([answer(), answer()])).to.deep.equal(['star', 'star']);
  });
});

describe('quantize', function () {
  this.timeout(60_000);
  const calibration = imageFolder(path.join(DEMO, 'calib'));
  let model: Model;
  before(async () => {
    model = await load(CHECKPOINT, { config: CONFIG });
  });
  after(() => model.dispose());

  it('refuses wrong options in the voice of argument errors', async () => {
    const good = { weights: 8, activations: 8, calibration };
    const bad: [object, string, RegExp][] = [
      [{ ...good, weights: 5 }, 'RangeError', /Expected 4, 6 or 8 for weights but received 5/],
      [{ ...good, activations: '8' }, 'RangeError', /activations/],
      [{ ...good, method: 'magic' }, 'RangeError', /one of minmax, .* for method/],
      [{ ...good, alpha: 1.5 }, 'RangeError', /alpha/],
      [{ ...good, samples: 0 }, 'RangeError', /samples/],
      [{ ...good, seed: -1 }, 'RangeError', /seed/],
      [{ ...good, grid: 'on' }, 'TypeError', /grid/],
      [{ ...good, bits: 8 }, 'RangeError', /Unknown quantization option 'bits'/],
      [{ ...good, calibration: 'calib/' }, 'TypeError', /dataset.*calibration/],
    ];
    for (const [options, name, message] of bad) {
      const error = await failure(quantize(model, options as never));
      expect([error.name, message.test(error.message)], error.message).to.deep.equal([name, true]);
    }
  });

  it('methods mean what they say', async () => {
    const shapes = { minmax: [1, false], smoothquant: [1, true], pts: [65, false], 'pts+smooth': [65, true], ptq4vm: [65, true] } as const;
    for (const [method, [steps, smooth]] of Object.entries(shapes)) {
      const q = await quantize(model, { weights: 8, activations: 8, calibration, samples: 4, method });
      for (const layer of q.quantization!.layers.values()) {
        expect([layer.actScale.length, layer.smooth !== undefined], method).to.deep.equal([steps, smooth]);
      }
      expect((await failure(quantize(q, { weights: 8, activations: 8, calibration }))).code).to.equal('ERR_UNSUPPORTED');
      await q.dispose();
    }
  });

  it('gives equal bits whatever the thread count; takes fewer pictures than asked for; reports progress', async () => {
    const seen: number[] = [];
    const options = { weights: 4, activations: 4, calibration, samples: 12 };
    const one = await load(CHECKPOINT, { config: CONFIG, threads: 1 });
    const a = await quantize(one, { ...options, onProgress: ({ stage, done }) => stage === 'calibrate' && seen.push(done) });
    const b = await quantize(model, options);
    for (const [name, layer] of a.quantization!.layers) {
      const other = b.quantization!.layers.get(name)!;
      expect(maxDifference(layer.actScale, other.actScale) + maxDifference(layer.weightScale, other.weightScale) + maxDifference(layer.weight, other.weight), name).to.equal(0);
    }
    expect(seen).to.deep.equal([...Array(36).keys()].map((i) => i + 1));
    const few = await quantize(model, { ...options, samples: 100_000 });
    expect((few.quantization!.recipe.calibration as { images: number }).images).to.equal(calibration.length);
    await Promise.all([a, b, few, one].map((m) => m.dispose()));
  });

  it('an abort in the middle rejects with its reason and leaves the model usable', async () => {
    const controller = new AbortController();
    const reason = new Error('stop');
    const onProgress = ({ stage, done }: { stage: string; done: number }) => {
      if (stage === 'calibrate' && done === 3) controller.abort(reason);
    };
    expect(await failure(quantize(model, { weights: 8, activations: 8, calibration, samples: 32, signal: controller.signal, onProgress }))).to.equal(reason);
    expect(await model.predict(STAR)).to.have.length(5);
  });

  it('constant pictures give finite steps; a NaN picture is an error', async () => {
    const dataset = (value: number) => ({
      length: 4, name: 'made up',
      async *batches() {
        yield { images: new Float32Array(4 * PIXELS).fill(value), n: 4, first: 0 };
      },
    });
    const q = await quantize(model, { weights: 4, activations: 4, calibration: dataset(0) });
    for (const layer of q.quantization!.layers.values()) expect(layer.actScale.every((s) => s > 0 && Number.isFinite(s))).to.equal(true);
    await q.dispose();
    expect((await failure(quantize(model, { weights: 8, activations: 8, calibration: dataset(Number.NaN) }))).code).to.equal('ERR_DATA');
  });
});
