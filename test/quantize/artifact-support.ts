/** A small Vim of odd sizes for the tests of the quantized file. */
import path from 'node:path';
import { load, type Model, quantize } from '../../lib/model.js';
import type { DType } from '../../lib/tensor.js';
import { memoryDataset, type RandomVim, randomPictures, randomVim, type Variant, writeVim } from '../models/random-vim.js';

/** Odd sizes everywhere: in_proj takes 19 columns, x_proj 38, dt_proj 3. */
const VARIANT: Variant = { dim: 19, dtRank: 3, depth: 1, imageSize: 16, classes: 4, dState: 5, inBias: true };
export const LABELS = ['one', 'zwei', 'τρία', 'quatre "4"'];

export interface Small {
  readonly vim: RandomVim;
  readonly float: Model;
  readonly pictures: Float32Array;
}

export async function small(folder: string, dtype: DType = 'f32'): Promise<Small> {
  const vim = randomVim(VARIANT, `artifact ${dtype}`, dtype);
  const file = await writeVim(path.join(folder, `float-${dtype}.safetensors`), vim.weights);
  const preprocess = { size: vim.imageSize, resize: 20, interpolation: 'bilinear', mean: [0.1, 0.2, 0.3], std: [0.5, 0.25, 2] };
  const float = await load(file, { config: { ...vim.config, preprocess, labels: LABELS } });
  return { vim, float, pictures: randomPictures(vim, 6, 'artifact pictures') };
}

export const calibrated = ({ float, pictures }: Small, weights: number, activations: number, method?: string) =>
  quantize(float, { weights, activations, method, calibration: memoryDataset(pictures, 6) });

export const logitsOf = async (model: Model, pictures: Float32Array) => [...(await model.forward({ dims: [6, 3, 16, 16], data: pictures })).data];
