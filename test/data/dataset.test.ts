import { symlinkSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { type Batch, type Dataset, forEachBounded, matchLabels, prefetched, sampleIndices } from '../../lib/data/dataset.js';
import { imageFolder, sortByBytes } from '../../lib/data/folder.js';
import { npyBatch } from '../../lib/data/npy-batch.js';
import { npyBytes, plain, png, put, random, rejection, rgb, temporaryFolder } from './support.js';

const tick = (ms = 1): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function collect(dataset: Dataset, request: Parameters<Dataset['batches']>[0]): Promise<Batch[]> {
  const out: Batch[] = [];
  for await (const batch of dataset.batches(request)) out.push(batch);
  return out;
}

describe('data: which images, and when', () => {
  it('samples index ⌊i·n / samples⌋', () => {
    expect(Array.from(sampleIndices(10, 4))).to.deep.equal([0, 2, 5, 7]);
    expect(Array.from(sampleIndices(260, 256)).slice(-2)).to.deep.equal([Math.floor((254 * 260) / 256), Math.floor((255 * 260) / 256)]);
    expect(Array.from(sampleIndices(3, 3))).to.deep.equal([0, 1, 2]);
    expect(Array.from(sampleIndices(3, 100)), 'fewer available = all').to.deep.equal([0, 1, 2]);
    expect(Array.from(sampleIndices(0, 5))).to.deep.equal([]);
    expect(() => sampleIndices(3, 0)).to.throw(RangeError);
  });

  it('makes the next batch while the last is used, and no more than that', async () => {
    const log: string[] = [];
    const make = async (k: number): Promise<number> => {
      log.push(`make ${k}`);
      await tick();
      return k;
    };
    for await (const k of prefetched(4, make, undefined)) {
      await tick(10);
      log.push(`use ${k}`);
    }
    expect(log).to.deep.equal(['make 0', 'make 1', 'use 0', 'make 2', 'use 1', 'make 3', 'use 2', 'use 3']);
  });

  it('aborts what it makes when the consumer stops early', async () => {
    let aborted = false;
    const make = async (k: number, signal: AbortSignal): Promise<number> => {
      if (k === 1) await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
      aborted = signal.aborted;
      return k;
    };
    for await (const k of prefetched(3, make, undefined)) {
      expect(k).to.equal(0);
      break;
    }
    expect(aborted).to.equal(true);
  });

  it('reports a failure in its turn, not as unhandled', async () => {
    const make = async (k: number): Promise<number> => {
      if (k === 1) throw new Error('second');
      return k;
    };
    const seen: number[] = [];
    const error = await rejection((async () => {
      for await (const k of prefetched(3, make, undefined)) {
        await tick(10);
        seen.push(k);
      }
    })());
    expect([seen, error.message]).to.deep.equal([[0], 'second']);
  });

  it('bounds what runs at once and throws the failure of the lowest index', async () => {
    let running = 0;
    let most = 0;
    const started: number[] = [];
    const work = async (i: number): Promise<void> => {
      started.push(i);
      most = Math.max(most, ++running);
      await tick(i === 4 ? 12 : 4);
      running--;
      if (i === 4 || i === 5) throw new Error(`at ${i}`);
    };
    expect((await rejection(forEachBounded(50, 3, work))).message).to.equal('at 4');
    expect(most).to.equal(3);
    expect(running, 'those under way are awaited').to.equal(0);
    expect(started.length, 'none is started after a failure').to.be.below(10);
    const all: number[] = [];
    await forEachBounded(7, 3, async (i) => { all.push(i); });
    expect(all.sort()).to.deep.equal([0, 1, 2, 3, 4, 5, 6]);
  });

  it('throws the reason of an aborted signal', async () => {
    const reason = new Error('enough');
    expect(await rejection(forEachBounded(5, 2, async () => undefined, AbortSignal.abort(reason)))).to.equal(reason);
    expect(await rejection(prefetched(2, async (k) => k, AbortSignal.abort(reason)).next())).to.equal(reason);
  });
});

describe('data: labels and the model', () => {
  const dataset = (classNames: string[] | undefined, labels: number[]): Dataset =>
    ({ length: labels.length, name: 'val', labels: Int32Array.from(labels), classNames, batches: () => { throw new Error('not read'); } });

  it('matches by name when the model has labels', () => {
    const found = matchLabels(dataset(['ant', 'bee'], [0, 1, 1, 0]), { classes: 3, labels: ['bee', 'cat', 'ant'] });
    expect(Array.from(found!)).to.deep.equal([2, 0, 0, 2]);
    expect(() => matchLabels(dataset(['ant', 'wasp'], [0, 1]), { classes: 2, labels: ['ant', 'bee'] })).to.throw(/'wasp'.*ant, bee/).with.property('code', 'ERR_DATA');
    expect(() => matchLabels(dataset(['crane'], [0]), { classes: 2, labels: ['crane', 'crane'] })).to.throw(/'crane' is ambiguous/);
  });

  it('else by sorted order, which needs all classes', () => {
    expect(Array.from(matchLabels(dataset(['ant', 'bee'], [1, 0]), { classes: 2 })!)).to.deep.equal([1, 0]);
    expect(() => matchLabels(dataset(['ant', 'bee'], [1, 0]), { classes: 3 })).to.throw(/2 class folders.*3 classes.*--class-names/);
  });

  it('takes indices as they are, in range', () => {
    expect(Array.from(matchLabels(dataset(undefined, [1, 0]), { classes: 2, labels: ['x', 'y'] })!)).to.deep.equal([1, 0]);
    expect(() => matchLabels(dataset(undefined, [1, 2]), { classes: 2 })).to.throw(/label 2 of image 1/);
    expect(matchLabels({ ...dataset(undefined, []), labels: undefined }, { classes: 2 })).to.equal(undefined);
  });

  it('refuses a mixture of pictures with and without a class', () => {
    expect(() => matchLabels(dataset(['ant'], [0, -1]), { classes: 1 })).to.throw(/no class folder/);
  });
});

describe('data: a folder of pictures', () => {
  const dir = temporaryFolder();
  let tree: string;
  before(async () => {
    tree = path.join(dir, 'tree');
    // The red value of a picture is its number in the sorted list.
    const names = ['B/1.PNG', 'B/sub/deep/2.png', 'a/1.png', 'a/10.png', 'a/2.png', 'a b/1.png', 'é/1.png', '\u{1f600}/1.png', '\uff5e/1.png'];
    const sorted = [...names].sort((x, y) => Buffer.compare(Buffer.from(x), Buffer.from(y)));
    for (const [i, name] of sorted.entries()) put(tree, name, await png(rgb(2, 2, () => [i, 0, 0])));
    put(tree, '.hidden/1.png', 'x');
    put(tree, 'a/.1.png', 'x');
    put(tree, 'README.md', 'x');
    put(tree, 'a/labels.csv', 'x');
  });

  it('is sorted by bytes of the path, with first-level folders as classes', () => {
    const data = imageFolder(tree);
    expect(data.paths).to.deep.equal([
      'B/1.PNG', 'B/sub/deep/2.png', 'a b/1.png', 'a/1.png', 'a/10.png', 'a/2.png', 'é/1.png', '\uff5e/1.png', '\u{1f600}/1.png',
    ]);
    expect(data.classNames).to.deep.equal(['B', 'a', 'a b', 'é', '\uff5e', '\u{1f600}']);
    expect(Array.from(data.labels!)).to.deep.equal([0, 0, 2, 1, 1, 1, 3, 4, 5]);
    expect([data.length, data.ignored, data.name]).to.deep.equal([9, 2, tree]);
    expect(data.describe!(3)).to.equal(path.join(tree, 'a', '1.png'));
    // UTF-16 order would put the emoji (a surrogate pair) before U+FF5E.
    expect(sortByBytes(['\u{1f600}', '\uff5e'])).to.deep.equal(['\uff5e', '\u{1f600}']);
  });

  it('comes in batches, all or those asked for', async () => {
    const data = imageFolder(tree);
    const all = await collect(data, { size: 4, preprocess: plain(2) });
    expect(all.map(({ n, first }) => [n, first])).to.deep.equal([[4, 0], [4, 4], [1, 8]]);
    const reds = (b: Batch): number[] => Array.from({ length: b.n }, (_, i) => Math.round(b.images[i * 12]! * 255));
    expect(all.flatMap(reds)).to.deep.equal([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    expect(all.flatMap((b) => Array.from(b.labels!))).to.deep.equal(Array.from(data.labels!));
    const some = await collect(data, { size: 2, indices: [8, 0, 3], preprocess: plain(2) });
    expect(some.flatMap(reds)).to.deep.equal([8, 0, 3]);
    expect(some.map((b) => [b.first, Array.from(b.labels!)])).to.deep.equal([[0, [5, 0]], [2, [1]]]);
    expect(() => data.batches({ size: 0, preprocess: plain(2) })).to.throw(RangeError);
    expect(() => data.batches({ size: 1, indices: [9], preprocess: plain(2) })).to.throw(/indices\[0\]/);
  });

  it('stops at a bad picture, naming it, and on abort', async () => {
    const bad = path.join(dir, 'bad');
    for (let i = 0; i < 6; i++) put(bad, `${i}.png`, i === 3 ? 'broken' : await png(rgb(2, 2, () => [i, 0, 0])));
    const data = imageFolder(bad);
    expect(data.labels, 'no subfolders, no classes').to.equal(undefined);
    const error = await rejection(collect(data, { size: 4, preprocess: plain(2) }));
    expect(error.code).to.equal('ERR_DATA');
    expect(error.message).to.include(path.join(bad, '3.png'));
    const controller = new AbortController();
    const reason = new Error('enough');
    const stopped = await rejection((async () => {
      for await (const _ of data.batches({ size: 1, preprocess: plain(2), signal: controller.signal })) controller.abort(reason);
    })());
    expect(stopped).to.equal(reason);
  });

  it('follows links, once each, and survives loops', function () {
    if (process.platform === 'win32') this.skip();
    const links = path.join(dir, 'links');
    put(links, 'real/1.png', 'x');
    symlinkSync(path.join(links, 'real'), path.join(links, 'again'));
    symlinkSync('..', path.join(links, 'real', 'up'));
    symlinkSync(path.join(links, 'self'), path.join(links, 'self'));
    symlinkSync(path.join(links, 'real', '1.png'), path.join(links, 'real', '2.png'));
    expect(imageFolder(links).paths).to.deep.equal(['again/1.png', 'again/2.png']);
    symlinkSync('nowhere', path.join(links, 'real', '3.png'));
    expect(() => imageFolder(links)).to.throw(/3\.png: no such file/).with.property('code', 'ERR_FILE_NOT_FOUND');
  });

  it('refuses a folder that is none, or has no pictures', () => {
    expect(() => imageFolder(path.join(dir, 'nowhere'))).to.throw(/nowhere/).with.property('code', 'ERR_FILE_NOT_FOUND');
    expect(() => imageFolder(put(dir, 'file.txt', 'x'))).to.throw(/not a folder/).with.property('code', 'ERR_DATA');
    const empty = path.dirname(put(dir, 'empty/notes.txt', 'x'));
    expect(() => imageFolder(empty)).to.throw(/no pictures \(one other file\)/).with.property('code', 'ERR_DATA');
    expect(() => imageFolder(7 as never)).to.throw(TypeError);
  });
});

describe('data: an .npy batch', () => {
  const dir = temporaryFolder();
  const shape = [5, 3, 2, 4];
  const next = random(11);
  const values = Float64Array.from({ length: 120 }, () => next() * 4 - 2);
  const want = Array.from(Float32Array.from(values));

  /** C order → Fortran order of the same array. */
  function fortran(v: Float64Array): Float64Array {
    const [n, c, h, w] = shape as [number, number, number, number];
    const out = new Float64Array(v.length);
    for (let i = 0; i < v.length; i++) {
      const [a, b, y, x] = [Math.floor(i / (c * h * w)), Math.floor(i / (h * w)) % c, Math.floor(i / w) % h, i % w];
      out[a + n * (b + c * (y + h * x))] = v[i]!;
    }
    return out;
  }

  const files: [string, Buffer][] = [
    ['float32, C', npyBytes('<f4', shape, Float32Array.from(values))],
    ['float64, C', npyBytes('<f8', shape, values)],
    ['float32, Fortran', npyBytes('<f4', shape, Float32Array.from(fortran(values)), true)],
    ['float64, Fortran', npyBytes('<f8', shape, fortran(values), true)],
  ];
  for (const [name, content] of files) {
    it(`of ${name} order gives the pictures as they are`, async () => {
      const data = await npyBatch(put(dir, 'x.npy', content), { labels: [4, 3, 2, 1, 0] });
      expect([data.length, data.shape, data.classNames]).to.deep.equal([5, shape, undefined]);
      const preprocess = { size: [2, 4] as const, mean: [9, 9, 9] as const, std: [9, 9, 9] as const };
      const all = await collect(data, { size: 2, preprocess });
      expect(all.map(({ n, first, labels }) => [n, first, Array.from(labels!)])).to.deep.equal([[2, 0, [4, 3]], [2, 2, [2, 1]], [1, 4, [0]]]);
      expect(all.flatMap((b) => Array.from(b.images))).to.deep.equal(want);
      const some = await collect(data, { size: 3, indices: [3, 4, 0, 2], preprocess });
      expect(some.flatMap((b) => Array.from(b.images))).to.deep.equal([3, 4, 0, 2].flatMap((i) => want.slice(i * 24, (i + 1) * 24)));
    });
  }

  it('takes labels of any integer type', async () => {
    const x = put(dir, 'x.npy', files[0]![1]);
    const types: [string, ArrayBufferView][] = [
      ['<i8', BigInt64Array.of(0n, 1n, 2n, 3n, 4n)], ['<i4', Int32Array.of(0, 1, 2, 3, 4)], ['<i2', Int16Array.of(0, 1, 2, 3, 4)],
      ['|i1', Int8Array.of(0, 1, 2, 3, 4)], ['|u1', Uint8Array.of(0, 1, 2, 3, 4)], ['<u2', Uint16Array.of(0, 1, 2, 3, 4)], ['<u8', BigUint64Array.of(0n, 1n, 2n, 3n, 4n)],
    ];
    for (const [descr, data] of types) {
      const { labels } = await npyBatch(x, { labels: put(dir, 'y.npy', npyBytes(descr, [5], data)) });
      expect(Array.from(labels!), descr).to.deep.equal([0, 1, 2, 3, 4]);
    }
  });

  it('refuses what does not fit', async () => {
    const x = put(dir, 'x.npy', files[0]![1]);
    const labels = (content: Buffer): string => put(dir, 'y.npy', content);
    const bad: [() => Promise<unknown>, RegExp, string | undefined][] = [
      [() => npyBatch(put(dir, 'z.npy', npyBytes('<f4', [5, 24], new Float32Array(120)))), /\[N, 3, H, W\].*5×24/, 'ERR_DATA'],
      [() => npyBatch(put(dir, 'u.npy', npyBytes('|u1', shape, new Uint8Array(120)))), /already normalised.*u8/, 'ERR_DATA'],
      [() => npyBatch(put(dir, 'e.npy', npyBytes('<f4', [0, 3, 2, 4], new Float32Array(0)))), /empty/, 'ERR_DATA'],
      [() => npyBatch(put(dir, 't.npy', files[0]![1].subarray(0, 300))), /t\.npy/, 'ERR_FILE_FORMAT'],
      [() => npyBatch(path.join(dir, 'nowhere.npy')), /nowhere/, 'ERR_FILE_NOT_FOUND'],
      [() => npyBatch(x, { labels: labels(npyBytes('<i4', [4], new Int32Array(4))) }), /4 labels.*5 pictures/, 'ERR_DATA'],
      [() => npyBatch(x, { labels: labels(npyBytes('<f4', [5], new Float32Array(5))) }), /y\.npy/, 'ERR_DATA'],
      [() => npyBatch(x, { labels: labels(npyBytes('<i4', [5, 1], new Int32Array(5))) }), /y\.npy/, 'ERR_DATA'],
      [() => npyBatch(x, { labels: [0, 1, -1, 0, 0] }), /label 2 is -1/, 'ERR_DATA'],
      [() => npyBatch(x, { labels: [0, 1.5, 0, 0, 0] }), /labels\[1\]/, undefined],
    ];
    for (const [read, message, code] of bad) {
      const error = await rejection(read());
      expect(error.message).to.match(message);
      expect(error.code, error.message).to.equal(code);
    }
    const data = await npyBatch(x);
    expect(() => data.batches({ size: 1, preprocess: plain(4) })).to.throw(/2×4.*takes 4×4/).with.property('code', 'ERR_DATA');
    put(dir, 'x.npy', npyBytes('<f4', [4, 3, 2, 4], new Float32Array(96)));
    expect((await rejection(collect(data, { size: 1, preprocess: plain([2, 4]) }))).message).to.match(/changed/);
  });
});
