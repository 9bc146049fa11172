/** Random Vim state dicts of any variant, as a trained checkpoint would have them: no zero bias, norms that do something. */
import type { DType } from '../../lib/tensor.js';
import { fromFloat32, toFloat32 } from '../../lib/tensor.js';
import type { Dataset } from '../../lib/data/dataset.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import type { Weight } from '../../lib/models/definition.js';
import { Random } from '../ops/random.js';
import type { ClassToken, ReferenceOptions } from './vim-reference.js';

/** One variant; what is left out is the published choice at a small size. */
export interface Variant {
  readonly imageSize?: number;
  readonly patch?: number;
  readonly stride?: number;
  readonly channels?: number;
  readonly dim?: number;
  readonly depth?: number;
  readonly dState?: number;
  readonly dConv?: number;
  readonly expand?: number;
  readonly dtRank?: number;
  readonly classes?: number;
  readonly classToken?: ClassToken;
  readonly positionEmbedding?: boolean;
  readonly rope?: boolean;
  readonly ropeResidual?: boolean;
  readonly layerNorm?: boolean;
  readonly inBias?: boolean;
  readonly outBias?: boolean;
  readonly divideOut?: boolean;
  readonly epsilon?: number;
}

export interface RandomVim {
  readonly weights: Map<string, Weight>;
  readonly reference: ReferenceOptions;
  /** As `--config` would state it, complete. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly channels: number;
  readonly imageSize: number;
  readonly classes: number;
}

/** `stream` names the numbers; the seed of the process (test/ops/random.ts, SEED=n repeats it) is mixed in. */
export function randomVim(variant: Variant, stream: string, dtype: DType = 'f32'): RandomVim {
  const {
    imageSize = 32, patch = 8, stride = patch, channels = 3, dim = 32, depth = 2, dState = 16, dConv = 4, expand = 2, dtRank = Math.ceil(dim / 16),
    classes = 6, classToken = 'middle', positionEmbedding = true, rope = false, ropeResidual = rope, layerNorm = false, inBias = false, outBias = false,
    divideOut = true, epsilon = 1e-5,
  } = variant;
  const draw = new Random(stream);
  const weights = new Map<string, Weight>();
  const put = (name: string, shape: readonly number[], value: (i: number) => number) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => value(i));
    // Rounded to what the type holds, so that the file and the reference start from the same numbers.
    weights.set(name, { shape, dtype, data: toFloat32({ dtype, shape, data: fromFloat32(data, dtype) }) });
  };
  const normal = (deviation: number, mean = 0) => () => mean + deviation * draw.normal();
  const linear = (name: string, out: number, input: number, bias: boolean) => {
    put(`${name}.weight`, [out, input], normal(1 / Math.sqrt(input)));
    if (bias) put(`${name}.bias`, [out], normal(0.3));
  };
  const norm = (name: string) => {
    put(`${name}.weight`, [dim], normal(0.2, 1));
    if (layerNorm) put(`${name}.bias`, [dim], normal(0.3));
  };

  const grid = Math.floor((imageSize - patch) / stride) + 1;
  const inner = expand * dim;
  const tokens = { none: 0, head: 1, middle: 1, double: 2 }[classToken];
  if (classToken === 'double') {
    put('cls_token_head', [1, 1, dim], normal(0.7));
    put('cls_token_tail', [1, 1, dim], normal(0.7));
  } else if (classToken !== 'none') {
    put('cls_token', [1, 1, dim], normal(0.7));
  }
  if (positionEmbedding) put('pos_embed', [1, grid * grid + tokens, dim], normal(0.5));
  put('patch_embed.proj.weight', [dim, channels, patch, patch], normal(1 / patch));
  put('patch_embed.proj.bias', [dim], normal(0.3));
  if (rope) {
    const angle = (i: number) => {
      const token = Math.floor(i / dim);
      const k = i % dim;
      const position = k < dim / 2 ? Math.floor(token / grid) : token % grid;
      return ((position / grid) * 14) / 10000 ** ((2 * Math.floor((k % (dim / 2)) / 2)) / (dim / 2));
    };
    put('rope.freqs_cos', [grid * grid, dim], (i) => Math.cos(angle(i)));
    put('rope.freqs_sin', [grid * grid, dim], (i) => Math.sin(angle(i)));
  }
  for (let layer = 0; layer < depth; layer++) {
    const m = `layers.${layer}.mixer`;
    norm(`layers.${layer}.norm`);
    linear(`${m}.in_proj`, 2 * inner, dim, inBias);
    for (const s of ['', '_b']) {
      put(s === '' ? `${m}.A_log` : `${m}.A_b_log`, [inner, dState], (i) => Math.log(1 + (i % dState)) + 0.3 * draw.normal());
      put(`${m}.D${s}`, [inner], normal(0.3, 1));
      put(`${m}.conv1d${s}.weight`, [inner, 1, dConv], normal(1 / Math.sqrt(dConv)));
      put(`${m}.conv1d${s}.bias`, [inner], normal(0.2));
      linear(`${m}.x_proj${s}`, dtRank + 2 * dState, inner, false);
      put(`${m}.dt_proj${s}.weight`, [inner, dtRank], normal(0.5 / Math.sqrt(dtRank)));
      put(`${m}.dt_proj${s}.bias`, [inner], normal(1, -3));
    }
    linear(`${m}.out_proj`, dim, inner, outBias);
  }
  norm('norm_f');
  put('head.weight', [classes, dim], normal(1 / Math.sqrt(dim)));
  put('head.bias', [classes], normal(0.3));

  const cls = classToken !== 'none';
  return {
    weights,
    reference: { imageSize, stride, classToken, divideOut, ropeResidual, epsilon },
    channels, imageSize, classes,
    config: {
      family: 'vim', norm_epsilon: epsilon, d_state: dState, d_conv: dConv, expand,
      constructor: {
        img_size: imageSize, patch_size: patch, stride, channels, depth, embed_dim: dim, num_classes: classes, rms_norm: !layerNorm,
        if_abs_pos_embed: positionEmbedding, if_rope: rope, if_rope_residual: ropeResidual, if_cls_token: cls,
        use_middle_cls_token: classToken === 'middle', use_double_cls_token: classToken === 'double', if_divide_out: divideOut,
      },
    },
  };
}

/** Pictures [count, channels, size, size] standard normal. */
export function randomPictures(vim: RandomVim, count: number, stream: string): Float32Array {
  return new Random(stream).floats(count * vim.channels * vim.imageSize ** 2);
}

export async function writeVim(path: string, weights: ReadonlyMap<string, Weight>, metadata: Readonly<Record<string, string>> = {}): Promise<string> {
  const tensors = [...weights].map(([name, { dtype, shape, data }]) => ({ name, dtype, shape, data: fromFloat32(data, dtype) }));
  await writeSafetensors(path, tensors, metadata);
  return path;
}

/** Shapes by name, all that configuration is inferred from. */
export function shapesOf(weights: ReadonlyMap<string, { readonly shape: readonly number[] }>): Map<string, readonly number[]> {
  return new Map([...weights].map(([name, w]) => [name, w.shape]));
}

/** Pictures in memory as a dataset, e.g. for calibration. */
export function memoryDataset(images: Float32Array, count: number, name = 'pictures in memory'): Dataset {
  const size = images.length / count;
  return {
    length: count, name,
    describe: (index) => `${name} #${index}`,
    async *batches({ size: batch, indices, signal }) {
      const order = indices === undefined ? [...Array(count).keys()] : Array.from(indices);
      for (let first = 0; first < order.length; first += batch) {
        signal?.throwIfAborted();
        const some = order.slice(first, first + batch);
        const data = new Float32Array(some.length * size);
        some.forEach((index, i) => data.set(images.subarray(index * size, (index + 1) * size), i * size));
        yield { images: data, n: some.length, first };
      }
    },
  };
}
