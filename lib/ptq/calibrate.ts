/**
 * Quantization without learning (ARCHITECTURE "Calibration", golden README D.1–D.4): block by block on the
 * float activations of all calibration images, holding one block's activations at a time.
 */
import { Ptq4vmError } from '../errors.js';
import { loadAddon } from '../native/addon.js';
import type { ActivationSample, ActivationSteps } from '../native/addon-types.js';
import { EngineSession, withCancel } from '../native/session.js';
import type { LinearInfo, LinearOp, Program } from '../program/ir.js';
import type { QuantizedLinear } from '../quantizer.js';
import { reads, refChannels, tensorSpec, writes } from '../program/rewrite.js';
import type { JobOptions } from '../progress.js';
import type { Recipe } from './recipe.js';
import { smoothingScale } from './smooth.js';

/** What was found for one linear, with the grid's choices for reports and tests. */
export interface CalibratedLinear extends QuantizedLinear {
  /** max |x| per input channel before smoothing, [in]. */
  readonly absMax: Float32Array;
  /** Winning fraction 1…100 of each activation step (0: no search) and of each output channel. */
  readonly actGridIndex: Uint8Array;
  readonly weightGridIndex: Uint8Array;
}

/**
 * Quantizes every linear of the float Program.
 * images: calibration pictures [count, 3, H, W], normalised. Throws ERR_DATA when an activation is not finite.
 */
export async function calibrate(
  program: Program,
  images: Float32Array,
  count: number,
  recipe: Recipe,
  options: JobOptions & { threads?: number } = {},
): Promise<Map<string, CalibratedLinear>> {
  const session = new EngineSession(program, { threads: options.threads });
  const layers = new Map<string, CalibratedLinear>();
  try {
    let state: Record<string, Float32Array> = { [program.input]: images };
    for (const [first, end] of stages(program)) {
      options.signal?.throwIfAborted();
      const linears = program.ops.slice(first, end).filter((op): op is LinearOp => op.kind === 'linear' && isQuantizable(program, op.name));
      const observed = new Set(linears.map((op) => op.inputs.x.tensor).filter((t) => !(t in state)));
      const later = neededLater(program, end);
      const fetched = await session.run({
        images: count, feeds: only(state, neededWithin(program, first, end)), first, end,
        fetches: [...new Set([...observed, ...later.filter((t) => !(t in state))])], signal: options.signal,
      });
      const values = { ...state, ...fetched } as Record<string, Float32Array>;
      for (const op of linears) {
        layers.set(op.name, await quantizeLinear(program, op, values[op.inputs.x.tensor]!, count, recipe, session.threads, options.signal));
        options.onProgress?.({ stage: 'calibrate', done: layers.size, total: program.linears.length, detail: op.name });
      }
      state = only(values, later);
    }
  } finally {
    await session.dispose();
  }
  return layers;
}

function isQuantizable(program: Program, name: string): boolean {
  return program.linears.some((l) => l.name === name);
}

/** Ranges of ops: what lies before the blocks, each block, and nothing after the last one. */
function stages(program: Program): [number, number][] {
  const ranges: [number, number][] = [];
  let at = 0;
  for (const block of program.blocks) {
    if (block.first > at) ranges.push([at, block.first]);
    ranges.push([block.first, block.end]);
    at = block.end;
  }
  return ranges;
}

/** Tensors made before `end` that ops from `end` on read. */
function neededLater(program: Program, end: number): string[] {
  const known = new Set<string>([program.input]);
  for (const op of program.ops.slice(0, end)) for (const ref of writes(op)) known.add(ref.tensor);
  const needed = new Set<string>();
  for (const op of program.ops.slice(end)) for (const ref of reads(op)) if (known.has(ref.tensor)) needed.add(ref.tensor);
  return [...needed];
}

function neededWithin(program: Program, first: number, end: number): string[] {
  return [...new Set(program.ops.slice(first, end).flatMap((op) => reads(op).map((r) => r.tensor)))];
}

function only<T>(values: Readonly<Record<string, T>>, names: readonly string[]): Record<string, T> {
  return Object.fromEntries(names.filter((n) => n in values).map((n) => [n, values[n]!]));
}

async function quantizeLinear(
  program: Program, op: LinearOp, data: Float32Array, images: number, recipe: Recipe, threads: number, signal: AbortSignal | undefined,
): Promise<CalibratedLinear> {
  const { calibration } = loadAddon();
  const info = program.linears.find((l) => l.name === op.name)!;
  const spec = tensorSpec(program, op.inputs.x.tensor);
  const channels = refChannels(program, op.inputs.x);
  const sample: ActivationSample = { data, images, rows: spec.rows, width: spec.channels, from: op.inputs.x.from ?? 0, channels };
  const { weight } = op.constants;
  const out = weight.length / channels;

  return withCancel(signal, async (cancel) => {
    const absMax = await calibration.absMax(sample, threads);
    const smooth = recipe.smooth ? smoothingScale(absMax, weight, recipe.alpha) : undefined;
    const common = { grid: recipe.grid, smooth, threads, cancel };
    const act = await calibration.activationSteps(sample, { ...common, bits: recipe.activations, perToken: recipe.perToken });
    const shape = { out, in: channels, bits: recipe.weights, smooth };
    const steps = await calibration.weightSteps(weight, { ...common, ...shape });
    signal?.throwIfAborted(); // before the checks: a cancelled search leaves undefined steps
    requireFinite(act.scale, `an activation that enters ${op.name}`);
    requireFinite(steps.scale, `a weight of ${op.name}`);
    return {
      weightBits: recipe.weights, actBits: recipe.activations,
      weight: calibration.quantizeWeight(weight, { ...shape, scale: steps.scale }),
      weightScale: steps.scale, weightGridIndex: steps.gridIndex, smooth, absMax,
      ...inScanOrder(act, info),
    };
  });
}

function requireFinite(scale: Float32Array, what: string): void {
  if (!scale.every(Number.isFinite)) {
    throw new Ptq4vmError('ERR_DATA', `Calibration met a NaN or infinite value: ${what}. Check the calibration pictures and the checkpoint`);
  }
}

/** Steps were found per memory row; files and formulas index them by scan position (ARCHITECTURE "Mathematics"). */
function inScanOrder(act: ActivationSteps, info: LinearInfo): { actScale: Float32Array; actZero: Uint8Array; actGridIndex: Uint8Array } {
  const { table } = info;
  if (table === undefined || act.scale.length === 1) return { actScale: act.scale, actZero: act.zero, actGridIndex: act.gridIndex };
  return {
    actScale: Float32Array.from(table, (row) => act.scale[row]!),
    actZero: Uint8Array.from(table, (row) => act.zero[row]!),
    actGridIndex: Uint8Array.from(table, (row) => act.gridIndex[row]!),
  };
}
