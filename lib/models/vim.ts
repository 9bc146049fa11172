/**
 * Vim (Vision Mamba, Zhu et al. 2024, arXiv 2401.09417) as a Program. The exact order of operations,
 * the class-token positions and the quirks of the official code are golden README section A.
 */
import type { LinearKind, Op, Program, Ref } from '../program/ir.js';
import { ProgramBuilder } from '../program/builder.js';
import type { Weights } from './definition.js';
import type { VimConfig } from './vim-config.js';

const RMS_NORM = 0;
const LAYER_NORM = 1;

/** Suffixes of the parameters of the forward and the backward direction. */
const DIRECTIONS = ['', '_b'] as const;

/** Every tensor of the state dict, with its shape. */
export function vimTensors(c: VimConfig, present: { has(name: string): boolean }): Map<string, readonly number[]> {
  const t = new Map<string, readonly number[]>();
  const norm = (name: string) => {
    t.set(`${name}.weight`, [c.dim]);
    if (!c.rmsNorm) t.set(`${name}.bias`, [c.dim]);
  };
  // Linears that the official code makes without a bias may have one in variants (`bias=True`).
  const linear = (name: string, out: number, input: number, bias = present.has(`${name}.bias`)) => {
    t.set(`${name}.weight`, [out, input]);
    if (bias) t.set(`${name}.bias`, [out]);
  };
  if (c.classToken === 'double') {
    t.set('cls_token_head', [1, 1, c.dim]);
    t.set('cls_token_tail', [1, 1, c.dim]);
  } else if (c.classToken !== 'none') {
    t.set('cls_token', [1, 1, c.dim]);
  }
  if (c.positionEmbedding) t.set('pos_embed', [1, c.len, c.dim]);
  t.set('patch_embed.proj.weight', [c.dim, c.channels, c.patch, c.patch]);
  t.set('patch_embed.proj.bias', [c.dim]);
  if (c.rope) {
    t.set('rope.freqs_cos', [c.grid * c.grid, c.dim]);
    t.set('rope.freqs_sin', [c.grid * c.grid, c.dim]);
  }
  for (let i = 0; i < c.depth; i++) {
    const m = `layers.${i}.mixer`;
    norm(`layers.${i}.norm`);
    linear(`${m}.in_proj`, 2 * c.dInner, c.dim);
    for (const s of DIRECTIONS) {
      t.set(s ? `${m}.A_b_log` : `${m}.A_log`, [c.dInner, c.dState]);
      t.set(`${m}.D${s}`, [c.dInner]);
      t.set(`${m}.conv1d${s}.weight`, [c.dInner, 1, c.dConv]);
      t.set(`${m}.conv1d${s}.bias`, [c.dInner]);
      linear(`${m}.x_proj${s}`, c.dtRank + 2 * c.dState, c.dInner);
      linear(`${m}.dt_proj${s}`, c.dInner, c.dtRank, true);
    }
    linear(`${m}.out_proj`, c.dim, c.dInner);
  }
  norm('norm_f');
  linear('head', c.classes, c.dim, true);
  return t;
}

/** Positions of the class tokens in the sequence. */
function classPositions(c: VimConfig): number[] {
  const patches = c.grid * c.grid;
  switch (c.classToken) {
    case 'none': return [];
    case 'head': return [0];
    case 'middle': return [Math.floor(patches / 2)];
    case 'double': return [0, patches + 1];
  }
}

export function buildVim(c: VimConfig, weights: Weights): Program {
  const b = new ProgramBuilder();
  const w = (name: string) => weights.get(name)!.data;
  const optional = (name: string) => weights.get(name)?.data;

  const image = b.tensor('image', c.channels, c.imageSize * c.imageSize);
  const patches = b.tensor('patches', c.grid * c.grid, c.dim);
  b.op({
    kind: 'patchEmbed', name: 'patch_embed', inputs: { x: image }, outputs: { y: patches },
    constants: { weight: w('patch_embed.proj.weight'), bias: w('patch_embed.proj.bias') },
    attributes: { height: c.imageSize, width: c.imageSize, patch: c.patch, stride: c.stride },
    independent: ['batch', 'token', 'channel'],
  });
  let hidden = assembleTokens(b, c, weights, patches);
  let residual: Ref | undefined;
  const reversed = Int32Array.from({ length: c.len }, (_, t) => c.len - 1 - t);

  for (let i = 0; i < c.depth; i++) {
    const layer = `layers.${i}`;
    const inputs = residual ? [hidden, residual] : [hidden];
    const stream = b.tensor(`${layer}.residual`, c.len, c.dim);
    hidden = b.block(layer, inputs, () => {
      const x = c.rope ? rope(b, c, weights, hidden, `${layer}.rope`) : hidden;
      const r = residual && c.rope && c.ropeResidual ? rope(b, c, weights, residual, `${layer}.rope_residual`) : residual;
      const normed = b.tensor(`${layer}.norm`, c.len, c.dim);
      b.op(addNorm(c, `${layer}.norm`, { x, residual: r }, { residual: stream, y: normed }, w(`${layer}.norm.weight`), optional(`${layer}.norm.bias`)));
      return mixer(b, c, weights, `${layer}.mixer`, normed, reversed);
    });
    residual = stream;
  }
  const logits = head(b, c, weights, hidden, residual);
  return b.build(image, logits);
}

function assembleTokens(b: ProgramBuilder, c: VimConfig, weights: Weights, patches: Ref): Ref {
  const tokens = b.tensor('tokens', c.len, c.dim);
  const positions = classPositions(c);
  const source = new Int32Array(c.len);
  for (let t = 0, patch = 0; t < c.len; t++) {
    const cls = positions.indexOf(t);
    source[t] = cls >= 0 ? -1 - cls : patch++;
  }
  const names = c.classToken === 'double' ? ['cls_token_head', 'cls_token_tail'] : c.classToken === 'none' ? [] : ['cls_token'];
  const cls = new Float32Array(names.length * c.dim);
  for (const [i, name] of names.entries()) cls.set(weights.get(name)!.data, i * c.dim);
  b.op({
    kind: 'assembleTokens', name: 'tokens', inputs: { x: patches }, outputs: { y: tokens },
    constants: { source, cls: names.length ? cls : undefined, pos: weights.get('pos_embed')?.data },
    attributes: {}, independent: ['batch', 'token', 'channel'],
  });
  return tokens;
}

/** Golden README A.7: with an odd sequence the official code leaves token 0 alone, wherever the class token is. */
function rope(b: ProgramBuilder, c: VimConfig, weights: Weights, x: Ref, name: string): Ref {
  const y = b.tensor(name, c.len, c.dim);
  b.op({
    kind: 'rope', name, inputs: { x }, outputs: { y },
    constants: { cos: weights.get('rope.freqs_cos')!.data, sin: weights.get('rope.freqs_sin')!.data },
    attributes: { firstToken: c.len % 2 }, independent: ['batch', 'token'],
  });
  return y;
}

function addNorm(
  c: VimConfig, name: string, inputs: { x: Ref; residual?: Ref }, outputs: { residual?: Ref; y: Ref }, weight: Float32Array, bias?: Float32Array,
): Op {
  return {
    kind: 'addNorm', name, inputs, outputs, constants: { weight, bias },
    attributes: { norm: c.rmsNorm ? RMS_NORM : LAYER_NORM, epsilon: c.epsilon }, independent: ['batch', 'token'],
  };
}

/** The bidirectional Mamba mixer (golden README A.6): both directions, their sum (halved if configured), out_proj. */
function mixer(b: ProgramBuilder, c: VimConfig, weights: Weights, name: string, x: Ref, reversed: Int32Array): Ref {
  const linear = (suffix: string, kind: LinearKind, input: Ref, channels: number, direction: number, output: string): Ref => {
    const y = b.tensor(output, c.len, channels);
    const full = `${name}.${suffix}`;
    b.op({
      kind: 'linear', name: full, inputs: { x: input }, outputs: { y },
      constants: { weight: weights.get(`${full}.weight`)!.data, bias: weights.get(`${full}.bias`)?.data },
      attributes: {}, independent: ['batch', 'token', 'channel'],
    });
    b.linear({ name: full, kind, direction, len: c.len, table: direction === 1 ? reversed : undefined });
    return y;
  };

  const xz = linear('in_proj', 'in_proj', x, 2 * c.dInner, -1, `${name}.xz`);
  const u: Ref = { ...xz, from: 0, channels: c.dInner };
  const scan: { inputs: Record<string, Ref>; constants: Record<string, Float32Array | Int32Array | undefined> } = {
    inputs: { z: { ...xz, from: c.dInner, channels: c.dInner } },
    constants: {},
  };
  DIRECTIONS.forEach((s, d) => {
    const table = d === 1 ? reversed : undefined;
    const conv = b.tensor(`${name}.conv1d${s}`, c.len, c.dInner);
    b.op({
      kind: 'convSilu', name: `${name}.conv1d${s}`, inputs: { x: u }, outputs: { y: conv },
      constants: { weight: weights.get(`${name}.conv1d${s}.weight`)!.data, bias: weights.get(`${name}.conv1d${s}.bias`)!.data, table },
      attributes: { width: c.dConv }, independent: ['batch', 'channel'],
    });
    const xDbl = linear(`x_proj${s}`, 'x_proj', conv, c.dtRank + 2 * c.dState, d, `${name}.x_dbl${s}`);
    const delta = linear(`dt_proj${s}`, 'dt_proj', { ...xDbl, from: 0, channels: c.dtRank }, c.dInner, d, `${name}.delta${s}`);
    Object.assign(scan.inputs, {
      [`u${d}`]: conv,
      [`delta${d}`]: delta,
      [`b${d}`]: { ...xDbl, from: c.dtRank, channels: c.dState },
      [`c${d}`]: { ...xDbl, from: c.dtRank + c.dState, channels: c.dState },
    });
    Object.assign(scan.constants, {
      [`a${d}`]: weights.get(s ? `${name}.A_b_log` : `${name}.A_log`)!.data.map((v) => -Math.exp(v)),
      [`d${d}`]: weights.get(`${name}.D${s}`)!.data,
      [`table${d}`]: table,
    });
  });
  const gated = b.tensor(`${name}.scan`, c.len, c.dInner);
  b.op({
    kind: 'selectiveScan', name: `${name}.scan`, inputs: scan.inputs, outputs: { y: gated }, constants: scan.constants,
    attributes: { directions: DIRECTIONS.length, dState: c.dState, outScale: c.divideOut ? 0.5 : 1 }, independent: ['batch', 'channel'],
  });
  return linear('out_proj', 'out_proj', gated, c.dim, -1, `${name}.hidden`);
}

/** Final norm of the tokens that count, their mean, the classifier. The norm works token by token, so selecting first is the same. */
function head(b: ProgramBuilder, c: VimConfig, weights: Weights, hidden: Ref, residual: Ref | undefined): Ref {
  const positions = classPositions(c);
  const rows = positions.length || c.len;
  const select = (x: Ref, name: string): Ref => {
    if (positions.length === 0) return x;
    const y = b.tensor(name, rows, c.dim);
    b.op({
      kind: 'selectTokens', name, inputs: { x }, outputs: { y }, constants: { indices: Int32Array.from(positions) },
      attributes: {}, independent: ['batch', 'token', 'channel'],
    });
    return y;
  };
  const x = select(hidden, 'cls_hidden');
  const r = residual && select(residual, 'cls_residual');
  const normed = b.tensor('norm_f', rows, c.dim);
  b.op(addNorm(c, 'norm_f', { x, residual: r }, { y: normed }, weights.get('norm_f.weight')!.data, weights.get('norm_f.bias')?.data));
  const features = b.tensor('features', 1, c.dim);
  b.op({ kind: 'meanTokens', name: 'pool', inputs: { x: normed }, outputs: { y: features }, constants: {}, attributes: {}, independent: ['batch', 'channel'] });
  const logits = b.tensor('logits', 1, c.classes);
  b.op({
    kind: 'linear', name: 'head', inputs: { x: features }, outputs: { y: logits },
    constants: { weight: weights.get('head.weight')!.data, bias: weights.get('head.bias')!.data }, attributes: {}, independent: ['batch', 'channel'],
  });
  return logits;
}
