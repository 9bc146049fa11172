/**
 * Vim's forward pass in double precision and plain loops, written from golden README section A alone: no line is
 * shared with lib/. It answers for the variants that have no golden numbers. Slow, obvious, checked against golden cases.
 */

export type ClassToken = 'none' | 'head' | 'middle' | 'double';

/** What the state dict does not tell by its shapes. */
export interface ReferenceOptions {
  readonly imageSize: number;
  readonly stride: number;
  readonly classToken: ClassToken;
  readonly divideOut: boolean;
  /** Rotate the residual stream too; the hidden states are rotated wherever the rope tables exist. */
  readonly ropeResidual: boolean;
  readonly epsilon: number;
}

export interface StateTensor {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}
export type StateDict = ReadonlyMap<string, StateTensor>;

type Row = Float64Array;

/** Logits of one picture [channels, size, size]. */
export function vimReference(state: StateDict, options: ReferenceOptions, image: ArrayLike<number>): Row {
  const get = (name: string): StateTensor => {
    const tensor = state.get(name);
    if (tensor === undefined) throw new Error(`the reference misses '${name}'`);
    return tensor;
  };
  const { tokens, classAt } = embed(get, state, options, image);

  let hidden = tokens;
  let residual: Row[] | undefined;
  for (let layer = 0; state.has(`layers.${layer}.norm.weight`); layer++) {
    if (state.has('rope.freqs_cos')) {
      hidden = rope(get, hidden);
      if (residual !== undefined && options.ropeResidual) residual = rope(get, residual);
    }
    residual = residual === undefined ? hidden : addRows(hidden, residual);
    const normed = residual.map((row) => norm(get, state, `layers.${layer}.norm`, row, options.epsilon));
    hidden = mixer(get, state, `layers.${layer}.mixer`, normed, options.divideOut);
  }

  const last = addRows(hidden, residual!).map((row) => norm(get, state, 'norm_f', row, options.epsilon));
  const chosen = classAt.length === 0 ? last : classAt.map((t) => last[t]!);
  return linear(get, state, 'head', meanOf(chosen));
}

/** Conv2d(kernel = patch, stride), class tokens at their places, then position embedding for every token. */
function embed(
  get: (name: string) => StateTensor, state: StateDict, options: ReferenceOptions, image: ArrayLike<number>,
): { tokens: Row[]; classAt: number[] } {
  const { shape, data: kernel } = get('patch_embed.proj.weight');
  const [dim, channels, patch] = shape as [number, number, number];
  const bias = get('patch_embed.proj.bias').data;
  const { imageSize, stride } = options;
  const grid = Math.floor((imageSize - patch) / stride) + 1;
  const tokens: Row[] = [];
  for (let gy = 0; gy < grid; gy++) {
    for (let gx = 0; gx < grid; gx++) {
      const token = new Float64Array(dim);
      for (let o = 0; o < dim; o++) {
        let sum = bias[o]!;
        for (let c = 0; c < channels; c++) {
          for (let y = 0; y < patch; y++) {
            for (let x = 0; x < patch; x++) {
              const pixel = image[(c * imageSize + gy * stride + y) * imageSize + gx * stride + x]!;
              sum += pixel * kernel[((o * channels + c) * patch + y) * patch + x]!;
            }
          }
        }
        token[o] = sum;
      }
      tokens.push(token);
    }
  }
  const patches = tokens.length;
  const token = (name: string): Row => Float64Array.from(get(name).data);
  let classAt: number[] = [];
  if (options.classToken === 'head') {
    tokens.unshift(token('cls_token'));
    classAt = [0];
  } else if (options.classToken === 'middle') {
    classAt = [Math.floor(patches / 2)];
    tokens.splice(classAt[0]!, 0, token('cls_token'));
  } else if (options.classToken === 'double') {
    tokens.unshift(token('cls_token_head'));
    tokens.push(token('cls_token_tail'));
    classAt = [0, patches + 1];
  }
  const position = state.get('pos_embed')?.data;
  if (position !== undefined) tokens.forEach((row, t) => row.forEach((_, k) => (row[k]! += position[t * dim + k]!)));
  return { tokens, classAt };
}

/** Pairs (2k, 2k+1) turned by the stored tables; with an odd sequence token 0 stays as it is and token t takes row t − 1. */
function rope(get: (name: string) => StateTensor, rows: readonly Row[]): Row[] {
  const cos = get('rope.freqs_cos').data;
  const sin = get('rope.freqs_sin').data;
  const skip = rows.length % 2;
  return rows.map((row, t) => {
    if (t < skip) return row;
    const at = (t - skip) * row.length;
    return row.map((v, k) => {
      const partner = k % 2 === 0 ? -row[k + 1]! : row[k - 1]!;
      return v * cos[at + k]! + partner * sin[at + k]!;
    });
  });
}

/** RMSNorm, or LayerNorm where the norm has a bias. */
function norm(get: (name: string) => StateTensor, state: StateDict, name: string, row: Row, epsilon: number): Row {
  const weight = get(`${name}.weight`).data;
  const bias = state.get(`${name}.bias`)?.data;
  const n = row.length;
  let mean = 0;
  if (bias !== undefined) {
    for (const v of row) mean += v / n;
  }
  let square = 0;
  for (const v of row) square += (v - mean) ** 2 / n;
  const rscale = 1 / Math.sqrt(square + epsilon);
  return row.map((v, k) => (v - mean) * rscale * weight[k]! + (bias?.[k] ?? 0));
}

/** Both directions over the tokens, merged, gated by SiLU(z), projected. */
function mixer(get: (name: string) => StateTensor, state: StateDict, name: string, rows: readonly Row[], divideOut: boolean): Row[] {
  const xz = rows.map((row) => linear(get, state, `${name}.in_proj`, row));
  const forward = direction(get, state, name, '', xz);
  const backward = direction(get, state, name, '_b', [...xz].reverse()).reverse();
  const scale = divideOut ? 0.5 : 1;
  return forward.map((row, t) => linear(get, state, `${name}.out_proj`, row.map((v, c) => scale * (v + backward[t]![c]!))));
}

/** Convolution, SiLU, x_proj, dt_proj, scan and gate of one direction, over tokens in its own order. */
function direction(get: (name: string) => StateTensor, state: StateDict, name: string, suffix: string, xz: readonly Row[]): Row[] {
  const conv = get(`${name}.conv1d${suffix}.weight`);
  const [inner, , width] = conv.shape as [number, number, number];
  const convBias = get(`${name}.conv1d${suffix}.bias`).data;
  const aLog = get(`${name}.${suffix === '' ? 'A_log' : 'A_b_log'}`);
  const states = aLog.shape[1]!;
  const skip = get(`${name}.D${suffix}`).data;
  const rank = get(`${name}.dt_proj${suffix}.weight`).shape[1]!;
  const h = new Float64Array(inner * states);
  return xz.map((row, t) => {
    const u = new Float64Array(inner);
    for (let c = 0; c < inner; c++) {
      let sum = convBias[c]!;
      // Tap width − 1 multiplies the current token, tap 0 the oldest; before the start there are zeros.
      for (let j = 0; j < width; j++) {
        const from = t - (width - 1) + j;
        if (from >= 0) sum += conv.data[c * width + j]! * xz[from]![c]!;
      }
      u[c] = silu(sum);
    }
    const projected = linear(get, state, `${name}.x_proj${suffix}`, u); // [Δ (rank) | B (states) | C (states)]
    const delta = linear(get, state, `${name}.dt_proj${suffix}`, projected.subarray(0, rank));
    return delta.map((raw, c) => {
      const dt = raw > 20 ? raw : Math.log1p(Math.exp(raw));
      let y = skip[c]! * u[c]!;
      for (let n = 0; n < states; n++) {
        const i = c * states + n;
        h[i] = Math.exp(-Math.exp(aLog.data[i]!) * dt) * h[i]! + dt * u[c]! * projected[rank + n]!;
        y += h[i]! * projected[rank + states + n]!;
      }
      return y * silu(row[inner + c]!);
    });
  });
}

function linear(get: (name: string) => StateTensor, state: StateDict, name: string, x: Row): Row {
  const { shape, data } = get(`${name}.weight`);
  const [out, input] = shape as [number, number];
  if (input !== x.length) throw new Error(`${name} takes ${input} values, not ${x.length}`);
  const bias = state.get(`${name}.bias`)?.data;
  const y = new Float64Array(out);
  for (let o = 0; o < out; o++) {
    let sum = bias?.[o] ?? 0;
    for (let k = 0; k < input; k++) sum += data[o * input + k]! * x[k]!;
    y[o] = sum;
  }
  return y;
}

const silu = (v: number): number => v / (1 + Math.exp(-v));
const addRows = (a: readonly Row[], b: readonly Row[]): Row[] => a.map((row, t) => row.map((v, k) => v + b[t]![k]!));

function meanOf(rows: readonly Row[]): Row {
  return rows[0]!.map((_, k) => rows.reduce((sum, row) => sum + row[k]!, 0) / rows.length);
}
