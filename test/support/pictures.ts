/** A few decoded pictures, spread over a folder. */
import { sampleIndices } from '../../lib/data/dataset.js';
import { imageFolder } from '../../lib/data/folder.js';
import type { Preprocess } from '../../lib/data/preprocess.js';

export async function readSome(dir: string, preprocess: Preprocess, count: number): Promise<Float32Array> {
  const folder = imageFolder(dir);
  for await (const batch of folder.batches({ size: count, indices: sampleIndices(folder.length, count), preprocess })) return batch.images;
  throw new Error(`${dir} holds no pictures`);
}
