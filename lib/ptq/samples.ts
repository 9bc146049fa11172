/** The calibration pictures, in memory. */
import type { Dataset } from '../data/dataset.js';
import { sampleIndices } from '../data/dataset.js';
import type { Preprocess } from '../data/preprocess.js';
import { typeError } from '../errors.js';
import type { JobOptions } from '../progress.js';
import { elementCount } from '../tensor.js';

/** Up to `samples` pictures [count, 3, H, W], evenly spread over the dataset: index ⌊i·n/samples⌋ (ARCHITECTURE "Calibration"). */
export async function gatherCalibration(
  dataset: Dataset,
  model: { readonly inputShape: readonly number[]; readonly preprocess: Preprocess },
  samples: number,
  options: JobOptions & { batchSize?: number } = {},
): Promise<{ images: Float32Array; count: number }> {
  if (typeof dataset?.batches !== 'function') throw typeError('a dataset (imageFolder or npyBatch)', 'calibration', dataset);
  const indices = sampleIndices(dataset.length, samples);
  const size = elementCount(model.inputShape);
  const images = new Float32Array(indices.length * size);
  let count = 0;
  const { preprocess } = model;
  for await (const batch of dataset.batches({ size: options.batchSize ?? 32, indices, preprocess, signal: options.signal })) {
    images.set(batch.images, count * size);
    count += batch.n;
    options.onProgress?.({ stage: 'decode', done: count, total: indices.length });
  }
  return { images, count };
}
