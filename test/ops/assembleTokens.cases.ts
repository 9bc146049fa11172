import type { OpCall } from '../../lib/ops.js';
import { FILLS, type Fill, floats, type OpCase, VIM } from './case.js';
import type { Random } from './random.js';

interface Assemble {
  readonly images?: number;
  /** Patches, and where class tokens stand among them. */
  readonly patches: number;
  readonly classAt?: readonly number[];
  readonly channels: number;
  readonly pos?: boolean;
  readonly fill?: Fill;
  /** Overrides the sequence. */
  readonly source?: (r: Random) => Int32Array;
}

const assemble = ({ images = 1, patches, classAt = [], channels, pos = true, fill, source }: Assemble) => (r: Random): OpCall => {
  let patch = 0;
  const sequence = source?.(r) ?? Int32Array.from({ length: patches + classAt.length }, (_, t) => (classAt.includes(t) ? -1 - classAt.indexOf(t) : patch++));
  return {
    kind: 'assembleTokens', images,
    inputs: { x: floats(r, images, patches, channels, fill) },
    outputs: { y: { rows: sequence.length, channels } },
    constants: {
      source: sequence,
      cls: classAt.length > 0 ? r.floats(classAt.length * channels) : undefined,
      pos: pos ? r.floats(sequence.length * channels) : undefined,
    },
  };
};

export const assembleTokensCases: readonly OpCase[] = [
  ...[[1, 1], [5, 1], [3, 97], [7, 16], [13, 33]].map(([patches, channels]) => ({
    name: `[${patches}, ${channels}], class token in the middle`, make: assemble({ patches: patches!, channels: channels!, classAt: [Math.floor(patches! / 2)] }),
  })),
  { name: 'no class token', make: assemble({ patches: 9, channels: 19 }) },
  { name: 'no position embedding', make: assemble({ patches: 9, channels: 19, classAt: [0], pos: false }) },
  { name: 'nothing but a copy', make: assemble({ patches: 9, channels: 19, pos: false }) },
  { name: 'class tokens at both ends, three images', make: assemble({ images: 3, patches: 9, channels: 19, classAt: [0, 10] }) },
  { name: 'patches permuted, repeated and left out', make: assemble({ patches: 9, channels: 19, classAt: [0], source: (r) => Int32Array.from({ length: 14 }, () => r.integer(-1, 8)) }) },
  ...['constant rows', 'rows of zeros', 'outlier channels', 'outlier tokens', 'NaN and infinities'].map((name) => ({ name, make: assemble({ images: 2, patches: 9, channels: 67, classAt: [4], fill: FILLS[name]! }) })),
  ...VIM.map(({ model, len, dim }) => ({ name: 'tokens', model, make: assemble({ patches: len - 1, channels: dim, classAt: [98] }) })),
];
