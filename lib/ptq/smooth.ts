/** Smoothing scales (SmoothQuant, arXiv 2211.10438, eq. 4, with the clamps of PTQ4VM §5). */

const MIN_ACTIVATION = 1e-3;
const MIN_WEIGHT = 1e-5;
const MIN_SMOOTH = 1e-5;

/**
 * smooth[k] = max(max|x|^α / max|W|^(1−α), 1e-5), in float32 steps as the official code takes them.
 * absMax [in] per input channel; weight [out, in].
 */
export function smoothingScale(absMax: Float32Array, weight: Float32Array, alpha: number): Float32Array {
  const inputs = absMax.length;
  const largest = new Float32Array(inputs);
  for (let i = 0, k = 0; i < weight.length; i++, k = k + 1 === inputs ? 0 : k + 1) {
    const w = Math.abs(weight[i]!);
    if (w > largest[k]!) largest[k] = w;
  }
  return absMax.map((x, k) => {
    const a = Math.fround(Math.max(x, MIN_ACTIVATION) ** alpha);
    const w = Math.fround(Math.max(largest[k]!, MIN_WEIGHT) ** (1 - alpha));
    return Math.max(Math.fround(a / w), MIN_SMOOTH);
  });
}
