/** What a quantization run does: every choice by name, saved with the weights. */
import { rangeError, typeError } from '../errors.js';
import type { Bits } from '../quantizer.js';

/**
 * Ablations of PTQ4VM (§5), each adding to the one before:
 * `minmax` plain ranges, one activation step per tensor; `smoothquant` + smoothing; `pts` per-token static steps with
 * grid search, no smoothing; `pts+smooth` both; `ptq4vm` our default (equal to `pts+smooth` until JLSS is part of it).
 */
export const METHODS = ['minmax', 'smoothquant', 'pts', 'pts+smooth', 'ptq4vm'] as const;
export type Method = (typeof METHODS)[number];

export interface Recipe {
  readonly method: Method;
  readonly weights: Bits;
  readonly activations: Bits;
  /** One activation step per token position (else one per tensor). */
  readonly perToken: boolean;
  readonly smooth: boolean;
  /** Exponent of the activations in the smoothing scale (SmoothQuant, arXiv 2211.10438, eq. 4). */
  readonly alpha: number;
  /** L2.4 grid search of every step (else plain ranges). */
  readonly grid: boolean;
  /** Calibration images at most. */
  readonly samples: number;
  readonly seed: number;
}

export interface RecipeOptions {
  readonly weights: number;
  readonly activations: number;
  readonly method?: string;
  readonly grid?: boolean;
  readonly alpha?: number;
  readonly samples?: number;
  readonly seed?: number;
}

const RECIPE_KEYS = ['weights', 'activations', 'method', 'grid', 'alpha', 'samples', 'seed'];

const SHAPE_OF_METHOD: Readonly<Record<Method, { perToken: boolean; smooth: boolean; grid: boolean }>> = {
  minmax: { perToken: false, smooth: false, grid: false },
  smoothquant: { perToken: false, smooth: true, grid: false },
  pts: { perToken: true, smooth: false, grid: true },
  'pts+smooth': { perToken: true, smooth: true, grid: true },
  ptq4vm: { perToken: true, smooth: true, grid: true },
};

/** Checks options and fills in the defaults (ARCHITECTURE "Calibration"). `alpha` 0.5 is PTQ4VM's value for Vim. */
export function makeRecipe(options: RecipeOptions): Recipe {
  if (typeof options !== 'object' || options === null) throw typeError('an object', 'options', options);
  for (const key of Object.keys(options)) {
    if (!RECIPE_KEYS.includes(key)) throw new RangeError(`Unknown quantization option '${key}'`);
  }
  const { method = 'ptq4vm' } = options;
  if (!(METHODS as readonly string[]).includes(method)) throw rangeError(`one of ${METHODS.join(', ')}`, 'method', method);
  const shape = SHAPE_OF_METHOD[method as Method];
  const { alpha = 0.5, samples = 256, seed = 0, grid = shape.grid } = options;
  if (typeof alpha !== 'number' || !(alpha >= 0 && alpha <= 1)) throw rangeError('a number from 0 to 1', 'alpha', alpha);
  if (!Number.isInteger(samples) || samples < 1) throw rangeError('a positive integer', 'samples', samples);
  if (!Number.isInteger(seed) || seed < 0) throw rangeError('a non-negative integer', 'seed', seed);
  if (typeof grid !== 'boolean') throw typeError('true or false', 'grid', grid);
  return {
    method: method as Method, weights: toBits(options.weights, 'weights'), activations: toBits(options.activations, 'activations'),
    ...shape, grid, alpha, samples, seed,
  };
}

function toBits(value: unknown, name: string): Bits {
  if (value !== 4 && value !== 6 && value !== 8) throw rangeError('4, 6 or 8', name, value);
  return value;
}
