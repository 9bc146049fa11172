/** Pictures in batches: what calibration and evaluation read from, whatever lies behind it. */
import { Ptq4vmError, rangeError, throwIfAborted } from '../errors.js';
import type { Preprocess } from './preprocess.js';

export interface BatchRequest {
  /** Images per batch; the last batch may be smaller. */
  readonly size: number;
  /** Which images, in this order; absent = all. */
  readonly indices?: ArrayLike<number>;
  /** The model's; decoded pictures come out with its size and normalisation. Batches that are already normalised only check its size. */
  readonly preprocess: Preprocess;
  readonly signal?: AbortSignal;
}

export interface Batch {
  /** [n, 3, H, W]. */
  readonly images: Float32Array;
  readonly n: number;
  /** Place of the first image within the request: image i of this batch is number `first + i` of `indices` (or of the dataset). */
  readonly first: number;
  /** The dataset's labels of these images, [n]. */
  readonly labels?: Int32Array;
}

export interface Dataset {
  readonly length: number;
  /** For messages: the folder or file. */
  readonly name: string;
  /** Class of every image: an index into `classNames`, or into the model's classes where there are none; −1 = no class. */
  readonly labels?: Int32Array;
  /** Names of the classes that `labels` counts, sorted by bytes. */
  readonly classNames?: readonly string[];
  /** Name of one image, for messages. */
  describe?(index: number): string;
  batches(request: BatchRequest): AsyncIterable<Batch>;
}

/**
 * Which of `n` images to take when `samples` are asked for: index ⌊i·n / samples⌋, spread evenly over the sorted
 * list; all where there are no more than `samples`.
 */
export function sampleIndices(n: number, samples: number): Int32Array {
  if (!Number.isInteger(n) || n < 0) throw rangeError('a non-negative integer', 'n', n);
  if (!Number.isInteger(samples) || samples < 1) throw rangeError('a positive integer', 'samples', samples);
  const count = Math.min(n, samples);
  return Int32Array.from({ length: count }, (_, i) => Math.floor((i * n) / count));
}

/** Checks `size` and `indices` of a request against a dataset of `length` images; returns the number of images asked for. */
export function checkRequest(request: BatchRequest, length: number): number {
  const { size, indices } = request;
  if (!Number.isInteger(size) || size < 1) throw rangeError('a positive integer', 'size', size);
  if (indices === undefined) return length;
  for (let i = 0; i < indices.length; i++) {
    const index = indices[i]!;
    if (!Number.isInteger(index) || index < 0 || index >= length) throw rangeError(`an index below ${length}`, `indices[${i}]`, index);
  }
  return indices.length;
}

/**
 * Yields `make(0)`, …, `make(count − 1)` in order, always making one more while the consumer works on the last: decoding
 * overlaps inference and at most two batches are in memory. A consumer that stops early aborts what is being made.
 */
export async function* prefetched<T>(
  count: number,
  make: (k: number, signal: AbortSignal) => Promise<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T, void, undefined> {
  const stop = new AbortController();
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const start = (k: number): Promise<T> => {
    const made = make(k, either);
    // Its failure is reported when it is awaited; until then it must not count as unhandled.
    made.catch(() => undefined);
    return made;
  };
  let pending: Promise<T> | undefined;
  try {
    for (let k = 0; k < count; k++) {
      throwIfAborted(signal);
      const made = await (pending ?? start(k));
      throwIfAborted(signal);
      pending = k + 1 < count ? start(k + 1) : undefined;
      yield made;
    }
  } finally {
    stop.abort();
    await pending?.catch(() => undefined);
  }
}

/**
 * `work(0)` … `work(n − 1)` with at most `limit` at once. After a failure or an abort no more are started; those under
 * way are awaited, and of several failures the one with the lowest index is thrown.
 */
export async function forEachBounded(n: number, limit: number, work: (i: number) => Promise<void>, signal?: AbortSignal): Promise<void> {
  let next = 0;
  const failures: { index: number; error: unknown }[] = [];
  const runner = async (): Promise<void> => {
    while (next < n && failures.length === 0 && signal?.aborted !== true) {
      const i = next++;
      try {
        await work(i);
      } catch (error) {
        failures.push({ index: i, error });
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, n) }, runner));
  throwIfAborted(signal);
  if (failures.length > 0) throw failures.reduce((a, b) => (b.index < a.index ? b : a)).error;
}

/**
 * The dataset's labels as indices into a model's classes, [length].
 *
 * With class names and model labels they are matched by name; without model labels the sorted class names stand for
 * 0, 1, 2, …, which needs as many of them as the model has classes. Returns undefined where the dataset has no labels.
 *
 * @throws Ptq4vmError ERR_DATA naming what does not fit
 */
export function matchLabels(dataset: Dataset, model: { classes: number; labels?: readonly string[] }): Int32Array | undefined {
  const { labels, classNames, name } = dataset;
  if (labels === undefined) return undefined;
  const without = labels.indexOf(-1);
  if (without >= 0) {
    throw new Ptq4vmError('ERR_DATA', `${name}: ${dataset.describe?.(without) ?? `image ${without}`} lies in no class folder, others do`);
  }
  if (classNames === undefined) {
    const bad = labels.findIndex((v) => v < 0 || v >= model.classes);
    if (bad >= 0) {
      throw new Ptq4vmError('ERR_DATA', `${name}: label ${labels[bad]} of image ${bad} is not one of the model's ${model.classes} classes`);
    }
    return labels;
  }
  const index = model.labels === undefined ? byOrder(classNames, model.classes, name) : byName(classNames, model.labels, name);
  return labels.map((v) => index[v]!);
}

function byOrder(classNames: readonly string[], classes: number, name: string): number[] {
  if (classNames.length !== classes) {
    throw new Ptq4vmError(
      'ERR_DATA',
      `${name} has ${classNames.length} class folders, the model ${classes} classes and no labels to match them by: give the labels (--class-names)`,
    );
  }
  return classNames.map((_, i) => i);
}

function byName(classNames: readonly string[], labels: readonly string[], name: string): number[] {
  return classNames.map((className) => {
    const found = labels.indexOf(className);
    if (found < 0) {
      const some = labels.slice(0, 5).join(', ');
      throw new Ptq4vmError('ERR_DATA', `${name}: class folder '${className}' is none of the model's ${labels.length} labels (${some}${labels.length > 5 ? ', …' : ''})`);
    }
    if (labels.indexOf(className, found + 1) >= 0) {
      throw new Ptq4vmError('ERR_DATA', `${name}: class folder '${className}' is ambiguous, the model has that label more than once`);
    }
    return found;
  });
}
