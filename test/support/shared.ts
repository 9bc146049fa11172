/** Reference data that lies beside the repository (`../shared`), not in it. Tests that want it skip loudly without it. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { readNpy } from '../../lib/io/npy.js';

const ROOT = path.resolve(__dirname, '../../../shared');

/** Two small golden cases are part of the repository, so that a clone alone can check the model. */
const COPIES = path.resolve(__dirname, '../golden/data');

/** Path inside ../shared; skips the running test or suite, saying so, when it is neither there nor copied into test/golden/data. */
export function shared(context: Mocha.Context, ...parts: string[]): string {
  const full = path.join(ROOT, ...parts);
  const copy = path.join(COPIES, ...parts.slice(1));
  if (!existsSync(full) && parts[0] === 'golden' && existsSync(copy)) return copy;
  if (!existsSync(full)) {
    console.warn(`      SKIPPED: ../shared/${parts.join('/')} is not there`);
    context.skip();
  }
  return full;
}

/** Float32 contents of a `.npy`. */
export async function floats(...parts: string[]): Promise<Float32Array> {
  const array = await readNpy(path.join(...parts));
  return array.toFloat32();
}

export interface Packed {
  readonly name: string;
  readonly offset: number;
  readonly shape: readonly number[];
}

/** A packed `.npy` (golden README "packed"): tensors by name. */
export async function unpack(dir: string, file: string): Promise<Map<string, Float32Array>> {
  const manifest = json(path.join(dir, 'manifest.json')) as { files: Record<string, { packed?: readonly Packed[] }> };
  const layout = manifest.files[file]?.packed;
  if (layout === undefined) throw new Error(`${file} is not a packed file`);
  const all = await floats(dir, file);
  return new Map(layout.map(({ name, offset, shape }) => [name, all.slice(offset, offset + shape.reduce((a, b) => a * b, 1))]));
}

export function json(file: string): unknown {
  return JSON.parse(readFileSync(file, 'utf8'));
}

/** Largest |a − b|; NaN anywhere gives NaN, different lengths throw. */
export function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`lengths differ: ${a.length} and ${b.length}`);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= worst)) worst = d;
  }
  return worst;
}

/** Largest |a − b| / |b|. */
export function maxRelative(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) throw new Error(`lengths differ: ${a.length} and ${b.length}`);
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const d = Math.abs(a[i]! - b[i]!) / Math.abs(b[i]!);
    if (!(d <= worst)) worst = d;
  }
  return worst;
}
