/** How a picture becomes a model's input: part of every model, saved with it. */
import { Ptq4vmError, rangeError, show, typeError } from '../errors.js';

export type Interpolation = 'bicubic' | 'bilinear';
type Triple = readonly [number, number, number];

export interface Preprocess {
  /** Input size of the model in pixels, [height, width] or one number for both. */
  readonly size: number | readonly [number, number];
  /** Shorter side after resizing; the centre of `size` is then cropped. Absent: resize straight to `size`, nothing cropped. */
  readonly resize?: number;
  /** Absent: bicubic. */
  readonly interpolation?: Interpolation;
  /** Per channel (red, green, blue) of values in 0…1: input = (value − mean) / std. */
  readonly mean: Triple;
  readonly std: Triple;
}

export const IMAGENET_MEAN: Triple = [0.485, 0.456, 0.406];
export const IMAGENET_STD: Triple = [0.229, 0.224, 0.225];

/**
 * The evaluation preprocessing of the official Vim and VMamba code: shorter side to ⌊size / 0.875⌋ (256 for 224)
 * bicubic, centre crop, ImageNet mean and deviation. A size that is not square is resized to straight away.
 */
export function imagenetPreprocess(size: number | readonly [number, number]): Preprocess {
  const [height, width] = sizeOf({ size });
  return {
    size: height === width ? height : [height, width],
    ...(height === width ? { resize: Math.floor(height / 0.875) } : {}),
    interpolation: 'bicubic',
    mean: IMAGENET_MEAN,
    std: IMAGENET_STD,
  };
}

/** `size` as [height, width]. */
export function sizeOf(preprocess: Pick<Preprocess, 'size'>): readonly [number, number] {
  const { size } = preprocess;
  return typeof size === 'number' ? [size, size] : size;
}

const KEYS: ReadonlySet<string> = new Set(['size', 'resize', 'interpolation', 'mean', 'std']);
const MAX_SIDE = 16384;

/**
 * Checks what a configuration, a quantized file or a caller gives and returns a clean copy.
 * Throws ERR_CONFIG; `where` names the source ("config.json").
 */
export function parsePreprocess(value: unknown, where: string): Preprocess {
  const bad = (what: string, key: string, received: unknown): never => {
    throw new Ptq4vmError('ERR_CONFIG', `Expected ${what} for ${key} in ${where} but received ${show(received)}`);
  };
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return bad('{ size, resize?, mean, std }', 'preprocess', value);
  const given = value as Record<string, unknown>;
  for (const key of Object.keys(given)) {
    if (!KEYS.has(key)) throw new Ptq4vmError('ERR_CONFIG', `Unknown key preprocess.${key} in ${where}; known: ${[...KEYS].join(', ')}`);
  }
  const side = (v: unknown): v is number => Number.isInteger(v) && (v as number) >= 1 && (v as number) <= MAX_SIDE;
  const { size, resize, interpolation } = given;
  if (!side(size) && !(Array.isArray(size) && size.length === 2 && size.every(side))) {
    bad(`pixels (1…${MAX_SIDE}) or [height, width]`, 'preprocess.size', size);
  }
  if (resize !== undefined && resize !== null && !side(resize)) bad(`pixels (1…${MAX_SIDE})`, 'preprocess.resize', resize);
  if (interpolation !== undefined && interpolation !== 'bicubic' && interpolation !== 'bilinear') {
    bad("'bicubic' or 'bilinear'", 'preprocess.interpolation', interpolation);
  }
  const triple = (key: 'mean' | 'std', positive: boolean): Triple => {
    const v = given[key];
    const ok = Array.isArray(v) && v.length === 3 && v.every((x) => typeof x === 'number' && Number.isFinite(x) && (!positive || x > 0));
    if (!ok) bad(positive ? 'three positive numbers' : 'three numbers', `preprocess.${key}`, v);
    const [r, g, b] = v as [number, number, number];
    return [r, g, b];
  };
  return {
    size: Array.isArray(size) ? [size[0] as number, size[1] as number] : (size as number),
    ...(typeof resize === 'number' ? { resize } : {}),
    ...(interpolation === undefined ? {} : { interpolation: interpolation as Interpolation }),
    mean: triple('mean', false),
    std: triple('std', true),
  };
}

/** For functions that take a Preprocess from a caller: TypeError/RangeError instead of ERR_CONFIG. */
export function checkPreprocess(value: unknown): Preprocess {
  if (typeof value !== 'object' || value === null) throw typeError('{ size, resize?, mean, std }', 'preprocess', value);
  try {
    return parsePreprocess(value, 'preprocess');
  } catch (error) {
    if (error instanceof Ptq4vmError) throw rangeError(`a valid Preprocess (${error.message})`, 'preprocess', value);
    throw error;
  }
}
