/** The calibration pictures, in memory. */
import type { Dataset } from '../data/dataset.js';
import { sampleIndices } from '../data/dataset.js';
import type { Preprocess } from '../data/preprocess.js';
import { Ptq4vmError, rangeError, typeError } from '../errors.js';
import type { JobOptions } from '../progress.js';
import { elementCount } from '../tensor.js';

/**
 * Up to `samples` pictures [count, 3, H, W], evenly spread over the dataset: index ⌊i·n/samples⌋ (ARCHITECTURE "Calibration").
 * Throws ERR_DATA for a dataset without images, NaN or infinite pixels (names the image), batches that are not what they say.
 */
export async function gatherCalibration(
  dataset: Dataset,
  model: { readonly inputShape: readonly number[]; readonly preprocess: Preprocess },
  samples: number,
  options: JobOptions & { batchSize?: number } = {},
): Promise<{ images: Float32Array; count: number }> {
  if (typeof dataset?.batches !== 'function') throw typeError('a dataset (imageFolder or npyBatch)', 'calibration', dataset);
  const { batchSize = 32, signal, onProgress } = options;
  if (!Number.isInteger(batchSize) || batchSize < 1) throw rangeError('a positive integer', 'batchSize', batchSize);
  const indices = sampleIndices(dataset.length, samples);
  if (indices.length === 0) throw new Ptq4vmError('ERR_DATA', `${dataset.name} holds no images`);
  const size = elementCount(model.inputShape);
  const images = new Float32Array(indices.length * size);
  let count = 0;
  const { preprocess } = model;
  for await (const batch of dataset.batches({ size: batchSize, indices, preprocess, signal })) {
    if (batch.images.length !== batch.n * size || count + batch.n > indices.length) {
      const got = `${batch.n} images of ${batch.images.length} values after ${count} of ${indices.length} images`;
      throw new Ptq4vmError('ERR_DATA', `${dataset.name} gave ${got}; the model takes ${size} values an image`);
    }
    const bad = batch.images.findIndex((v) => !Number.isFinite(v));
    if (bad >= 0) {
      const index = indices[count + Math.floor(bad / size)]!;
      throw new Ptq4vmError('ERR_DATA', `${dataset.describe?.(index) ?? `${dataset.name}[${index}]`} holds NaN or infinite values`);
    }
    images.set(batch.images, count * size);
    count += batch.n;
    onProgress?.({ stage: 'decode', done: count, total: indices.length });
  }
  if (count < indices.length) throw new Ptq4vmError('ERR_DATA', `${dataset.name} gave ${count} of the ${indices.length} images asked for`);
  return { images, count };
}
