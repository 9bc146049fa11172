/**
 * The quantized model file: one `.safetensors` (ARCHITECTURE "The quantized file").
 *
 * Per quantized linear NAME: `NAME.weight` I8 [out, in], or for 4 bits U8 [out, ⌈in/2⌉] with two two's-complement
 * nibbles a byte, low one first; `NAME.weight_scale` F32 [out]; `NAME.act_scale` F32 and `NAME.act_zero` U8 [len] or [1],
 * in scan order; `NAME.smooth` F32 [in], absent = 1. Other tensors keep their names and types. `__metadata__` holds
 * format, version, family, config, recipe, preprocess, labels and layers as strings of JSON.
 */
import { Ptq4vmError } from '../errors.js';
import { actQmax, type Bits, type QuantizedLinear, weightQmax } from '../quantizer.js';
import { type DType, fromFloat32, showShape, type Weight } from '../tensor.js';
import type { CheckpointFile } from './checkpoint.js';
import { writeSafetensors } from './safetensors.js';

export const FORMAT = 'ptq4vm';
/** Files of every version up to this one can be read. */
export const FORMAT_VERSION = 1;

/** `layers` of the metadata. `shape` is the logical [out, in] of the weight. */
export interface LayerEntry {
  readonly weightBits: Bits;
  readonly actBits: Bits;
  readonly len: number;
  readonly shape: readonly [number, number];
}

export interface ArtifactMetadata {
  readonly family: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly recipe: Readonly<Record<string, unknown>>;
  readonly preprocess: unknown;
  readonly labels?: readonly string[];
  readonly layers: Readonly<Record<string, LayerEntry>>;
}

export interface Artifact extends Omit<ArtifactMetadata, 'layers'> {
  readonly layers: ReadonlyMap<string, QuantizedLinear>;
  /** Tensors that stay float, by state-dict name. */
  readonly weights: ReadonlyMap<string, Weight>;
}

/** True when a file is one of ours. */
export function isArtifact(file: CheckpointFile): boolean {
  return file.format === 'safetensors' && file.metadata.format === FORMAT;
}

export async function writeArtifact(path: string, artifact: Artifact, signal?: AbortSignal): Promise<void> {
  const layers: Record<string, LayerEntry> = {};
  const tensors: { name: string; dtype: DType; shape: readonly number[]; data: Uint8Array }[] = [];
  const floats = (name: string, data: Float32Array) => tensors.push({ name, dtype: 'f32', shape: [data.length], data: bytes(data) });
  for (const [name, weight] of artifact.weights) {
    tensors.push({ name, dtype: weight.dtype, shape: weight.shape, data: fromFloat32(weight.data, weight.dtype) });
  }
  for (const [name, layer] of artifact.layers) {
    const out = layer.weightScale.length;
    const columns = layer.weight.length / out;
    layers[name] = { weightBits: layer.weightBits, actBits: layer.actBits, len: layer.actScale.length, shape: [out, columns] };
    if (layer.weightBits === 4) {
      tensors.push({ name: `${name}.weight`, dtype: 'u8', shape: [out, Math.ceil(columns / 2)], data: packNibbles(layer.weight, out, columns) });
    } else {
      tensors.push({ name: `${name}.weight`, dtype: 'i8', shape: [out, columns], data: bytes(layer.weight) });
    }
    floats(`${name}.weight_scale`, layer.weightScale);
    floats(`${name}.act_scale`, layer.actScale);
    tensors.push({ name: `${name}.act_zero`, dtype: 'u8', shape: [layer.actZero.length], data: layer.actZero });
    if (layer.smooth !== undefined) floats(`${name}.smooth`, layer.smooth);
  }
  const { family, config, recipe, preprocess, labels } = artifact;
  const metadata: Record<string, string> = { format: FORMAT, version: String(FORMAT_VERSION), family };
  for (const [key, value] of Object.entries({ config, recipe, preprocess, labels, layers })) {
    if (value !== undefined) metadata[key] = JSON.stringify(value);
  }
  await writeSafetensors(path, tensors, metadata, { signal });
}

/** The metadata of a quantized file, checked for shape. Throws ERR_FILE_FORMAT / ERR_UNSUPPORTED. */
export function readArtifactMetadata(file: CheckpointFile): ArtifactMetadata {
  const { metadata } = file;
  const version = Number(metadata.version);
  if (!Number.isInteger(version) || version < 1) throw broken(file, "no valid 'version' in its metadata");
  if (version > FORMAT_VERSION) {
    throw new Ptq4vmError('ERR_UNSUPPORTED', `${file.path} has format version ${version}; this package reads up to ${FORMAT_VERSION}: update ptq4vm-native`);
  }
  if (typeof metadata.family !== 'string') throw broken(file, "no 'family' in its metadata");
  const json = (key: string, required: boolean): unknown => {
    const text = metadata[key];
    if (text === undefined && !required) return undefined;
    if (typeof text !== 'string') throw broken(file, `no '${key}' in its metadata`);
    try {
      return JSON.parse(text);
    } catch {
      throw broken(file, `'${key}' in its metadata is not JSON`);
    }
  };
  const object = (key: string): Record<string, unknown> => {
    const value = json(key, true);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw broken(file, `'${key}' in its metadata is not an object`);
    return value as Record<string, unknown>;
  };
  const layers: Record<string, LayerEntry> = Object.create(null); // a layer may have any name, '__proto__' included
  for (const [name, entry] of Object.entries(object('layers'))) layers[name] = checkLayer(file, name, entry);
  return {
    family: metadata.family, config: object('config'), recipe: object('recipe'), preprocess: json('preprocess', true),
    labels: json('labels', false) as readonly string[] | undefined, layers,
  };
}

function checkLayer(file: CheckpointFile, name: string, entry: unknown): LayerEntry {
  const e = (entry ?? {}) as Partial<LayerEntry>;
  const bits = (b: unknown): b is Bits => b === 4 || b === 6 || b === 8;
  const size = (n: unknown): n is number => Number.isInteger(n) && (n as number) > 0;
  if (!bits(e.weightBits) || !bits(e.actBits) || !size(e.len) || !Array.isArray(e.shape) || e.shape.length !== 2 || !e.shape.every(size)) {
    throw broken(file, `layer '${name}' is not { weightBits, actBits, len, shape }`);
  }
  return e as LayerEntry;
}

/** Reads one quantized linear and checks every range: codes, steps, zero points. */
export async function readQuantizedLinear(file: CheckpointFile, name: string, entry: LayerEntry): Promise<QuantizedLinear> {
  const [out, columns] = entry.shape;
  const read = async (suffix: string, dtype: DType, shape: readonly number[]) => {
    const full = `${name}.${suffix}`;
    const info = file.entries.get(full);
    if (info === undefined) throw broken(file, `it lacks '${full}'`);
    if (info.dtype !== dtype || info.shape.join() !== shape.join()) {
      throw broken(file, `'${full}' is ${info.dtype} ${showShape(info.shape)} where ${dtype} ${showShape(shape)} was expected`);
    }
    return full;
  };
  const steps = async (suffix: string, length: number) => {
    const data = await file.readFloat32(await read(suffix, 'f32', [length]));
    if (!data.every((s) => s > 0 && Number.isFinite(s))) throw broken(file, `'${name}.${suffix}' holds a value that is not positive and finite`);
    // Kernels multiply by 1/s in float32.
    if (!data.every((s) => Number.isFinite(Math.fround(1 / s)))) throw broken(file, `'${name}.${suffix}' holds a value too small for float32 to invert`);
    return data;
  };
  const packed = entry.weightBits === 4;
  const raw = await file.read(await read('weight', packed ? 'u8' : 'i8', packed ? [out, Math.ceil(columns / 2)] : [out, columns]));
  const weight = packed ? unpackNibbles(raw.data, out, columns) : new Int8Array(raw.data.slice().buffer);
  const qmax = weightQmax(entry.weightBits);
  if (!weight.every((q) => q >= -qmax && q <= qmax)) throw broken(file, `'${name}.weight' has codes outside ±${qmax}`);
  const actZero = (await file.read(await read('act_zero', 'u8', [entry.len]))).data.slice();
  if (!actZero.every((z) => z <= actQmax(entry.actBits))) throw broken(file, `'${name}.act_zero' exceeds ${actQmax(entry.actBits)}`);
  return {
    weightBits: entry.weightBits, actBits: entry.actBits, weight, actZero,
    weightScale: await steps('weight_scale', out),
    actScale: await steps('act_scale', entry.len),
    smooth: file.entries.has(`${name}.smooth`) ? await steps('smooth', columns) : undefined,
  };
}

/** Names of the tensors that hold layer `name`, all of them. */
export function layerTensorNames(name: string): string[] {
  return ['weight', 'weight_scale', 'act_scale', 'act_zero', 'smooth'].map((suffix) => `${name}.${suffix}`);
}

/** Two codes a byte along each row, low nibble first; an unused one is 0. */
export function packNibbles(codes: Int8Array, rows: number, columns: number): Uint8Array {
  const stride = Math.ceil(columns / 2);
  const packed = new Uint8Array(rows * stride);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++) packed[r * stride + (k >> 1)]! |= (codes[r * columns + k]! & 15) << (4 * (k & 1));
  }
  return packed;
}

export function unpackNibbles(packed: Uint8Array, rows: number, columns: number): Int8Array {
  const stride = Math.ceil(columns / 2);
  const codes = new Int8Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < columns; k++) {
      const nibble = (packed[r * stride + (k >> 1)]! >> (4 * (k & 1))) & 15;
      codes[r * columns + k] = (nibble << 28) >> 28; // sign extension
    }
  }
  return codes;
}

function bytes(data: Float32Array | Int8Array): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function broken(file: CheckpointFile, what: string): Ptq4vmError {
  return new Ptq4vmError('ERR_FILE_FORMAT', `${file.path} is not a valid quantized model: ${what}`);
}

