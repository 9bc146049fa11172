/**
 * Pictures to model input: decode, orient, resize, crop, normalise.
 *
 * What the official evaluation does with PIL and torchvision is done here with sharp (libvips). Decoded pixels are the
 * same bit for bit; a resize differs by about one level of 255 (docs of sharp, and our measurements in TOOLCHAIN.md).
 * Embedded colour profiles of RGB and grey pictures are ignored, as PIL ignores them and the models were trained so;
 * CMYK needs its profile. Transparent parts show black, which is what PIL leaves of the usual transparent pixel.
 */
import { readFile, stat } from 'node:fs/promises';
import type { Sharp, SharpInput, SharpOptions } from 'sharp';
import { Ptq4vmError, rangeError, typeError } from '../errors.js';
import { describeContent } from '../io/sniff.js';
import { type Preprocess, checkPreprocess, sizeOf } from './preprocess.js';

/** Decoded pixels: rows of interleaved 8-bit channels, 1 grey, 2 grey+alpha, 3 RGB, 4 RGBA. */
export interface RawImage {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  readonly channels: 1 | 2 | 3 | 4;
}

/** A path, the bytes of an image file, or decoded pixels. */
export type ImageSource = string | Uint8Array | RawImage;

/** Formats that are decoded. SVG is left out: it is a program for a renderer, not a picture. */
const FORMATS: ReadonlySet<string> = new Set(['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif']);
const FORMAT_NAMES = 'JPEG, PNG, WebP, GIF, TIFF, AVIF';
/** More pixels than this are refused before decoding: the limit at which PIL suspects a decompression bomb. */
const MAX_PIXELS = 178_956_970;
const MAX_FILE_BYTES = 1 << 29;

export type ColorImage = { readonly data: Uint8Array; readonly width: number; readonly height: number };

type SharpFactory = (input?: SharpInput, options?: SharpOptions) => Sharp;
type SharpModule = SharpFactory & { readonly versions: Readonly<Record<string, string | undefined>> };

let sharpModule: Promise<SharpModule> | undefined;

/** sharp, loaded when first needed: it costs 50 ms that a user of tensors should not pay. */
export function loadSharp(): Promise<SharpModule> {
  sharpModule ??= import('sharp').then(
    (m) => m.default as SharpModule,
    (cause: unknown) => {
      sharpModule = undefined;
      throw new Ptq4vmError(
        'ERR_UNSUPPORTED',
        "Cannot load 'sharp', which decodes pictures: reinstall with 'npm install --include=optional sharp', or give .npy batches",
        { cause },
      );
    },
  );
  return sharpModule;
}

/**
 * One picture as float32 [3, H, W], H×W = `preprocess.size`, normalised.
 *
 * @param source path, file bytes, or decoded pixels
 * @throws Ptq4vmError ERR_FILE_NOT_FOUND (no such file), ERR_DATA (not an image, truncated, too large …; names file and reason)
 */
export async function decodeImage(source: ImageSource, preprocess: Preprocess): Promise<Float32Array> {
  const checked = checkPreprocess(preprocess);
  const [height, width] = sizeOf(checked);
  const out = new Float32Array(3 * height * width);
  await decodeImageInto(out, source, checked);
  return out;
}

/** `decodeImage` into place; `preprocess` is trusted. */
export async function decodeImageInto(out: Float32Array, source: ImageSource, preprocess: Preprocess): Promise<void> {
  const name = typeof source === 'string' ? source : 'the given image';
  const [height, width] = sizeOf(preprocess);
  const pixels = await pixelsOf(source, name, preprocess);
  normalizeInto(out, pixels, height, width, preprocess);
}

async function pixelsOf(source: ImageSource, name: string, preprocess: Preprocess): Promise<ColorImage> {
  const { input, options, head } = await inputOf(source, name);
  const sharp = await loadSharp();
  // failOn 'error' refuses broken and truncated data but, like PIL, takes the harmless oddities that ImageNet has.
  const base: SharpOptions = { failOn: 'error', limitInputPixels: MAX_PIXELS, pages: 1, ...options };
  let picture: Sharp;
  let dims: { width: number; height: number };
  try {
    const meta = await sharp(input, base).metadata();
    if (head !== undefined && !FORMATS.has(meta.format ?? '')) {
      throw new Ptq4vmError('ERR_DATA', `Cannot decode ${name}: ${meta.format} is not supported (${FORMAT_NAMES} are)`);
    }
    dims = { width: meta.autoOrient.width, height: meta.autoOrient.height };
    picture = sharp(input, { ...base, ignoreIcc: meta.space !== 'cmyk' }).autoOrient();
    picture = resized(picture, dims, preprocess);
    const { data, info } = await picture
      .flatten({ background: '#000' })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`decoded to ${info.channels} channels`);
    return { data, width: info.width, height: info.height };
  } catch (cause) {
    if (cause instanceof Ptq4vmError) throw cause;
    throw new Ptq4vmError('ERR_DATA', `Cannot decode ${name}: ${reasonOf(cause, head)}`, { cause });
  }
}

/**
 * torchvision's Resize and CenterCrop: shorter side to `resize`, longer side ⌊resize·long/short⌋, or both sides
 * straight to `size`. A picture that already has the target size is not resampled at all.
 */
function resized(picture: Sharp, from: { width: number; height: number }, preprocess: Preprocess): Sharp {
  const [height, width] = sizeOf(preprocess);
  const { resize } = preprocess;
  let to = { width, height };
  if (resize !== undefined) {
    to = from.width <= from.height
      ? { width: resize, height: Math.floor((resize * from.height) / from.width) }
      : { width: Math.floor((resize * from.width) / from.height), height: resize };
  }
  let out = picture;
  if (to.width !== from.width || to.height !== from.height) {
    const kernel = preprocess.interpolation === 'bilinear' ? 'linear' : 'cubic';
    out = out.resize({ ...to, fit: 'fill', kernel, fastShrinkOnLoad: false });
  }
  // Only the part that the crop needs is computed; a side shorter than the crop is padded by normalizeInto.
  const crop = { width: Math.min(width, to.width), height: Math.min(height, to.height) };
  if (crop.width === to.width && crop.height === to.height) return out;
  return out.extract({ left: margin(to.width, width), top: margin(to.height, height), ...crop });
}

/** First pixel of a centre crop: Python's round((from − to) / 2), half to even; 0 where nothing is cut. */
function margin(from: number, to: number): number {
  const d = from - to;
  if (d <= 0) return 0;
  const half = Math.floor(d / 2);
  return d % 2 === 1 && half % 2 === 1 ? half + 1 : half;
}

/**
 * [H, W, 3] bytes → [3, H, W] float32, in the arithmetic of torchvision's ToTensor and Normalize (every step rounded to
 * float32), by table since a byte has 256 values. A picture smaller than H×W is centred on black, as CenterCrop does.
 */
export function normalizeInto(out: Float32Array, pixels: ColorImage, height: number, width: number, preprocess: Preprocess): void {
  const { data } = pixels;
  const left = (width - pixels.width) >> 1;
  const top = (height - pixels.height) >> 1;
  const padded = left !== 0 || top !== 0 || pixels.width !== width || pixels.height !== height;
  const table = new Float32Array(256);
  for (let c = 0; c < 3; c++) {
    const mean = Math.fround(preprocess.mean[c]!);
    const std = Math.fround(preprocess.std[c]!);
    for (let v = 0; v < 256; v++) table[v] = Math.fround(Math.fround(Math.fround(v / 255) - mean) / std);
    const plane = out.subarray(c * height * width, (c + 1) * height * width);
    if (padded) plane.fill(table[0]!);
    for (let y = 0; y < pixels.height; y++) {
      let at = (y + top) * width + left;
      for (let k = y * pixels.width * 3 + c, end = k + pixels.width * 3; k < end; k += 3) plane[at++] = table[data[k]!]!;
    }
  }
}

/** What sharp is given. `head` (the first bytes) is absent for decoded pixels. */
async function inputOf(source: ImageSource, name: string): Promise<{ input: Uint8Array; options: SharpOptions; head?: Uint8Array }> {
  if (typeof source === 'string') {
    const bytes = await readImageFile(source);
    return { input: bytes, options: {}, head: bytes };
  }
  if (source instanceof Uint8Array) {
    // sharp takes an empty buffer for "no input given": answer that ourselves.
    if (source.length === 0) throw new Ptq4vmError('ERR_DATA', `Cannot decode ${name}: it is empty`);
    return { input: source, options: {}, head: source };
  }
  if (typeof source !== 'object' || source === null) throw typeError('a path, image bytes or { data, width, height, channels }', 'image', source);
  const { data, width, height, channels } = source;
  const positive = (v: unknown): boolean => Number.isInteger(v) && (v as number) >= 1;
  if (!positive(width)) throw rangeError('a positive integer', 'image.width', width);
  if (!positive(height)) throw rangeError('a positive integer', 'image.height', height);
  if (![1, 2, 3, 4].includes(channels)) throw rangeError('1, 2, 3 or 4', 'image.channels', channels);
  if (!(data instanceof Uint8Array) && !(data instanceof Uint8ClampedArray)) throw typeError('a Uint8Array', 'image.data', data);
  if (data.length !== width * height * channels) {
    throw rangeError(`${width * height * channels} bytes (${height}×${width}×${channels})`, 'image.data', data);
  }
  return { input: new Uint8Array(data.buffer, data.byteOffset, data.length), options: { raw: { width, height, channels } } };
}

/** Reads the file ourselves: libvips would cache it by name and show an old picture after the file changed. */
async function readImageFile(path: string): Promise<Uint8Array> {
  try {
    const info = await stat(path);
    if (info.isDirectory()) throw new Ptq4vmError('ERR_DATA', `Cannot decode ${path}: it is a folder`);
    // A pipe would wait and a device may never end.
    if (!info.isFile()) throw new Ptq4vmError('ERR_DATA', `Cannot decode ${path}: not a regular file`);
    if (info.size === 0) throw new Ptq4vmError('ERR_DATA', `Cannot decode ${path}: the file is empty`);
    if (info.size > MAX_FILE_BYTES) throw new Ptq4vmError('ERR_DATA', `Cannot decode ${path}: ${info.size} bytes are too many for a picture`);
    return await readFile(path);
  } catch (cause) {
    if (cause instanceof Ptq4vmError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = code === 'ENOENT' ? 'no such file' : code === 'EACCES' ? 'permission denied' : message;
    throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read ${path}: ${reason}`, { cause });
  }
}

/** libvips repeats itself over several lines; the first says what matters. */
function reasonOf(cause: unknown, head: Uint8Array | undefined): string {
  const message = cause instanceof Error ? cause.message : String(cause);
  if (message.includes('unsupported image format') && head !== undefined) {
    return `not an image that can be read (${FORMAT_NAMES}); it looks like ${describeContent(head.subarray(0, 512), head.length)}`;
  }
  if (message.includes('exceeds pixel limit')) return `it has more than ${MAX_PIXELS} pixels`;
  const line = message.split('\n').filter((s) => s.trim() !== '')[0] ?? message;
  const plain = line.replace(/^Input (buffer|file) has corrupt header: /i, 'corrupt header: ').replace(/^Vips\w*: /i, '');
  return /premature end|truncated/i.test(message) && !/truncated/i.test(plain) ? `truncated (${plain})` : plain;
}
