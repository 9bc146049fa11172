import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

interface Shape {
  readonly images?: number;
  readonly planes?: number;
  readonly height: number;
  readonly width: number;
  readonly patch: number;
  readonly stride?: number;
  readonly dim: number;
  readonly bias?: boolean;
  readonly fill?: Fill;
}

const patchEmbed = ({ images = 1, planes = 3, height, width, patch, stride = patch, dim, bias = true, fill }: Shape) => (r: Random): OpCall => {
  const cells = (size: number) => Math.floor((size - patch) / stride) + 1;
  const k = planes * patch * patch;
  return {
    kind: 'patchEmbed', images,
    inputs: { x: floats(r, images, planes, height * width, fill) },
    outputs: { y: { rows: cells(height) * cells(width), channels: dim } },
    constants: { weight: r.floats(dim * k, () => r.normal() / Math.sqrt(k)), bias: bias ? r.floats(dim) : undefined },
    attributes: { height, width, patch, stride },
  };
};

export const patchEmbedCases: readonly OpCase[] = [
  { name: 'one pixel', make: patchEmbed({ planes: 1, height: 1, width: 1, patch: 1, dim: 1 }) },
  { name: 'patch as large as the picture', make: patchEmbed({ height: 11, width: 11, patch: 11, dim: 7 }) },
  { name: 'patches of one pixel', make: patchEmbed({ height: 5, width: 7, patch: 1, dim: 17 }) },
  { name: 'tall picture, one column', make: patchEmbed({ height: 61, width: 4, patch: 4, dim: 13 }) },
  { name: 'pixels left over at the edges', make: patchEmbed({ height: 23, width: 30, patch: 7, dim: 31 }) },
  { name: 'overlapping patches', make: patchEmbed({ height: 21, width: 26, patch: 8, stride: 3, dim: 33 }) },
  { name: 'gaps between patches', make: patchEmbed({ height: 21, width: 26, patch: 3, stride: 5, dim: 33 }) },
  { name: 'five planes', make: patchEmbed({ planes: 5, height: 17, width: 19, patch: 4, dim: 49 }) },
  { name: 'no bias', make: patchEmbed({ height: 16, width: 16, patch: 4, dim: 18, bias: false }) },
  { name: 'three images', make: patchEmbed({ images: 3, height: 20, width: 16, patch: 4, dim: 50 }) },
  { name: 'more patches than a chunk', make: patchEmbed({ height: 34, width: 34, patch: 2, dim: 9 }) },
  { name: 'planes of a constant', make: patchEmbed({ images: 2, height: 20, width: 16, patch: 4, dim: 18, fill: FILLS['constant rows']! }) },
  { name: 'black picture', make: patchEmbed({ height: 20, width: 16, patch: 4, dim: 18, fill: () => 0 }) },
  { name: 'outlier pixels', make: patchEmbed({ height: 20, width: 16, patch: 4, dim: 18, fill: (r, _i, _row, k) => r.normal() * (k % 37 === 5 ? 500 : 1) }) },
  { name: 'NaN in one pixel', make: patchEmbed({ images: 2, height: 20, width: 16, patch: 4, dim: 18, fill: (r, image, row, k) => (image === 1 && row === 2 && k === 100 ? NaN : r.normal()) }) },
  ...VIM.map(({ model, dim }) => ({ name: 'patch_embed', model, make: patchEmbed({ height: 224, width: 224, patch: 16, dim }) })),
  { name: 'patch_embed, stride 8', model: 'Vim-T', make: patchEmbed({ height: 224, width: 224, patch: 16, stride: 8, dim: 192 }) },
];
