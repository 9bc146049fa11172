/** Quantization from pictures: what every method leaves behind, repeatability, aborts, and pictures that cannot be used. */
import path from 'node:path';
import { expect } from 'chai';
import type { Dataset } from '../../lib/data/dataset.js';
import { load, type Model, quantize, type QuantizeOptions } from '../../lib/model.js';
import { loadAddon } from '../../lib/native/addon.js';
import { EngineSession } from '../../lib/native/session.js';
import type { ProgressEvent } from '../../lib/progress.js';
import { METHODS } from '../../lib/ptq/recipe.js';
import { expectFailure, scratchFolder } from '../io/support.js';
import { memoryDataset, type RandomVim, randomPictures, randomVim, writeVim } from '../models/random-vim.js';
import { SEED } from '../ops/random.js';

const SIZE = 16;
const PIXELS = 3 * SIZE * SIZE;
const COUNT = 12;
const BITS = { weights: 8, activations: 8 };

describe('calibration', () => {
  const folder = scratchFolder();
  let vim: RandomVim;
  let float: Model;
  let pictures: Float32Array;
  let data: Dataset;
  const run = (options: Partial<QuantizeOptions> = {}) => quantize(float, { ...BITS, calibration: data, ...options });
  const layersOf = (model: Model) => [...model.quantization!.layers];

  before(async () => {
    vim = randomVim({ imageSize: SIZE, dim: 24, depth: 2, classes: 5, classToken: 'none' }, 'calibration');
    const preprocess = { size: SIZE, mean: [0, 0, 0], std: [1, 1, 1] };
    float = await load(await writeVim(path.join(folder(), 'vim.safetensors'), vim.weights), { config: { ...vim.config, preprocess } });
    pictures = randomPictures(vim, COUNT, 'calibration pictures');
    data = memoryDataset(pictures, COUNT);
  });
  after(() => float.dispose());

  it('every method at all bits: shapes, ranges and finite steps of every linear', async () => {
    const LEN = 4; // 2×2 patches
    for (const method of METHODS) {
      for (const weights of [4, 6, 8]) {
        for (const activations of [4, 6, 8]) {
          const q = await run({ method, weights, activations });
          const perToken = !['minmax', 'smoothquant'].includes(method);
          const smooth = !['minmax', 'pts'].includes(method);
          expect(layersOf(q).map(([name]) => name)).to.have.members(float.parts.program.linears.map((l) => l.name));
          for (const [name, layer] of layersOf(q)) {
            const label = `${method} W${weights}A${activations} ${name}, SEED=${SEED}`;
            const [out, input] = vim.weights.get(`${name}.weight`)!.shape as [number, number];
            expect([layer.weightBits, layer.actBits], label).to.deep.equal([weights, activations]);
            expect(layer.weight.length, label).to.equal(out * input);
            expect(layer.weightScale.length, label).to.equal(out);
            expect([layer.actScale.length, layer.actZero.length], label).to.deep.equal(perToken ? [LEN, LEN] : [1, 1]);
            expect(layer.smooth?.length, label).to.equal(smooth ? input : undefined);
            const qmax = 2 ** (weights - 1) - 1;
            expect(layer.weight.every((c) => Math.abs(c) <= qmax), `${label}: codes`).to.equal(true);
            expect(layer.weight.some((c) => Math.abs(c) === qmax), `${label}: the range of codes is used`).to.equal(true);
            expect(layer.actZero.every((z) => z <= 2 ** activations - 1), `${label}: zero points`).to.equal(true);
            const positive = (values: Float32Array | undefined) => values === undefined || values.every((v) => v > 0 && Number.isFinite(v));
            expect([layer.weightScale, layer.actScale, layer.smooth].every(positive), `${label}: steps`).to.equal(true);
          }
          await q.dispose();
        }
      }
    }
  });

  it('minmax: the plain range of the tensor, zero included, and of each weight row', async () => {
    const q = await run({ method: 'minmax' });
    const name = 'layers.0.mixer.in_proj';
    const layer = q.quantization!.layers.get(name)!;
    const { data: weight, shape } = vim.weights.get(`${name}.weight`)!;
    const [out, input] = shape as [number, number];
    for (let o = 0; o < out; o++) {
      const largest = Math.max(...weight.subarray(o * input, (o + 1) * input).map(Math.abs));
      expect(layer.weightScale[o]! / (largest / 127), `row ${o}`).to.be.closeTo(1, 1e-6);
    }
    // in_proj reads the norm's output: ask the engine for it.
    const [block] = float.parts.program.blocks;
    expect(block!.name).to.equal('layers.0');
    const session = new EngineSession(float.parts.program);
    const values = await session.run({ images: COUNT, feeds: { image: pictures }, fetches: ['layers.0.norm'] });
    await session.dispose();
    let [low, high] = [0, 0];
    for (const v of values['layers.0.norm']!) [low, high] = [Math.min(low, v), Math.max(high, v)];
    expect(layer.actScale[0]! / ((high - low) / 255)).to.be.closeTo(1, 1e-6);
    expect(layer.actZero[0]).to.equal(Math.round((-low / (high - low)) * 255));
    await q.dispose();
  });

  it('the scales of the backward direction are in its own order: mirrored pictures with mirrored weights give the same', async () => {
    // With the two directions' weights exchanged, the backward direction sees what the forward one saw, in the same order.
    const swapped = new Map([...vim.weights].map(([name, weight]) => {
      const other = name.includes('A_b_log') ? name.replace('A_b_log', 'A_log') : name.includes('A_log') ? name.replace('A_log', 'A_b_log')
        : /(conv1d|x_proj|dt_proj|mixer\.D)_b(\.|$)/.test(name) ? name.replace('_b', '') : name.replace(/(conv1d|x_proj|dt_proj|mixer\.D)(?=\.|$)/, '$1_b');
      return [other, weight] as const;
    }));
    // Reversing the tokens = turning each picture by 180° at patch level and reversing the position table.
    const position = swapped.get('pos_embed')!;
    const [, len, dim] = position.shape as [number, number, number];
    const reversed = new Float32Array(position.data.length);
    for (let t = 0; t < len; t++) reversed.set(position.data.subarray(t * dim, (t + 1) * dim), (len - 1 - t) * dim);
    swapped.set('pos_embed', { ...position, data: reversed });
    const turned = new Float32Array(pictures.length);
    const half = SIZE / 2;
    for (let i = 0; i < turned.length; i++) {
      const [x, y, plane] = [i % SIZE, Math.floor(i / SIZE) % SIZE, Math.floor(i / SIZE / SIZE)];
      turned[i] = pictures[(plane * SIZE + ((y + half) % SIZE)) * SIZE + ((x + half) % SIZE)]!;
    }
    const preprocess = { size: SIZE, mean: [0, 0, 0], std: [1, 1, 1] };
    const mirror = await load(await writeVim(path.join(folder(), 'mirror.safetensors'), swapped), { config: { ...vim.config, preprocess } });
    const [a, b] = [await run(), await quantize(mirror, { ...BITS, calibration: memoryDataset(turned, COUNT) })];
    for (const layer of [0, 1]) {
      for (const kind of ['x_proj', 'dt_proj']) {
        const forward = a.quantization!.layers.get(`layers.${layer}.mixer.${kind}`)!;
        const backward = b.quantization!.layers.get(`layers.${layer}.mixer.${kind}_b`)!;
        forward.actScale.forEach((s, t) => expect(backward.actScale[t]! / s, `${kind} of layer ${layer}, position ${t}, SEED=${SEED}`).to.be.closeTo(1, 0.02));
        expect(new Set(forward.actScale).size, 'positions differ').to.be.above(1);
      }
    }
    for (const model of [a, b, mirror]) await model.dispose();
  });

  it('the float model is not changed by being quantized', async () => {
    const images = { dims: [COUNT, 3, SIZE, SIZE], data: pictures };
    const before = await float.forward(images);
    const q = await run();
    expect(await float.forward(images)).to.deep.equal(before);
    expect(float.quantization).to.equal(undefined);
    expect(q.precision).to.equal('int');
    await q.dispose();
  });

  it('more bits are nearer to the float model, and 8 bits are near', async () => {
    const images = { dims: [COUNT, 3, SIZE, SIZE], data: pictures };
    const exact = (await float.forward(images)).data;
    const errors: number[] = [];
    for (const bits of [8, 6, 4]) {
      const q = await run({ weights: bits, activations: bits });
      const logits = (await q.forward(images)).data;
      errors.push(Math.hypot(...logits.map((v, i) => v - exact[i]!)) / Math.hypot(...exact));
      await q.dispose();
    }
    expect(errors[0], `8 bits, SEED=${SEED}`).to.be.below(0.1);
    expect(errors[0], `8 against 6 bits, SEED=${SEED}`).to.be.below(errors[1]!);
    expect(errors[1], `6 against 4 bits, SEED=${SEED}`).to.be.below(errors[2]!);
  });

  it('equal bits: run again, on 1, 2 or 5 threads, decoded in batches of 1 or 7', async () => {
    const plain = (model: Model) => layersOf(model).map(([name, l]) => [name, l.weight, l.weightScale, l.actScale, l.actZero, l.smooth]);
    const wanted = await run({ activations: 4 });
    const others = [await run({ activations: 4 }), await run({ activations: 4, batchSize: 1 }), await run({ activations: 4, batchSize: 7 })];
    for (const threads of [1, 2, 5]) {
      const model = float.with({ threads });
      others.push(await quantize(model, { ...BITS, activations: 4, calibration: data }));
      await model.dispose();
    }
    for (const [i, other] of others.entries()) {
      expect(plain(other), `run ${i}`).to.deep.equal(plain(wanted));
      await other.dispose();
    }
    await wanted.dispose();
  });

  it('ptq4vm equals pts+smooth', async () => {
    const [a, b] = [await run({ method: 'ptq4vm' }), await run({ method: 'pts+smooth' })];
    expect(layersOf(a)).to.deep.equal(layersOf(b));
    expect(a.quantization!.recipe).to.include({ method: 'ptq4vm' });
    for (const model of [a, b]) await model.dispose();
  });

  it('samples: spread evenly, and all when there are fewer than asked for', async () => {
    const seen: number[][] = [];
    const watched: Dataset = { ...data, batches: (request) => (seen.push(Array.from(request.indices!)), data.batches(request)) };
    const record = async (samples: number) => {
      const q = await quantize(float, { ...BITS, calibration: watched, samples, method: 'minmax' });
      await q.dispose();
      return (q.quantization!.recipe.calibration as { images: number }).images;
    };
    expect([await record(1000), await record(12), await record(5), await record(1)]).to.deep.equal([12, 12, 5, 1]);
    const all = [...Array(12).keys()];
    expect(seen).to.deep.equal([all, all, [0, 2, 4, 7, 9], [0]]);
  });

  it('progress: decoding, then every linear once, each stage counting up to its total', async () => {
    const events: ProgressEvent[] = [];
    const q = await run({ onProgress: (e) => events.push(e), batchSize: 5 });
    await q.dispose();
    const stage = (name: string) => events.filter((e) => e.stage === name);
    expect(events.map((e) => e.stage)).to.deep.equal([...stage('decode'), ...stage('calibrate')].map((e) => e.stage));
    expect(stage('decode').map((e) => e.done)).to.deep.equal([5, 10, 12]);
    const names = float.parts.program.linears.map((l) => l.name);
    expect(stage('calibrate').map((e) => [e.done, e.total])).to.deep.equal(names.map((_, i) => [i + 1, names.length]));
    expect(stage('calibrate').map((e) => e.detail)).to.have.members(names);
  });

  it('a quantized model is not quantized again', async () => {
    const q = await run();
    await expectFailure(quantize(q, { ...BITS, calibration: data }), 'ERR_UNSUPPORTED', 'already quantized');
    await q.dispose();
  });

  describe('pictures', () => {
    const from = (images: Float32Array, more: Partial<Dataset> = {}): Dataset => ({ ...memoryDataset(images, images.length / PIXELS), ...more });
    const onceOnly = (n: number, images: Float32Array): Partial<Dataset> => ({
      async *batches() {
        yield { images, n, first: 0 };
      },
    });

    it('NaN or infinity names the picture, by its place in the dataset', async () => {
      for (const [bad, at] of [[Number.NaN, 3], [Number.POSITIVE_INFINITY, 0], [Number.NEGATIVE_INFINITY, 11]] as const) {
        const images = pictures.slice();
        images[at * PIXELS + 7] = bad;
        await expectFailure(run({ calibration: from(images) }), 'ERR_DATA', new RegExp(`pictures in memory #${at} holds NaN or infinite values`));
        await expectFailure(run({ calibration: from(images, { describe: undefined }) }), 'ERR_DATA', `pictures in memory[${at}]`);
        await expectFailure(run({ calibration: from(images), batchSize: 5 }), 'ERR_DATA', `#${at} holds NaN`);
      }
      const images = pictures.slice();
      images[9 * PIXELS] = Number.NaN;
      await expectFailure(run({ calibration: from(images), samples: 4 }), 'ERR_DATA', '#9 holds NaN');
    });

    it('activations that overflow are an error, not steps of infinity', async () => {
      const huge = pictures.map((v) => v * 1e37);
      const result = await run({ calibration: from(huge) }).then((q) => q, (e: unknown) => e as Error & { code: string });
      if (result instanceof Error) expect(result.code).to.equal('ERR_DATA');
      else for (const [, l] of layersOf(result)) expect([...l.actScale, ...l.weightScale, ...l.smooth!].every((v) => v > 0 && Number.isFinite(v))).to.equal(true);
    });

    for (const value of [0, 1, -1, 1e-30]) {
      it(`constant pictures (${value}), every method: finite steps and a model that runs`, async () => {
        for (const method of METHODS) {
          const q = await run({ calibration: from(new Float32Array(2 * PIXELS).fill(value)), method, weights: 4, activations: 4 });
          for (const [name, l] of layersOf(q)) {
            const steps = [...l.actScale, ...l.weightScale, ...(l.smooth ?? [])];
            expect(steps.every((v) => v > 0 && Number.isFinite(v)), `${method} ${name}`).to.equal(true);
          }
          const { data: logits } = await q.forward({ dims: [COUNT, 3, SIZE, SIZE], data: pictures });
          expect(logits.every(Number.isFinite), method).to.equal(true);
          await q.dispose();
        }
      });
    }

    it('weights that are all zero, or one constant, give finite steps and exact results', async () => {
      const dead = new Map(vim.weights);
      for (const name of ['layers.0.mixer.in_proj.weight', 'layers.1.mixer.x_proj.weight']) {
        const weight = dead.get(name)!;
        dead.set(name, { ...weight, data: new Float32Array(weight.data.length).fill(name.includes('x_proj') ? 0.01 : 0) });
      }
      const preprocess = { size: SIZE, mean: [0, 0, 0], std: [1, 1, 1] };
      const model = await load(await writeVim(path.join(folder(), 'dead.safetensors'), dead), { config: { ...vim.config, preprocess } });
      for (const method of METHODS) {
        const q = await quantize(model, { ...BITS, calibration: data, method });
        const layer = q.quantization!.layers.get('layers.0.mixer.in_proj')!;
        expect(layer.weight.every((c) => c === 0), method).to.equal(true);
        expect(layer.weightScale.every((s) => s > 0 && Number.isFinite(s)), method).to.equal(true);
        expect((await q.forward({ dims: [COUNT, 3, SIZE, SIZE], data: pictures })).data.every(Number.isFinite)).to.equal(true);
        await q.dispose();
      }
      await model.dispose();
    });

    it('datasets that are not what they say', async () => {
      await expectFailure(run({ calibration: from(new Float32Array(0), { length: 0 }) }), 'ERR_DATA', 'pictures in memory holds no images');
      await expectFailure(run({ calibration: from(pictures, { length: 4, ...onceOnly(COUNT, pictures) }) }), 'ERR_DATA', 'gave 12 images');
      await expectFailure(run({ calibration: from(pictures, onceOnly(COUNT - 1, pictures)) }), 'ERR_DATA', 'gave 11 images of 9216 values');
      await expectFailure(run({ calibration: from(pictures, onceOnly(COUNT, pictures.slice(0, 100))) }), 'ERR_DATA', 'the model takes 768 values');
      await expectFailure(run({ calibration: from(pictures, onceOnly(2, pictures.slice(0, 2 * PIXELS))) }), 'ERR_DATA', 'gave 2 of the 12 images');
      const failure = new Error('the disk is gone');
      const failing = from(pictures, {
        // biome-ignore lint/correctness/useYield: it fails before it can
        async *batches() {
          throw failure;
        },
      });
      expect(await run({ calibration: failing }).catch((e: unknown) => e)).to.equal(failure);
      for (const bad of [undefined, null, 'calib/', {}, pictures]) {
        const error = await quantize(float, { ...BITS, calibration: bad as never }).catch((e: unknown) => e);
        expect(error, String(bad)).to.be.instanceOf(TypeError);
        expect((error as Error).message).to.match(/^Expected a dataset \(imageFolder or npyBatch\) for calibration but received/);
      }
      for (const bad of [0, -1, 2.5, '32']) {
        expect(await run({ batchSize: bad as number }).catch((e: unknown) => e), String(bad)).to.be.instanceOf(RangeError);
      }
    });
  });

  describe('aborts', () => {
    it('at every step of the way: the reason comes back, and the model works as before', async () => {
      const images = { dims: [COUNT, 3, SIZE, SIZE], data: pictures };
      const wanted = await float.forward(images);
      let steps = 0;
      await (await run({ onProgress: () => steps++, batchSize: 6 })).dispose();
      for (let stop = 0; stop <= steps; stop++) {
        const controller = new AbortController();
        const reason = new Error(`after ${stop} events`);
        let seen = 0;
        if (stop === 0) controller.abort(reason);
        const onProgress = () => {
          if (++seen === stop) controller.abort(reason);
        };
        const outcome = await run({ signal: controller.signal, onProgress, batchSize: 6 }).then((q) => q, (e: unknown) => e);
        // After the last event nothing is left to abort.
        if (stop === steps) await (outcome as Model).dispose();
        else expect(outcome, `aborted after ${stop} of ${steps} events`).to.equal(reason);
        expect(seen, 'no event after the abort').to.equal(stop);
      }
      expect(await float.forward(images)).to.deep.equal(wanted);
    });

    it('in the middle of a search: it ends long before the search would have', async function () {
      this.timeout(30_000);
      const large = randomVim({ imageSize: 64, dim: 64, depth: 1 }, 'slow calibration');
      const preprocess = { size: 64, mean: [0, 0, 0], std: [1, 1, 1] };
      const model = await load(await writeVim(path.join(folder(), 'slow.safetensors'), large.weights), { config: { ...large.config, preprocess }, threads: 1 });
      const calibration = memoryDataset(randomPictures(large, 64, 'slow pictures'), 64);
      const times: number[] = [];
      let whole = performance.now();
      await (await quantize(model, { ...BITS, calibration, onProgress: ({ stage }) => stage === 'calibrate' && times.push(performance.now()) })).dispose();
      whole = performance.now() - whole;
      const longest = Math.max(...times.slice(1).map((t, i) => t - times[i]!));
      const controller = new AbortController();
      let aborted = 0;
      // A little after the first linear is done, another one is being searched.
      const onProgress = ({ stage, done }: ProgressEvent) => {
        if (stage === 'calibrate' && done === 1) {
          setTimeout(() => {
            aborted = performance.now();
            controller.abort();
          }, longest / 10);
        }
      };
      const error = await quantize(model, { ...BITS, calibration, signal: controller.signal, onProgress }).catch((e: unknown) => e);
      const latency = performance.now() - aborted;
      expect(error).to.have.property('name', 'AbortError');
      expect(latency, `ms until it stopped; the whole takes ${whole.toFixed(0)} ms, one linear up to ${longest.toFixed(0)}`).to.be.below(Math.max(100, whole / 3));
      await model.dispose();
    });

    it('a listener that throws ends the run with its own error', async () => {
      const mine = new Error('mine');
      for (const stage of ['decode', 'calibrate']) {
        const onProgress = (e: ProgressEvent) => {
          if (e.stage === stage) throw mine;
        };
        expect(await run({ onProgress }).catch((e: unknown) => e), stage).to.equal(mine);
      }
      await (await run()).dispose();
    });
  });

  it('the native calls check sizes before they read', async () => {
    const { calibration } = loadAddon();
    const sample = { data: new Float32Array(24), images: 2, rows: 3, width: 4, from: 0, channels: 4 };
    expect([...(await calibration.absMax(sample, 1))]).to.deep.equal([0, 0, 0, 0]);
    const wrong = [{ images: 3 }, { rows: 4 }, { width: 5 }, { from: 1 }, { from: -1 }, { channels: 5 }, { images: 0 }, { images: 2 ** 31 }, { rows: 1.5 }, { data: new Float64Array(24) }, { width: Number.NaN }];
    for (const change of wrong) {
      const label = JSON.stringify(change);
      const error = await (async () => calibration.absMax({ ...sample, ...change } as never, 1))().catch((e: unknown) => e);
      expect(error instanceof TypeError || error instanceof RangeError, `${label}: ${String(error)}`).to.equal(true);
    }
    for (const threads of [0, -1, 1000]) {
      const error = await (async () => calibration.absMax(sample, threads))().catch((e: unknown) => e);
      expect(error instanceof TypeError || error instanceof RangeError, `${threads} threads: ${String(error)}`).to.equal(true);
    }
  });
});
