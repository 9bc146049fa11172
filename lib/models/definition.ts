/** What a model is before it becomes a Program: family, configuration, weights. */
import type { Preprocess } from '../data/preprocess.js';
import type { Program } from '../program/ir.js';
import type { Weight } from '../tensor.js';

export type { Weight };

export type Weights = ReadonlyMap<string, Weight>;

/** A configuration as a user may give it (`--config`): keys as in the official constructors. */
export type UserConfig = Readonly<Record<string, unknown>>;

/** How a value was found; `assumed` ones are defaults that nothing confirmed. */
export interface Assumption {
  readonly key: string;
  readonly value: unknown;
  readonly why: string;
}

export interface ModelDefinition {
  readonly family: string;
  /** Complete, resolved configuration, in the official constructor's words plus derived sizes. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly assumed: readonly Assumption[];
  readonly labels?: readonly string[];
  readonly preprocess: Preprocess;
  /** [channels, height, width] of one picture. */
  readonly inputShape: readonly [number, number, number];
  readonly classes: number;
  /** The float Program. `weights` must hold every tensor the family needs, with finite values. */
  readonly buildProgram: (weights: Weights) => Program;
  /** Names and shapes of all tensors that the family needs. */
  readonly tensors: ReadonlyMap<string, readonly number[]>;
}

/** Shapes by name: all that configuration may be inferred from. */
export type Shapes = ReadonlyMap<string, readonly number[]>;
