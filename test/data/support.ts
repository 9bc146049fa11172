/** Small pictures and folders for the data tests. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadSharp, type RawImage } from '../../lib/data/images.js';
import type { Preprocess } from '../../lib/data/preprocess.js';

/** mean 0, std 1: input = byte / 255. */
export function plain(size: number | readonly [number, number], more: Partial<Preprocess> = {}): Preprocess {
  return { size, mean: [0, 0, 0], std: [1, 1, 1], ...more };
}

export type Rgb = RawImage & { readonly data: Uint8Array; readonly channels: 3 };

/** Pixel (x, y) has the colour `at(x, y)`. */
export function rgb(width: number, height: number, at: (x: number, y: number) => readonly [number, number, number]): Rgb {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) data.set(at(x, y), (y * width + x) * 3);
  return { data, width, height, channels: 3 };
}

/** Repeatable numbers in [0, 1) (mulberry32). */
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function noise(width: number, height: number, seed = 1): Rgb {
  const next = random(seed);
  const byte = () => Math.floor(next() * 256);
  return rgb(width, height, () => [byte(), byte(), byte()]);
}

export async function png({ data, width, height, channels }: RawImage): Promise<Buffer> {
  const sharp = await loadSharp();
  return sharp(new Uint8Array(data), { raw: { width, height, channels } }).png().toBuffer();
}

export async function jpeg({ data, width, height, channels }: RawImage): Promise<Buffer> {
  const sharp = await loadSharp();
  return sharp(new Uint8Array(data), { raw: { width, height, channels } }).jpeg().toBuffer();
}

/** A fresh folder that is removed after the suite. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'ptq4vm-test-'));
  after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

export function put(dir: string, name: string, content: Uint8Array | string = ''): string {
  const file = path.join(dir, ...name.split('/'));
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

/** A .npy file (format 1.0) of any element type, written independently of lib/io. */
export function npyBytes(descr: string, shape: readonly number[], data: ArrayBufferView, fortran = false): Buffer {
  const dict = `{'descr': '${descr}', 'fortran_order': ${fortran ? 'True' : 'False'}, 'shape': (${shape.join(', ')}${shape.length === 1 ? ',' : ''}), }`;
  const text = `${dict.padEnd(Math.ceil((10 + dict.length + 1) / 64) * 64 - 11)}\n`;
  const head = Buffer.alloc(10);
  head.write('\x93NUMPY\x01\x00', 0, 'latin1');
  head.writeUInt16LE(text.length, 8);
  return Buffer.concat([head, Buffer.from(text), Buffer.from(data.buffer, data.byteOffset, data.byteLength)]);
}

/** Awaits a rejection and returns the error; fails when there is none. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error('expected a rejection, but the promise was fulfilled');
}
