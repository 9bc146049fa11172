/** Accuracy, speed and fidelity of a model on a dataset. Needs of a model only what `ForwardModel` says. */
import { type Batch, type Dataset, matchLabels } from './data/dataset.js';
import { type Preprocess, sizeOf } from './data/preprocess.js';
import { Ptq4vmError, rangeError, throwIfAborted } from './errors.js';
import type { JobOptions } from './progress.js';
import { type Tensor, sameShape, showShape } from './tensor.js';

export interface ForwardModel {
  /** [3, H, W] of one picture. */
  readonly inputShape: readonly [number, number, number];
  readonly classes: number;
  readonly labels?: readonly string[];
  readonly preprocess: Preprocess;
  /** [n, 3, H, W] → logits [n, classes]. */
  forward(input: Tensor, options?: { signal?: AbortSignal }): Promise<Tensor>;
}

export interface EvaluateOptions extends JobOptions {
  /** Images per call of `forward`, default 32. */
  readonly batchSize?: number;
  /** A model of the same input and classes to compare with, usually the float original. It is given the very same input. */
  readonly reference?: ForwardModel;
}

export interface ReferenceReport {
  /** Of the reference, a fraction; absent without labels. */
  readonly top1?: number;
  /** Fraction of images on which both models name the same class. */
  readonly agreement: number;
  /** Mean over images of KL(softmax(reference) ‖ softmax(model)), in nats. */
  readonly kl: number;
  /** Relative L2 error of all logits: ‖model − reference‖ / ‖reference‖. */
  readonly logitError: number;
}

export interface EvaluateReport {
  readonly images: number;
  /** Fractions; absent without labels. */
  readonly top1?: number;
  readonly top5?: number;
  /** Of the model's forward calls alone; reading, decoding and the reference are not counted, though decoding goes on beside them. */
  readonly imagesPerSecond: number;
  readonly reference?: ReferenceReport;
}

/**
 * Runs `model` over all of `dataset` in order. The next batch is decoded while one is inferred.
 *
 * @throws RangeError for a reference of other input or classes; Ptq4vmError ERR_DATA for labels that do not fit the
 *   model, unusable images and logits that are not finite (names the image); the signal's reason when aborted
 */
export async function evaluate(model: ForwardModel, dataset: Dataset, options: EvaluateOptions = {}): Promise<EvaluateReport> {
  const { batchSize = 32, reference, signal, onProgress } = options;
  if (!Number.isInteger(batchSize) || batchSize < 1) throw rangeError('a positive integer', 'batchSize', batchSize);
  checkModels(model, reference);
  throwIfAborted(signal);
  const labels = matchLabels(dataset, model);
  const total = dataset.length;
  if (total === 0) throw new Ptq4vmError('ERR_DATA', `${dataset.name} holds no images`);

  const own = new Hits();
  const referenceHits = new Hits();
  const fidelity = new Fidelity();
  let done = 0;
  let milliseconds = 0;
  onProgress?.({ stage: 'evaluate', done: 0, total });
  for await (const batch of dataset.batches({ size: batchSize, preprocess: model.preprocess, signal })) {
    const input: Tensor = { dims: [batch.n, ...model.inputShape], data: batch.images };
    const start = performance.now();
    const logits = await logitsOf(model, input, dataset, batch, signal);
    milliseconds += performance.now() - start;
    const other = reference && (await logitsOf(reference, input, dataset, batch, signal));
    for (let i = 0; i < batch.n; i++) {
      const row = rowOf(logits, i, model.classes);
      const label = labels?.[batch.first + i];
      own.add(row, label);
      if (other) {
        const referenceRow = rowOf(other, i, model.classes);
        referenceHits.add(referenceRow, label);
        fidelity.add(row, referenceRow);
      }
    }
    done += batch.n;
    const detail = labels ? `top-1 ${(100 * (own.top1 / done)).toFixed(1)} %` : undefined;
    onProgress?.({ stage: 'evaluate', done, total, detail });
    throwIfAborted(signal);
  }
  return {
    images: done,
    ...(labels ? { top1: own.top1 / done, top5: own.top5 / done } : {}),
    imagesPerSecond: (1000 * done) / milliseconds,
    ...(reference ? { reference: { ...(labels ? { top1: referenceHits.top1 / done } : {}), ...fidelity.result() } } : {}),
  };
}

function checkModels(model: ForwardModel, reference: ForwardModel | undefined): void {
  const [, height, width] = model.inputShape;
  const size = sizeOf(model.preprocess);
  if (!sameShape(size, [height, width])) {
    throw new Ptq4vmError('ERR_CONFIG', `Preprocessing makes pictures of ${showShape(size)}, the model takes ${height}×${width}`);
  }
  if (reference === undefined) return;
  if (!sameShape(reference.inputShape, model.inputShape)) {
    throw rangeError(`a model of input ${showShape(model.inputShape)}`, 'reference', `input ${showShape(reference.inputShape)}`);
  }
  if (reference.classes !== model.classes) throw rangeError(`a model of ${model.classes} classes`, 'reference', `${reference.classes} classes`);
}

/** Logits of one batch, checked: a NaN counted as a wrong answer would pass for a number. */
async function logitsOf(
  model: ForwardModel,
  input: Tensor,
  dataset: Dataset,
  batch: Batch,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const { dims, data } = await model.forward(input, { signal });
  if (!sameShape(dims, [batch.n, model.classes])) {
    throw new Ptq4vmError('ERR_ENGINE', `Expected logits of ${batch.n}×${model.classes} but the model gave ${showShape(dims)}`);
  }
  const bad = data.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0) {
    const image = batch.first + Math.floor(bad / model.classes);
    const name = dataset.describe?.(image) ?? `${dataset.name}[${image}]`;
    throw new Ptq4vmError('ERR_DATA', `Logit ${bad % model.classes} of ${name} is ${data[bad]}: the image or the weights are out of range`);
  }
  return data;
}

function rowOf(logits: Float32Array, i: number, classes: number): Float32Array {
  return logits.subarray(i * classes, (i + 1) * classes);
}

class Hits {
  top1 = 0;
  top5 = 0;

  add(row: Float32Array, label: number | undefined): void {
    if (label === undefined) return;
    const rank = rankOf(row, label);
    if (rank < 1) this.top1++;
    if (rank < 5) this.top5++;
  }
}

/** How many classes come before `label`: those with a larger logit, or an equal one and a smaller index (as argmax does). */
function rankOf(row: Float32Array, label: number): number {
  const own = row[label]!;
  let rank = 0;
  for (let c = 0; c < row.length; c++) if (row[c]! > own || (row[c] === own && c < label)) rank++;
  return rank;
}

class Fidelity {
  #agree = 0;
  #kl = 0;
  #difference = 0;
  #norm = 0;
  #rows = 0;

  add(row: Float32Array, reference: Float32Array): void {
    this.#rows++;
    if (argmax(row) === argmax(reference)) this.#agree++;
    const logZ = logSumExp(row);
    const logZReference = logSumExp(reference);
    let kl = 0;
    for (let c = 0; c < row.length; c++) {
      const logP = reference[c]! - logZReference;
      kl += Math.exp(logP) * (logP - (row[c]! - logZ));
      this.#difference += (row[c]! - reference[c]!) ** 2;
      this.#norm += reference[c]! ** 2;
    }
    // Rounding can leave a sum of the order of −1e-17 where the true value is 0.
    this.#kl += Math.max(0, kl);
  }

  result(): { agreement: number; kl: number; logitError: number } {
    const error = this.#difference === 0 ? 0 : Math.sqrt(this.#difference / this.#norm);
    return { agreement: this.#agree / this.#rows, kl: this.#kl / this.#rows, logitError: error };
  }
}

/** Index of the largest value, the first of equals. */
export function argmax(row: Float32Array): number {
  let best = 0;
  for (let c = 1; c < row.length; c++) if (row[c]! > row[best]!) best = c;
  return best;
}

/** log Σ exp(v), in double and without overflow. */
export function logSumExp(row: Float32Array): number {
  const max = row[argmax(row)]!;
  let sum = 0;
  for (let c = 0; c < row.length; c++) sum += Math.exp(row[c]! - max);
  return max + Math.log(sum);
}

export interface Prediction {
  readonly index: number;
  /** The model's label, or `class <index>` where it has none. */
  readonly label: string;
  /** Softmax probability. */
  readonly score: number;
}

/** The `k` most probable classes of one row of logits, best first; equals in order of index. */
export function topPredictions(row: Float32Array, k: number, labels?: readonly string[]): Prediction[] {
  if (!Number.isInteger(k) || k < 1) throw rangeError('a positive integer', 'topK', k);
  const logZ = logSumExp(row);
  return Array.from(row.keys())
    .sort((a, b) => row[b]! - row[a]! || a - b)
    .slice(0, k)
    .map((index) => ({ index, label: labels?.[index] ?? `class ${index}`, score: Math.exp(row[index]! - logZ) }));
}
