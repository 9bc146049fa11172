/**
 * Vim's configuration (golden README section A): what tensor shapes tell, what `--config` and the
 * registry add, and the published defaults for the rest.
 */
import { Ptq4vmError } from '../errors.js';
import { showShape } from '../tensor.js';
import type { Assumption, Shapes } from './definition.js';
import { Resolver, type Source } from './resolve.js';

export type ClassToken = 'none' | 'head' | 'middle' | 'double';

export interface VimConfig {
  readonly imageSize: number;
  readonly channels: number;
  readonly patch: number;
  readonly stride: number;
  readonly grid: number;
  readonly depth: number;
  readonly dim: number;
  readonly dInner: number;
  readonly dState: number;
  readonly dConv: number;
  readonly dtRank: number;
  readonly classes: number;
  readonly classToken: ClassToken;
  /** Patches + class tokens. */
  readonly len: number;
  readonly positionEmbedding: boolean;
  readonly rope: boolean;
  readonly ropeResidual: boolean;
  readonly rmsNorm: boolean;
  readonly epsilon: number;
  readonly divideOut: boolean;
}

/** Constructor arguments that decide something in Vim. */
export const VIM_KEYS = [
  'img_size', 'patch_size', 'stride', 'depth', 'embed_dim', 'd_state', 'channels', 'num_classes', 'rms_norm', 'if_abs_pos_embed', 'if_rope',
  'if_rope_residual', 'if_cls_token', 'if_divide_out', 'use_double_cls_token', 'use_middle_cls_token', 'norm_epsilon', 'd_conv', 'expand',
] as const;

const PUBLISHED = 'the published Vim default';

/** Values that the tensors' shapes fix. Throws ERR_WEIGHTS when they do not look like Vim at all. */
export function vimValuesFromShapes(shapes: Shapes): Record<string, unknown> {
  const patch = shape(shapes, 'patch_embed.proj.weight', 4);
  const head = shape(shapes, 'head.weight', 2);
  const inProj = shape(shapes, 'layers.0.mixer.in_proj.weight', 2);
  const aLog = shape(shapes, 'layers.0.mixer.A_log', 2);
  const conv = shape(shapes, 'layers.0.mixer.conv1d.weight', 3);
  if (!shapes.has('layers.0.mixer.A_b_log')) {
    throw new Ptq4vmError('ERR_UNSUPPORTED', "This Vim has no backward direction of type 'v2' (no layers.0.mixer.A_b_log): only bimamba v2 is supported");
  }
  const dim = patch[0]!;
  let depth = 0;
  while (shapes.has(`layers.${depth}.mixer.in_proj.weight`)) depth++;
  const double = shapes.has('cls_token_head') && shapes.has('cls_token_tail');
  const single = shapes.has('cls_token');
  return {
    patch_size: patch[2],
    channels: patch[1],
    embed_dim: dim,
    depth,
    num_classes: head[0],
    d_state: aLog[1],
    d_conv: conv[2],
    expand: inProj[0]! / 2 / dim,
    rms_norm: !shapes.has('norm_f.bias'),
    if_abs_pos_embed: shapes.has('pos_embed'),
    if_rope: shapes.has('rope.freqs_cos'),
    if_cls_token: double || single,
    use_double_cls_token: double,
  };
}

export function resolveVimConfig(shapes: Shapes, sources: readonly Source[]): {
  config: VimConfig;
  resolved: Record<string, unknown>;
  assumed: readonly Assumption[];
} {
  const weights = vimValuesFromShapes(shapes);
  const r = new Resolver([{ name: 'the weights', plural: true, values: weights }, ...sources]);
  const patch = r.integer('patch_size');
  const dim = r.integer('embed_dim');
  const expand = r.number('expand');
  const tokens = classTokens(r);
  const positionEmbedding = r.flag('if_abs_pos_embed');
  const rope = r.flag('if_rope');
  const classTokenCount = { none: 0, head: 1, middle: 1, double: 2 }[tokens];
  const patches = patchCount(shapes, classTokenCount);
  const { imageSize, stride, grid } = pictureSize(r, patch, patches, shapes.has('pos_embed') ? 'pos_embed' : 'rope.freqs_cos');
  const dInner = Math.round(expand * dim);
  const config: VimConfig = {
    imageSize,
    channels: r.integer('channels'),
    patch,
    stride,
    grid,
    depth: r.integer('depth'),
    dim,
    dInner,
    dState: r.integer('d_state'),
    dConv: r.integer('d_conv'),
    dtRank: dtRank(shapes),
    classes: r.integer('num_classes'),
    classToken: tokens,
    len: grid * grid + classTokenCount,
    positionEmbedding,
    rope,
    ropeResidual: rope && r.flag('if_rope_residual', true, 'both official rope models rotate the residual too'),
    rmsNorm: r.flag('rms_norm'),
    epsilon: r.number('norm_epsilon', 1e-5),
    divideOut: r.flag('if_divide_out', true, PUBLISHED),
  };
  if (rope && (classTokenCount > 1 || config.grid % 2 !== 0)) {
    throw new Ptq4vmError('ERR_CONFIG', 'Official rope needs an even number of patches and at most one class token');
  }
  return { config, resolved: r.resolved, assumed: r.assumed };
}

function dtRank(shapes: Shapes): number {
  const found = shape(shapes, 'layers.0.mixer.dt_proj.weight', 2);
  if (found[1]! < 1) throw new Ptq4vmError('ERR_WEIGHTS', `Tensor 'layers.0.mixer.dt_proj.weight' is ${showShape(found)}: it has no inputs`);
  return found[1]!;
}

function classTokens(r: Resolver): ClassToken {
  const present = r.flag('if_cls_token');
  const double = r.flag('use_double_cls_token');
  if (!present) return 'none';
  if (double) return 'double';
  return r.flag('use_middle_cls_token', true, PUBLISHED) ? 'middle' : 'head';
}

/** Number of patches, from the tables that have a row per token; undefined when neither table exists. */
function patchCount(shapes: Shapes, classTokenCount: number): number | undefined {
  if (shapes.has('pos_embed')) return shape(shapes, 'pos_embed', 3)[1]! - classTokenCount;
  return shapes.has('rope.freqs_cos') ? shape(shapes, 'rope.freqs_cos', 2)[0] : undefined;
}

/** Picture size and stride that fit the number of patches; `table` names the tensor that tells it. */
function pictureSize(r: Resolver, patch: number, patches: number | undefined, table: string): { imageSize: number; stride: number; grid: number } {
  const gridOf = (size: number, stride: number) => Math.floor((size - patch) / stride) + 1;
  const side = patches === undefined ? undefined : Math.sqrt(patches);
  if (side !== undefined && (!Number.isInteger(side) || side < 1)) {
    throw new Ptq4vmError('ERR_WEIGHTS', `${table} has rows for ${patches} patches, which is not a square grid`);
  }
  // 224 px with stride = patch or half of it are the published ones; otherwise patches that touch.
  const strides = [patch, patch / 2].filter(Number.isInteger);
  const published = side === undefined ? patch : strides.find((s) => gridOf(224, s) === side);
  const stride = r.integer('stride', published ?? patch, published ? PUBLISHED : 'patches that do not overlap');
  const guess = side === undefined || gridOf(224, stride) === side ? 224 : (side - 1) * stride + patch;
  const imageSize = r.integer('img_size', guess, 'from the number of patches');
  const grid = gridOf(imageSize, stride);
  if (grid < 1) throw new Ptq4vmError('ERR_CONFIG', `A picture of img_size ${imageSize} is smaller than a patch of patch_size ${patch}`);
  if (side !== undefined && grid !== side) {
    throw new Ptq4vmError(
      'ERR_CONFIG',
      `Contradiction about the number of patches: ${table} has ${side}×${side}, but img_size ${imageSize}, patch_size ${patch} and stride ${stride} give ${grid}×${grid}`,
    );
  }
  return { imageSize, stride, grid };
}

function shape(shapes: Shapes, name: string, rank: number): readonly number[] {
  const s = shapes.get(name);
  if (s === undefined) throw new Ptq4vmError('ERR_WEIGHTS', `The checkpoint has no tensor '${name}', which every Vim has`);
  if (s.length !== rank) throw new Ptq4vmError('ERR_WEIGHTS', `Tensor '${name}' has ${s.length} dimension${s.length === 1 ? '' : 's'} where ${rank} were expected`);
  return s;
}
