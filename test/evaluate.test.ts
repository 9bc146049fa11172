import { expect } from 'chai';
import type { Batch, Dataset } from '../lib/data/dataset.js';
import { evaluate, type ForwardModel, logSumExp, topPredictions } from '../lib/evaluate.js';
import { random, rejection } from './data/support.js';

const CLASSES = 7;

/** Images of 3×1×2 whose first value is their number. */
function dataset(n: number, labels?: number[], classNames?: string[]): Dataset {
  return {
    length: n,
    name: 'set',
    labels: labels && Int32Array.from(labels),
    classNames,
    describe: (i) => `picture ${i}`,
    async *batches({ size }): AsyncGenerator<Batch> {
      for (let first = 0; first < n; first += size) {
        const count = Math.min(size, n - first);
        const images = new Float32Array(count * 6);
        for (let i = 0; i < count; i++) images[i * 6] = first + i;
        yield { images, n: count, first };
      }
    },
  };
}

/** Answers image i with row i of `logits`, after `delay` ms. */
function model(logits: number[][], more: Partial<ForwardModel> & { delay?: number; sizes?: number[] } = {}): ForwardModel {
  return {
    inputShape: [3, 1, 2],
    classes: logits[0]!.length,
    preprocess: { size: [1, 2], mean: [0, 0, 0], std: [1, 1, 1] },
    async forward({ dims, data }) {
      more.sizes?.push(dims[0]!);
      if (more.delay) await new Promise((resolve) => setTimeout(resolve, more.delay));
      const rows = Array.from({ length: dims[0]! }, (_, i) => logits[data[i * 6]!]!);
      return { dims: [rows.length, rows[0]!.length], data: Float32Array.from(rows.flat()) };
    },
    ...more,
  };
}

function randomLogits(n: number, seed: number, scale = 4): number[][] {
  const next = random(seed);
  return Array.from({ length: n }, () => Array.from({ length: CLASSES }, () => Math.fround((next() - 0.5) * scale)));
}

describe('evaluate', () => {
  it('counts top-1 and top-5 whatever the batch size', async () => {
    const rows = randomLogits(23, 1);
    const labels = rows.map((_, i) => i % CLASSES);
    const rank = rows.map((row, i) => row.filter((v) => v > row[labels[i]!]!).length);
    for (const batchSize of [1, 4, 23, 100]) {
      const sizes: number[] = [];
      const report = await evaluate(model(rows, { sizes }), dataset(23, labels), { batchSize });
      expect(report.images).to.equal(23);
      expect(report.top1).to.equal(rank.filter((r) => r < 1).length / 23);
      expect(report.top5).to.equal(rank.filter((r) => r < 5).length / 23);
      expect(report).to.not.have.property('reference');
      expect(sizes.reduce((a, b) => a + b)).to.equal(23);
      expect(Math.max(...sizes)).to.equal(Math.min(batchSize, 23));
    }
  });

  it('gives equal logits to the lower index, as argmax does', async () => {
    const row = Array.from({ length: CLASSES }, () => 1);
    for (const [label, top1, top5] of [[0, 1, 1], [4, 0, 1], [5, 0, 0]] as const) {
      expect(await evaluate(model([row]), dataset(1, [label]))).to.include({ top1, top5 });
    }
  });

  it('matches class folders to the labels of the model', async () => {
    const one = [[9, 0, 0], [0, 0, 9]];
    const report = await evaluate(model(one, { labels: ['cat', 'dog', 'ant'] }), dataset(2, [1, 0], ['ant', 'cat']));
    expect(report.top1).to.equal(1);
    const error = await rejection(evaluate(model(one, { labels: ['cat', 'dog', 'bee'] }), dataset(2, [1, 0], ['ant', 'cat'])));
    expect(error.message).to.include("'ant'");
  });

  it('measures agreement, KL and logit error against a reference, in double', async () => {
    const ours = randomLogits(11, 2);
    const reference = ours.map((row, i) => row.map((v) => Math.fround(v + 0.3 * Math.sin(i + v))));
    const softmax = (row: number[]): number[] => {
      const e = row.map(Math.exp);
      const sum = e.reduce((a, b) => a + b);
      return e.map((v) => v / sum);
    };
    let kl = 0;
    let difference = 0;
    let norm = 0;
    let agree = 0;
    ours.forEach((row, i) => {
      const [p, q] = [softmax(reference[i]!), softmax(row)];
      kl += p.reduce((sum, pc, c) => sum + pc * Math.log(pc / q[c]!), 0);
      row.forEach((v, c) => { difference += (v - reference[i]![c]!) ** 2; norm += reference[i]![c]! ** 2; });
      if (row.indexOf(Math.max(...row)) === reference[i]!.indexOf(Math.max(...reference[i]!))) agree++;
    });
    const report = await evaluate(model(ours), dataset(11), { batchSize: 3, reference: model(reference) });
    expect(report).to.not.have.any.keys('top1', 'top5');
    expect(report.reference).to.have.all.keys('agreement', 'kl', 'logitError');
    expect(report.reference!.agreement).to.equal(agree / 11);
    expect(report.reference!.kl).to.be.closeTo(kl / 11, 1e-12);
    expect(report.reference!.logitError).to.be.closeTo(Math.sqrt(difference / norm), 1e-12);
    const labelled = await evaluate(model(ours), dataset(11, ours.map(() => 0)), { reference: model(reference) });
    expect(labelled.reference!.top1).to.equal(reference.filter((row) => row[0] === Math.max(...row)).length / 11);
  });

  it('finds no difference between a model and itself, and does not overflow', async () => {
    const rows = [[1000, -1000, 0], [-3e38, 0, 3e38], [0, 0, 0]];
    const report = await evaluate(model(rows), dataset(3), { reference: model(rows) });
    expect(report.reference).to.deep.equal({ agreement: 1, kl: 0, logitError: 0 });
    expect(logSumExp(Float32Array.of(1000, 1000))).to.be.closeTo(1000 + Math.log(2), 1e-9);
  });

  it('times the model alone', async () => {
    const rows = randomLogits(4, 3);
    const report = await evaluate(model(rows, { delay: 20 }), dataset(4), { batchSize: 2, reference: model(rows, { delay: 200 }) });
    // 4 images in 2 × 20 ms: 100 a second at most, and far more than the 9 that the reference's time would give.
    expect(report.imagesPerSecond).to.be.within(20, 102);
  });

  it('names the image whose logits are not finite', async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const rows = randomLogits(5, 4);
      rows[3]![2] = bad;
      const error = await rejection(evaluate(model(rows), dataset(5), { batchSize: 2 }));
      expect(error.code).to.equal('ERR_DATA');
      expect(error.message).to.match(/picture 3/);
      expect((await rejection(evaluate(model(randomLogits(5, 4)), dataset(5), { reference: model(rows) }))).message).to.match(/picture 3/);
    }
  });

  it('reports progress and stops when aborted', async () => {
    const events: number[] = [];
    const controller = new AbortController();
    const reason = new Error('enough');
    const run = evaluate(model(randomLogits(9, 5)), dataset(9, Array(9).fill(0)), {
      batchSize: 3,
      signal: controller.signal,
      onProgress: ({ stage, done, total, detail }) => {
        expect([stage, total]).to.deep.equal(['evaluate', 9]);
        if (done > 0) expect(detail).to.match(/^top-1 \d+\.\d %$/);
        events.push(done);
        if (done === 6) controller.abort(reason);
      },
    });
    expect(await rejection(run)).to.equal(reason);
    expect(events).to.deep.equal([0, 3, 6]);
  });

  it('refuses what does not fit', async () => {
    const ok = model(randomLogits(2, 6));
    expect(await rejection(evaluate(ok, dataset(2), { batchSize: 0 }))).to.be.instanceOf(RangeError);
    expect(await rejection(evaluate(ok, dataset(2), { reference: model([[1, 2]]) }))).to.be.instanceOf(RangeError);
    expect(await rejection(evaluate(ok, dataset(2), { reference: { ...ok, inputShape: [3, 2, 2] } }))).to.be.instanceOf(RangeError);
    expect((await rejection(evaluate(ok, dataset(0)))).code).to.equal('ERR_DATA');
    expect((await rejection(evaluate(ok, dataset(2, [0, CLASSES])))).message).to.match(/label 7 of image 1/);
    expect((await rejection(evaluate({ ...ok, classes: 3 }, dataset(2)))).code).to.equal('ERR_ENGINE');
    expect((await rejection(evaluate({ ...ok, preprocess: { ...ok.preprocess, size: 9 } }, dataset(2)))).code).to.equal('ERR_CONFIG');
  });
});

describe('topPredictions', () => {
  it('orders by logit, equals by index, with softmax scores', () => {
    const top = topPredictions(Float32Array.of(1, 3, 3, 2), 3, ['a', 'b', 'c', 'd']);
    expect(top.map(({ index, label }) => [index, label])).to.deep.equal([[1, 'b'], [2, 'c'], [3, 'd']]);
    const all = topPredictions(Float32Array.of(1, 3, 3, 2), 9);
    expect(all.map(({ label }) => label)).to.deep.equal(['class 1', 'class 2', 'class 3', 'class 0']);
    expect(all.reduce((sum, { score }) => sum + score, 0)).to.be.closeTo(1, 1e-12);
    expect(() => topPredictions(Float32Array.of(1), 0)).to.throw(RangeError);
  });
});
