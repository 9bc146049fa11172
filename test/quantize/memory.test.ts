/** Calibration holds the activations of one block at a time: a deeper model needs no more memory than a shallow one. */
import path from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect } from 'chai';
import { load, quantize } from '../../lib/model.js';
import { scratchFolder } from '../io/support.js';
import { memoryDataset, randomPictures, randomVim, writeVim } from '../models/random-vim.js';

describe('calibration: memory', () => {
  const folder = scratchFolder();
  const IMAGES = 32;

  /** Largest growth of typed arrays, in MB, that is seen between linears and after garbage collection. */
  async function peak(depth: number): Promise<number> {
    setFlagsFromString('--expose_gc');
    const gc = runInNewContext('gc') as () => void;
    const vim = randomVim({ imageSize: 64, dim: 32, depth }, `memory ${depth}`);
    const preprocess = { size: 64, mean: [0, 0, 0], std: [1, 1, 1] };
    const model = await load(await writeVim(path.join(folder(), `${depth}.safetensors`), vim.weights), { config: { ...vim.config, preprocess } });
    const calibration = memoryDataset(randomPictures(vim, IMAGES, 'memory pictures'), IMAGES);
    for (let i = 0; i < 4; i++) {
      gc();
      await new Promise((resolve) => setImmediate(resolve)); // buffers are swept in the background
    }
    const before = process.memoryUsage().arrayBuffers;
    let most = 0;
    const onProgress = () => {
      gc();
      gc();
      most = Math.max(most, process.memoryUsage().arrayBuffers - before);
    };
    const q = await quantize(model, { weights: 8, activations: 8, calibration, method: 'minmax', onProgress });
    await q.dispose();
    await model.dispose();
    return most / 2 ** 20;
  }

  it('does not grow with depth', async function () {
    this.timeout(30_000);
    const [shallow, deep] = [await peak(2), await peak(10)];
    // One block: norm, xz, two convolutions, two x_dbl, two deltas, scan = some 500 channels of 65 tokens, 32 images = 4 MB.
    // Freed buffers are swept in the background, so that one block more may still be counted; ten blocks held would be 40 MB.
    const block = 4;
    expect(shallow, 'MB for two blocks').to.be.within(2, 3 * block);
    expect(deep, `MB for ten blocks; two take ${shallow.toFixed(1)}`).to.be.below(shallow + block);
  });
});
