/** A loaded model: float or quantized, ready to run. */
import type { Dataset } from './data/dataset.js';
import { decodeImage, type ImageSource } from './data/images.js';
import type { Preprocess } from './data/preprocess.js';
import { chooseDevice, type Device, type DeviceOption } from './device.js';
import { Ptq4vmError, rangeError, typeError } from './errors.js';
import { type EvaluateOptions, type EvaluateReport, evaluate, type Prediction, topPredictions } from './evaluate.js';
import type { QuantizedLinear } from './quantizer.js';
import { quantizeProgram } from './program/quantize.js';
import { fuseProgram } from './program/fuse.js';
import type { Program } from './program/ir.js';
import { isArtifact, layerTensorNames, readArtifactMetadata, readQuantizedLinear, writeArtifact, type Artifact } from './io/artifact.js';
import { type CheckpointFile, openCheckpoint } from './io/checkpoint.js';
import type { ModelDefinition, UserConfig, Weights } from './models/definition.js';
import { defineModel } from './models/registry.js';
import { readConfig } from './models/user-config.js';
import { EngineSession } from './native/session.js';
import type { MemoryPlan } from './native/addon-types.js';
import type { JobOptions } from './progress.js';
import { calibrate } from './ptq/calibrate.js';
import { makeRecipe, type Recipe, type RecipeOptions } from './ptq/recipe.js';
import { gatherCalibration } from './ptq/samples.js';
import { checkTensor, showShape, type Tensor, type Weight } from './tensor.js';

export type Precision = 'fp32' | 'bf16' | 'fp16' | 'int' | 'fake';

export interface LoadOptions extends JobOptions {
  /** Official registry name, or vim-tiny, vim-small, vim-base. */
  readonly model?: string;
  /** Configuration, or the path of a JSON file that holds one. */
  readonly config?: string | UserConfig;
  readonly device?: DeviceOption;
  /** Threads; 0 or absent: physical cores. */
  readonly threads?: number;
  /** float files: fp32; quantized ones: int (default) or fake. */
  readonly precision?: Precision;
  /** Class names in index order. */
  readonly labels?: readonly string[];
}

export interface QuantizeOptions extends JobOptions, RecipeOptions {
  readonly calibration: Dataset;
  /** Images decoded and copied at a time. */
  readonly batchSize?: number;
}

/** What a model is made of, apart from the engine that runs it. */
export interface Parts {
  readonly definition: ModelDefinition;
  /** Float tensors; for a quantized model without the weights of its quantized linears. */
  readonly weights: Weights;
  readonly program: Program;
  readonly layers?: ReadonlyMap<string, QuantizedLinear>;
  readonly recipe?: Recipe | Readonly<Record<string, unknown>>;
}

interface RunOptions {
  readonly device?: DeviceOption;
  readonly threads?: number;
  readonly precision?: Precision;
}

export class Model {
  readonly family: string;
  readonly classes: number;
  readonly labels: readonly string[] | undefined;
  readonly preprocess: Preprocess;
  /** [channels, height, width]. */
  readonly inputShape: readonly [number, number, number];
  readonly precision: Precision;
  readonly device: Device;
  /** How it was quantized; absent for a float model. */
  readonly quantization: { readonly recipe: Readonly<Record<string, unknown>>; readonly layers: ReadonlyMap<string, QuantizedLinear> } | undefined;
  /** Things a user should know, such as configuration values that were assumed. */
  readonly warnings: readonly string[];

  /** Definition, weights and float Program, for passes and tests that look inside. */
  readonly parts: Parts;
  private readonly options: RunOptions;
  private readonly session: EngineSession;
  private disposed = false;

  /** Use `load` or `quantize`. */
  constructor(parts: Parts, options: RunOptions) {
    const { definition, layers } = parts;
    this.parts = parts;
    this.options = options;
    this.family = definition.family;
    this.classes = definition.classes;
    this.labels = definition.labels;
    this.preprocess = definition.preprocess;
    this.inputShape = definition.inputShape;
    this.precision = checkPrecision(options.precision, layers !== undefined);
    checkThreads(options.threads);
    this.warnings = definition.assumed.map((a) => `${a.key} was assumed (${a.why}): give --config to be sure`);
    this.quantization = layers && { recipe: parts.recipe as Readonly<Record<string, unknown>>, layers };
    const chosen = chooseDevice(options.device);
    this.session = new EngineSession(executable(parts, this.precision), { threads: options.threads });
    this.device = { ...chosen, isa: this.session.isa, threads: this.session.threads };
  }

  /** Configuration in the official constructor's words. */
  get config(): Readonly<Record<string, unknown>> {
    return this.parts.definition.config;
  }

  /**
   * Logits [N, classes] of pictures [N, 3, H, W], already normalised, in float32.
   * Throws TypeError/RangeError for another shape, ERR_DATA for NaN or infinite pixels.
   */
  async forward(images: Tensor, options: { signal?: AbortSignal } = {}): Promise<Tensor> {
    checkTensor(images, 'images');
    const { dims } = images;
    if (dims.length !== 4 || this.inputShape.some((d, i) => dims[i + 1] !== d)) {
      throw rangeError(`[N, ${this.inputShape.join(', ')}]`, 'images.dims', [...dims]);
    }
    this.checkUsable();
    const [count] = dims;
    if (count === 0) return { dims: [0, this.classes], data: new Float32Array(0) };
    const { program } = this.parts;
    // The engine reads this memory while the event loop goes on: the caller may change or transfer his.
    const feeds = { [program.input]: images.data.slice() };
    const values = await this.session.run({ images: count!, feeds, fetches: [program.output], signal: options.signal });
    return { dims: [count!, this.classes], data: values[program.output] as Float32Array };
  }

  /** The k most probable classes of one picture, or of each of several. */
  async predict(input: ImageSource, options?: { topK?: number; signal?: AbortSignal }): Promise<Prediction[]>;
  async predict(inputs: readonly ImageSource[], options?: { topK?: number; signal?: AbortSignal }): Promise<Prediction[][]>;
  async predict(
    input: ImageSource | readonly ImageSource[],
    options: { topK?: number; signal?: AbortSignal } = {},
  ): Promise<Prediction[] | Prediction[][]> {
    const { topK = 5, signal } = options;
    this.checkUsable();
    if (this.inputShape[0] !== 3) {
      throw new Ptq4vmError('ERR_UNSUPPORTED', `Pictures are decoded to 3 colour channels, this model takes ${this.inputShape[0]}: give tensors to forward()`);
    }
    const inputs = Array.isArray(input) ? (input as readonly ImageSource[]) : [input as ImageSource];
    if (inputs.length === 0) return [];
    const decoded = await Promise.all(inputs.map((source) => decodeImage(source, this.preprocess)));
    const size = decoded[0]!.length;
    const data = new Float32Array(decoded.length * size);
    for (const [i, d] of decoded.entries()) data.set(d, i * size);
    const logits = await this.forward({ dims: [decoded.length, ...this.inputShape], data }, { signal });
    const results = decoded.map((_, i) => topPredictions(logits.data.subarray(i * this.classes, (i + 1) * this.classes), topK, this.labels));
    return Array.isArray(input) ? results : results[0]!;
  }

  /** Top-1, top-5, speed and, with a reference model, agreement and logit error over a dataset. */
  async evaluate(dataset: Dataset, options: EvaluateOptions = {}): Promise<EvaluateReport> {
    if (typeof dataset?.batches !== 'function') throw typeError('a dataset (imageFolder or npyBatch)', 'dataset', dataset);
    return evaluate(this, dataset, options);
  }

  /** Writes the quantized model as one file: to a temporary name first, then renamed. */
  async save(path: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    if (typeof path !== 'string' || path === '') throw typeError('a path', 'path', path);
    this.checkUsable();
    const { definition, layers, recipe, weights } = this.parts;
    if (layers === undefined) throw new Ptq4vmError('ERR_UNSUPPORTED', 'Only quantized models are saved: quantize this one first');
    const { family, config, preprocess, labels } = definition;
    const artifact: Artifact = { family, config, recipe: { ...recipe }, preprocess, labels, layers, weights };
    await writeArtifact(path, artifact, options.signal);
  }

  /** The same model with other run options; weights are shared, kernels packed anew. */
  with(options: { threads?: number; precision?: Precision; device?: DeviceOption }): Model {
    this.checkUsable();
    return new Model(this.parts, { ...this.options, ...options });
  }

  /** How the engine lays out memory for a batch (`inspect --plan`). */
  plan(batch = 1): MemoryPlan {
    if (!Number.isInteger(batch) || batch < 1) throw rangeError('a positive integer', 'batch', batch);
    return this.session.plan(batch);
  }

  /** Frees weights and memory once what runs has ended. Calls after this one fail with ERR_DISPOSED. */
  dispose(): Promise<void> {
    this.disposed = true;
    return this.session.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  private checkUsable(): void {
    if (this.disposed) throw new Ptq4vmError('ERR_DISPOSED', 'The model has been disposed of');
  }

  /** Quantizes this float model; see `quantize`. */
  async quantize(options: QuantizeOptions): Promise<Model> {
    checkOptions(options);
    const { calibration, signal, onProgress, batchSize, ...choices } = options;
    const recipe = makeRecipe(choices);
    this.checkUsable();
    if (this.quantization !== undefined) throw new Ptq4vmError('ERR_UNSUPPORTED', 'This model is already quantized: quantize the float checkpoint');
    const { definition, program, weights } = this.parts;
    const samples = await gatherCalibration(calibration, this, recipe.samples, { signal, onProgress, batchSize });
    const layers = await calibrate(program, samples.images, samples.count, recipe, { signal, onProgress, threads: this.session.threads });
    const kept = new Map([...weights].filter(([name]) => !layers.has(name.replace(/\.weight$/, ''))));
    const stored = { ...recipe, calibration: { name: calibration.name, images: samples.count } };
    return new Model({ definition, program, weights: kept, layers, recipe: stored }, { ...this.options, precision: undefined });
  }
}

/** What is handed to the engine: the float Program, or what the quantized file computes. */
function executable({ program, layers }: Parts, precision: Precision): Program {
  if (layers === undefined) return program;
  if (precision === 'fake') return quantizeProgram(program, layers, 'fake');
  return fuseProgram(quantizeProgram(program, layers, 'int'));
}

function checkPrecision(precision: Precision | undefined, quantized: boolean): Precision {
  const possible: readonly Precision[] = quantized ? ['int', 'fake'] : ['fp32'];
  if (precision === undefined) return possible[0]!;
  if (possible.includes(precision)) return precision;
  const all: readonly Precision[] = ['fp32', 'bf16', 'fp16', 'int', 'fake'];
  if (!all.includes(precision)) throw rangeError(`one of ${all.join(', ')}`, 'precision', precision);
  throw new Ptq4vmError('ERR_UNSUPPORTED', `precision '${precision}' is not available for a ${quantized ? 'quantized' : 'float'} model on the CPU: use ${possible.join(' or ')}`);
}

function checkThreads(threads: unknown): void {
  if (threads === undefined) return;
  if (typeof threads !== 'number') throw typeError('a number', 'threads', threads);
  if (!Number.isInteger(threads) || threads < 0 || threads > 256) throw rangeError('an integer from 0 to 256', 'threads', threads);
}

function checkOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) throw typeError('an object', 'options', options);
}

/**
 * Loads a checkpoint (.pth, .safetensors) or a quantized file.
 * Throws ERR_FILE_* for the file, ERR_CONFIG / ERR_WEIGHTS / ERR_UNSUPPORTED for the model, ERR_DEVICE.
 */
export async function load(path: string, options: LoadOptions = {}): Promise<Model> {
  if (typeof path !== 'string' || path === '') throw typeError('a path', 'path', path);
  checkOptions(options);
  const { signal, onProgress, labels } = options;
  signal?.throwIfAborted();
  chooseDevice(options.device);
  checkThreads(options.threads);
  if (labels !== undefined && !(Array.isArray(labels) && labels.every((l) => typeof l === 'string'))) throw typeError('an array of strings', 'labels', labels);
  const file = await openCheckpoint(path);
  try {
    const config = await readConfig(options.config);
    const parts = isArtifact(file)
      ? await readQuantized(file, options, config)
      : await readFloat(file, { ...options, config });
    onProgress?.({ stage: 'pack', done: 1, total: 1, detail: path });
    return new Model(parts, options);
  } finally {
    await file.close();
  }
}

/** Quantizes a float model after training (ARCHITECTURE "Mathematics") and returns the quantized one; the float one stays usable. */
export function quantize(model: Model, options: QuantizeOptions): Promise<Model> {
  if (!(model instanceof Model)) throw typeError('a Model', 'model', model);
  return model.quantize(options);
}

async function readFloat(file: CheckpointFile, options: LoadOptions & { config?: UserConfig }): Promise<Parts> {
  const shapes = new Map([...file.entries].map(([name, e]) => [name, e.shape]));
  const definition = defineModel(shapes, options);
  const weights = await readWeights(file, [...definition.tensors.keys()], options);
  return { definition, weights, program: definition.buildProgram(weights) };
}

async function readQuantized(file: CheckpointFile, options: LoadOptions, config: UserConfig | undefined): Promise<Parts> {
  const meta = readArtifactMetadata(file);
  if (config !== undefined || options.model !== undefined) {
    throw new Ptq4vmError('ERR_CONFIG', `${file.path} is a quantized model and carries its configuration: give neither --config nor --model`);
  }
  const owned = new Set(Object.keys(meta.layers).flatMap(layerTensorNames));
  const shapes = new Map([...file.entries].filter(([name]) => !owned.has(name)).map(([name, e]) => [name, e.shape]));
  for (const [name, layer] of Object.entries(meta.layers)) shapes.set(`${name}.weight`, layer.shape);
  const stored = { ...meta.config, family: meta.family, preprocess: meta.preprocess, labels: meta.labels };
  const definition = defineModel(shapes, { config: stored, labels: options.labels, origin: `the metadata of ${file.path}` });
  const layers = new Map<string, QuantizedLinear>();
  for (const [name, entry] of Object.entries(meta.layers)) {
    options.signal?.throwIfAborted();
    layers.set(name, await readQuantizedLinear(file, name, entry));
  }
  const names = [...definition.tensors.keys()].filter((name) => !owned.has(name));
  const weights = await readWeights(file, names, options);
  // The Program is built with all weights; those of quantized linears stand empty until the pass replaces them.
  const all = new Map<string, Weight>(weights);
  for (const [name, entry] of Object.entries(meta.layers)) all.set(`${name}.weight`, { shape: entry.shape, dtype: 'f32', data: new Float32Array(0) });
  const program = definition.buildProgram(all);
  for (const [name, layer] of layers) {
    const info = program.linears.find((l) => l.name === name);
    if (info === undefined) throw new Ptq4vmError('ERR_FILE_FORMAT', `${file.path}: '${name}' is not a quantizable linear of a ${meta.family} model`);
    if (layer.actScale.length !== 1 && layer.actScale.length !== info.len) {
      throw new Ptq4vmError('ERR_FILE_FORMAT', `${file.path}: '${name}' has steps for ${layer.actScale.length} token positions where the model has ${info.len}`);
    }
  }
  return { definition, weights, program, layers, recipe: meta.recipe };
}

async function readWeights(file: CheckpointFile, names: readonly string[], { signal, onProgress }: JobOptions): Promise<Map<string, Weight>> {
  const weights = new Map<string, Weight>();
  for (const name of names) {
    signal?.throwIfAborted();
    const { shape, dtype } = file.entries.get(name)!;
    const data = await file.readFloat32(name);
    if (!data.every(Number.isFinite)) throw new Ptq4vmError('ERR_WEIGHTS', `Tensor '${name}' (${showShape(shape)}) holds NaN or infinite values`);
    weights.set(name, { shape, dtype, data });
    onProgress?.({ stage: 'read', done: weights.size, total: names.length, detail: name });
  }
  return weights;
}
