/**
 * The Program: a model as data.
 *
 * A flat list of typed ops over named tensors, for one input size with the batch free. Every tensor
 * is [images, rows, channels] with the image axis implicit; rows are token positions in memory order
 * (for the input picture: colour planes). An op reads and writes channel slices of tensors (`Ref`).
 * Models make Programs (`lib/models`), passes rewrite them (`lib/program`), the native engine runs them.
 *
 * Scan order: `table[t]` is the memory token at scan position t (ARCHITECTURE "Mathematics"), −1 = padding zero. An op
 * with a table reads its neighbours or its scales through it; absent = identity. Activations are never
 * physically permuted, so scales that are stored in scan order are reordered once, by the lowering pass.
 */

export interface TensorSpec {
  readonly name: string;
  readonly dtype: 'f32' | 'u8';
  readonly rows: number;
  readonly channels: number;
}

/** Channels [from, from + channels) of a tensor; absent = all. */
export interface Ref {
  readonly tensor: string;
  readonly from?: number;
  readonly channels?: number;
}

export type Constant = Float32Array | Int32Array | Int8Array | Uint8Array;

/** Axes along which an op computes independently; the planner may cut there. */
export type Axis = 'batch' | 'token' | 'channel';

interface OpShape<
  Kind extends string,
  Inputs extends Readonly<Record<string, Ref | undefined>>,
  Outputs extends Readonly<Record<string, Ref | undefined>>,
  Constants extends Readonly<Record<string, Constant | undefined>>,
  Attributes extends Readonly<Record<string, number | undefined>>,
> {
  readonly kind: Kind;
  readonly name: string;
  readonly inputs: Inputs;
  readonly outputs: Outputs;
  readonly constants: Constants;
  readonly attributes: Attributes;
  readonly independent: readonly Axis[];
}

/**
 * How a producer quantizes on the way out (fusion): output `q` u8, from the float value v[row, k] as
 * q = rint(clamp(v·qSmoothRscale[k]·qActRscale[row], −z, qmax − z)) + z, z = qActZero[row].
 * qActRscale / qActZero have `rows` elements, or 1 for one step per tensor. qSmoothRscale absent = 1.
 */
export interface QuantizeConstants {
  readonly qSmoothRscale?: Float32Array;
  readonly qActRscale?: Float32Array;
  readonly qActZero?: Int32Array;
  readonly [k: string]: Constant | undefined;
}

/** image [C, H·W] → y [grid, dim]: Conv2d(kernel patch, stride), flattened row-major. weight [dim, C·patch·patch]. */
export type PatchEmbedOp = OpShape<'patchEmbed', { x: Ref }, { y: Ref }, { weight: Float32Array; bias?: Float32Array },
  { height: number; width: number; patch: number; stride: number }>;

/** y[t] = (source[t] ≥ 0 ? patches[source[t]] : cls[−1 − source[t]]) + pos[t]. cls [k, dim], pos [rows, dim]. */
export type AssembleTokensOp = OpShape<'assembleTokens', { x: Ref }, { y: Ref },
  { source: Int32Array; cls?: Float32Array; pos?: Float32Array }, Record<never, never>>;

/** Rotary embedding: rows ≥ firstToken of x are rotated in pairs (2k, 2k+1) by row t − firstToken of cos/sin [·, dim]. */
export type RopeOp = OpShape<'rope', { x: Ref }, { y: Ref }, { cos: Float32Array; sin: Float32Array }, { firstToken: number }>;

/**
 * residualOut = x + residual (residual absent: x); y = norm(residualOut)·weight (+ bias).
 * norm 0 = RMSNorm, 1 = LayerNorm (biased variance). y f32, q u8 (QuantizeConstants): at least one.
 */
export type AddNormOp = OpShape<'addNorm', { x: Ref; residual?: Ref }, { residual?: Ref; y?: Ref; q?: Ref },
  { weight: Float32Array; bias?: Float32Array } & QuantizeConstants, { norm: number; epsilon: number; qmax?: number }>;

/** y[t,o] = Σ_k x[t,k]·weight[o,k] + bias[o], float32. weight [out, in]. */
export type LinearOp = OpShape<'linear', { x: Ref }, { y: Ref }, { weight: Float32Array; bias?: Float32Array }, Record<never, never>>;

/**
 * y[t,o] = actScale[t]·weightScale[o]·(Σ_k x[t,k]·weight[o,k] − actZero[t]·Σ_k weight[o,k]) + bias[o]; x u8, weight s8 [out, in],
 * sums exact in s32. actScale / actZero in memory row order, [rows] or [1].
 */
export type LinearI8Op = OpShape<'linearI8', { x: Ref }, { y: Ref },
  { weight: Int8Array; weightScale: Float32Array; actScale: Float32Array; actZero: Int32Array; bias?: Float32Array },
  { bits: number }>;

/** u8 codes of x by QuantizeConstants. */
export type QuantizeOp = OpShape<'quantize', { x: Ref }, { q: Ref }, QuantizeConstants, { qmax: number }>;

/**
 * What the quantizer keeps of x, in float32 and by the definition (division, ARCHITECTURE "Mathematics"):
 * y = rint(clamp(x/smooth[k]/actScale[t] + actZero[t], 0, qmax) − actZero[t])·actScale[t]. smooth absent = 1.
 */
export type FakeQuantizeOp = OpShape<'fakeQuantize', { x: Ref }, { y: Ref },
  { actScale: Float32Array; actZero: Int32Array; smooth?: Float32Array }, { qmax: number }>;

/**
 * Depthwise convolution, causal in scan order, then SiLU. With row(t) = table[t] (absent = t) and w = weight[c, 0…width−1]:
 * y[row(t), c] = SiLU(bias[c] + Σ_j w[j]·x[row(t − (width−1) + j), c]), zero before the start. y f32 and/or q u8.
 */
export type ConvSiluOp = OpShape<'convSilu', { x: Ref }, { y?: Ref; q?: Ref },
  { weight: Float32Array; bias?: Float32Array; table?: Int32Array } & QuantizeConstants, { width: number; qmax?: number }>;

/**
 * Selective scan over `directions` directions d = 0…, merged (ARCHITECTURE "Mathematics"). Per direction, t in scan order, n < dState:
 * Δ = softplus(delta[row,c]); h[n] ← exp(Δ·a[c,n])·h[n] + Δ·b[row,n]·u[row,c]; y_d[row,c] = Σ_n c[row,n]·h[n] + d[c]·u[row,c].
 * y[row,c] = outScale·(Σ_d y_d[row,c])·SiLU(z[row,c]) (z absent: no gate). a = −exp(A_log) [dInner, dState].
 * Inputs u0 delta0 b0 c0 [u1 …] [z]; constants a0 d0 [table0] [a1 …]. y f32 and/or q u8.
 */
export type SelectiveScanOp = OpShape<'selectiveScan', Readonly<Record<string, Ref | undefined>>, { y?: Ref; q?: Ref },
  Readonly<Record<string, Constant | undefined>>, { directions: number; dState: number; outScale: number; qmax?: number }>;

/** y[i] = x[indices[i]]. */
export type SelectTokensOp = OpShape<'selectTokens', { x: Ref }, { y: Ref }, { indices: Int32Array }, Record<never, never>>;

/** y = mean over rows of x; y has one row. */
export type MeanTokensOp = OpShape<'meanTokens', { x: Ref }, { y: Ref }, Record<never, never>, Record<never, never>>;

export type Op =
  | PatchEmbedOp | AssembleTokensOp | RopeOp | AddNormOp | LinearOp | LinearI8Op | QuantizeOp | FakeQuantizeOp
  | ConvSiluOp | SelectiveScanOp | SelectTokensOp | MeanTokensOp;

export type LinearKind = 'in_proj' | 'x_proj' | 'dt_proj' | 'out_proj' | 'fc1' | 'fc2';

/** A linear that quantization may replace. `name` is its state-dict path without `.weight`. */
export interface LinearInfo {
  readonly name: string;
  readonly kind: LinearKind;
  /** Direction whose scan order indexes the scales; −1: memory order. */
  readonly direction: number;
  /** Number of token positions, = length of per-token scales. */
  readonly len: number;
  /** Memory token per scan position (absent: identity). */
  readonly table?: Int32Array;
}

/** A run of ops [first, end) that calibration and JLSS treat as one unit. */
export interface Block {
  readonly name: string;
  readonly first: number;
  readonly end: number;
  /** Tensors that enter the block from outside. */
  readonly inputs: readonly string[];
  /** The tensor that the block loss compares (Vim: the mixer output, not the residual). */
  readonly lossTensor: string;
}

export interface Program {
  readonly tensors: readonly TensorSpec[];
  readonly ops: readonly Op[];
  readonly blocks: readonly Block[];
  readonly linears: readonly LinearInfo[];
  /** Name of the picture tensor and of the logits tensor. */
  readonly input: string;
  readonly output: string;
}
