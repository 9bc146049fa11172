/** The quantizers' words (docs/ARCHITECTURE.md): bits, code ranges, and the parameters of one quantized linear. */

export type Bits = 4 | 6 | 8;

/** Parameters of one quantized linear, as they are stored (ARCHITECTURE "The quantized file"). */
export interface QuantizedLinear {
  readonly weightBits: Bits;
  readonly actBits: Bits;
  /** Codes qw, [out, in]. */
  readonly weight: Int8Array;
  /** [out]; real weight·smooth = weightScale·qw. */
  readonly weightScale: Float32Array;
  /** One step per token position in scan order, [len], or one per tensor, [1]. */
  readonly actScale: Float32Array;
  readonly actZero: Uint8Array;
  /** [in]; absent = 1. */
  readonly smooth?: Float32Array;
}

/** Largest code of a b-bit activation (asymmetric) and weight (symmetric). */
export const actQmax = (bits: Bits): number => 2 ** bits - 1;
export const weightQmax = (bits: Bits): number => 2 ** (bits - 1) - 1;
