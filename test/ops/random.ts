/** Seeded numbers for the op tests. `SEED=n` in the environment repeats a run; otherwise every run takes a new seed. */

/** The seed of this process; every failure message names it. */
export const SEED = seedFromEnvironment();

function seedFromEnvironment(): number {
  const text = process.env.SEED;
  if (text === undefined || text === '') return Math.floor(Math.random() * 2 ** 31);
  const seed = Number(text);
  if (!Number.isSafeInteger(seed)) throw new RangeError(`Expected an integer for SEED but received '${text}'`);
  return seed;
}

export class Random {
  private state: number;
  private spare: number | undefined;

  /** `stream` keeps a case's numbers apart from every other's, whatever runs before it. */
  constructor(stream: string, seed = SEED) {
    let hash = 0x811c9dc5; // FNV-1a
    for (const byte of Buffer.from(`${seed}/${stream}`)) hash = Math.imul(hash ^ byte, 0x01000193);
    this.state = hash >>> 0;
  }

  /** [0, 1), 32 bits (mulberry32, T. Ettinger). */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  uniform(low: number, high: number): number {
    return low + (high - low) * this.next();
  }

  /** low…high, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick<T>(from: readonly T[]): T {
    return from[this.integer(0, from.length - 1)]!;
  }

  /** Standard normal (Box and Muller). */
  normal(): number {
    if (this.spare !== undefined) {
      const value = this.spare;
      this.spare = undefined;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.next()));
    const angle = 2 * Math.PI * this.next();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  floats(count: number, value: (index: number) => number = () => this.normal()): Float32Array {
    const out = new Float32Array(count);
    for (let i = 0; i < count; i++) out[i] = value(i);
    return out;
  }

  /** 0…count−1 in random order. */
  permutation(count: number): Int32Array {
    const out = Int32Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const j = this.integer(0, i);
      [out[i], out[j]] = [out[j]!, out[i]!];
    }
    return out;
  }
}
