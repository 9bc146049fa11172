/** How far results may be apart, and whether they are. Loops, because an assertion per element would take minutes. */
import type { OpCall } from '../../lib/ops.js';
import type { Op } from '../../lib/program/ir.js';
import type { Values } from '../../lib/native/session.js';
import { codesOf, type Expected, REFERENCE } from './reference.js';

/** Half a unit in the last place of a float32, relative to the value. */
const HALF_ULP = 2 ** -24;
/** Differences below this are none: vector kernels may flush to zero what underflows on the way. */
const TINY = 1e-30;

/** Roundings that a sum of `terms` products in float32 may lose: they add up like a random walk, never one way only. */
const sumOf = (terms: number) => (4 + 2 * Math.sqrt(terms)) * HALF_ULP;

/** Largest difference that an instruction set's float result may have from the reference, as a share of the magnitude. */
export const TOLERANCE: Readonly<Record<Op['kind'], (call: OpCall) => number>> = {
  patchEmbed: ({ inputs, attributes }) => sumOf(inputs.x!.rows * (attributes as { patch: number }).patch ** 2),
  assembleTokens: () => 0,
  rope: () => 3 * HALF_ULP,
  addNorm: () => 1e-6,
  linear: ({ inputs }) => sumOf(inputs.x!.channels),
  linearI8: () => 0,
  quantize: () => 0,
  fakeQuantize: () => 0,
  convSilu: () => 1e-6,
  selectiveScan: () => 5e-6,
  selectTokens: () => 0,
  meanTokens: ({ inputs }) => sumOf(inputs.x!.rows),
};

/** |got − wanted| as a share of the magnitude, the largest; where one is not finite the other must be the same. */
export function worstShare(got: ArrayLike<number>, wanted: ArrayLike<number>, magnitude: ArrayLike<number>): { share: number; at: number } {
  let [share, at] = [0, -1];
  for (let i = 0; i < wanted.length; i++) {
    const [a, b] = [got[i]!, wanted[i]!];
    if (Object.is(a, b) || a === b) continue;
    const difference = Math.abs(a - b);
    if (difference <= TINY) continue;
    const here = difference / magnitude[i]!;
    if (!(here <= share)) {
      [share, at] = [Number.isNaN(here) ? Infinity : here, i];
      if (share === Infinity) break;
    }
  }
  return { share, at };
}

/** First element that is not the double value rounded once to float32; −1 when all are. */
export function firstNotRounded(got: ArrayLike<number>, { value, magnitude }: Expected): number {
  for (let i = 0; i < value.length; i++) {
    const [a, b] = [got[i]!, value[i]!];
    if (Object.is(a, Math.fround(b)) || a === Math.fround(b)) continue;
    // Two sums in double, in another order, may fall on two sides of a tie.
    if (!(Math.abs(a - b) <= HALF_ULP * Math.abs(b) + 1e-12 * magnitude[i]! + 2 ** -149)) return i;
  }
  return -1;
}

/** Index of the first byte that differs; −1 when none does. */
export function firstOtherBits(a: Float32Array | Uint8Array, b: Float32Array | Uint8Array): number {
  if (a.length !== b.length) return Math.min(a.length, b.length);
  if (Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))) return -1;
  const [x, y] = [a, b].map((v) => (v instanceof Float32Array ? new Uint32Array(v.buffer, v.byteOffset, v.length) : v)) as [Uint32Array, Uint32Array];
  return x.findIndex((v, i) => v !== y[i]);
}

/** Codes: none further than one, and few at all (ARCHITECTURE "Mathematics" allows 1e-4 of them; small cases a couple). */
export function codesTooFar(got: Uint8Array, wanted: Uint8Array): string | undefined {
  let different = 0;
  for (let i = 0; i < wanted.length; i++) {
    const d = Math.abs(got[i]! - wanted[i]!);
    if (d > 1) return `code ${i} is ${got[i]}, wanted ${wanted[i]}`;
    different += d;
  }
  return different > Math.max(2, 1e-4 * wanted.length) ? `${different} of ${wanted.length} codes differ by one` : undefined;
}

/** A call's outputs as the double-precision reference has them; `quantize` has codes only. */
export function expectedOf(call: OpCall): Readonly<Record<string, Expected>> {
  return call.kind === 'quantize' ? {} : REFERENCE[call.kind](call);
}

/**
 * What is wrong with an instruction set's outputs, undefined when nothing is.
 * `reference`: outputs of the instruction set 'reference'; `expected`: of reference.ts, for the magnitudes.
 */
export function difference(call: OpCall, got: Values, reference: Values, expected: Readonly<Record<string, Expected>>): string | undefined {
  for (const [name, { magnitude }] of Object.entries(expected)) {
    if (call.outputs[name] === undefined) continue;
    const tolerance = TOLERANCE[call.kind](call);
    const { share, at } = worstShare(got[name]!, reference[name]!, magnitude);
    if (!(share <= tolerance)) {
      return `${name}[${at}] is ${got[name]![at]}, wanted ${reference[name]![at]}: ${share.toExponential(2)} of the magnitude, allowed ${tolerance.toExponential(2)}`;
    }
  }
  if (call.outputs.q === undefined) return undefined;
  // Codes are exactly those of the float that this instruction set computed, which was compared above.
  const q = got.q as Uint8Array;
  const own = call.kind === 'quantize' ? (call.inputs.x!.data as Float32Array) : (got.y as Float32Array);
  const at = firstOtherBits(q, codesOf(own, call));
  return at >= 0 ? `q[${at}] is ${q[at]}, not the code of ${own[at]}` : undefined;
}
