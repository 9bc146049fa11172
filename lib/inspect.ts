/** What a model file is, without making it run: `ptq4vm inspect`. */
import { isArtifact, type LayerEntry, layerTensorNames, readArtifactMetadata } from './io/artifact.js';
import { openCheckpoint } from './io/checkpoint.js';
import type { Assumption } from './models/definition.js';
import { defineModel } from './models/registry.js';
import { readConfig } from './models/user-config.js';
import { DTYPE_BYTES, elementCount } from './tensor.js';
import type { LoadOptions } from './model.js';

export interface InspectReport {
  readonly format: 'pth-zip' | 'pth-legacy' | 'safetensors' | 'ptq4vm';
  readonly family: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly preprocess: unknown;
  readonly labels?: readonly string[];
  readonly tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[]; readonly bytes: number }[];
  readonly parameters: number;
  readonly bytes: number;
  /** Quantized files: bits and token positions per linear. */
  readonly layers?: Readonly<Record<string, LayerEntry>>;
  readonly recipe?: Readonly<Record<string, unknown>>;
  /** Values that nothing in the file or the options tells. */
  readonly assumed: readonly Assumption[];
  /** Plain data beside the weights of a `.pth` (epoch, args, …), by key. */
  readonly extras: readonly string[];
}

/** Reads names, shapes and metadata only. Errors as `load`. */
export async function inspectFile(path: string, options: Pick<LoadOptions, 'model' | 'config' | 'labels'> = {}): Promise<InspectReport> {
  const file = await openCheckpoint(path);
  try {
    const tensors = [...file.entries].map(([name, { dtype, shape }]) => ({ name, dtype, shape, bytes: elementCount(shape) * DTYPE_BYTES[dtype] }));
    const bytes = tensors.reduce((sum, t) => sum + t.bytes, 0);
    if (isArtifact(file)) {
      const { family, config, recipe, layers, preprocess, labels } = readArtifactMetadata(file);
      const owned = new Set(Object.keys(layers).flatMap(layerTensorNames));
      const parameters = countElements([...tensors.filter((t) => !owned.has(t.name)), ...Object.values(layers)]);
      return { format: 'ptq4vm', family, config, preprocess, labels, tensors, parameters, bytes, layers, recipe, assumed: [], extras: [] };
    }
    const config = await readConfig(options.config);
    const shapes = new Map(tensors.map((t) => [t.name, t.shape]));
    const definition = defineModel(shapes, { ...options, config });
    return {
      format: file.format, family: definition.family, config: definition.config, preprocess: definition.preprocess, labels: definition.labels,
      tensors, parameters: countElements(tensors), bytes, assumed: definition.assumed,
      extras: Object.keys(file.metadata).filter((key) => !key.startsWith('__')),
    };
  } finally {
    await file.close();
  }
}

function countElements(tensors: readonly { readonly shape: readonly number[] }[]): number {
  return tensors.reduce((sum, t) => sum + elementCount(t.shape), 0);
}
