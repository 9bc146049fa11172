/**
 * From a checkpoint's tensors to a model definition: which family it is, and its configuration from the
 * weights, `--config` and a registry name. One entry per family; nothing else knows them all.
 */
import { Ptq4vmError, show } from '../errors.js';
import { imagenetPreprocess, parsePreprocess, sizeOf } from '../data/preprocess.js';
import { sameShape, showShape } from '../tensor.js';
import type { ModelDefinition, Shapes, UserConfig, Weights } from './definition.js';
import type { Source } from './resolve.js';
import { buildVim, vimTensors } from './vim.js';
import { resolveVimConfig, VIM_KEYS } from './vim-config.js';
import { VIM_REGISTRY, VIM_SHORT_NAMES } from './vim-registry.js';

/** Keys of `--config` that decide something, at its top level. Constructor arguments may stand there too. */
const TOP_LEVEL_KEYS = ['family', 'constructor', 'norm_epsilon', 'd_state', 'd_conv', 'expand', 'labels', 'preprocess'];

/** Keys that golden and model configurations carry for the record, and constructor arguments without effect at inference. */
const PROVENANCE_KEYS = [
  'official_registry_name', 'official_config_style', 'official_class', 'seed', 'batch', 'dt_rank', 'd_inner', 'grid_size', 'seq_len', 'num_patches',
  'dims', 'layout', 'k_group', 'per_stage', 'input_hw', 'out_indices', 'biattn_norm_epsilon', 'biattn_reduce', 'note',
];
const INERT_ARGUMENTS = [
  'residual_in_fp32', 'fused_add_norm', 'drop_path_rate', 'drop_rate', 'if_bimamba', 'if_devide_out', 'ft_seq_len', 'pt_hw_seq_len', 'ssm_cfg', 'initializer_cfg',
];
/** Arguments that would change what is computed: the only values that are run, as the official code has them by default. */
const FIXED_ARGUMENTS: Readonly<Record<string, (value: unknown, values: Readonly<Record<string, unknown>>) => boolean>> = {
  bimamba_type: (v) => v === 'v2',
  if_bidirectional: (v) => v === false,
  flip_img_sequences_ratio: (v) => typeof v === 'number' && v <= 0,
  init_layer_scale: () => false,
  // Without a class token the tokens are pooled, and only their mean is known here.
  final_pool_type: (v, values) => v === 'mean' || values.if_cls_token === true,
};

/** Family by tensors that only it has. */
function detectFamily(shapes: Shapes): 'vim' | 'vmamba' | 'localvim' | 'localvmamba' | undefined {
  const has = (pattern: RegExp) => [...shapes.keys()].some((name) => pattern.test(name));
  if (has(/^layers\.\d+\.mixer\..*(conv1d_\d|multi_scan|x_proj_\d)/)) return 'localvim';
  if (has(/\.op\.multi_scan\./)) return 'localvmamba';
  if (has(/\.(op|self_attention)\.(x_proj_weight|A_logs)$/)) return 'vmamba';
  if (has(/^layers\.\d+\.mixer\.in_proj\.weight$/)) return 'vim';
  return undefined;
}

export interface DefineOptions {
  /** Registry name or short name (`--model`). */
  readonly model?: string;
  /** Parsed `--config`. */
  readonly config?: UserConfig;
  /** Class names in index order (`--class-names`); win over the configuration's. */
  readonly labels?: readonly string[];
  /** Where `config` comes from, for messages; absent: '--config'. */
  readonly origin?: string;
}

/** Throws ERR_CONFIG / ERR_WEIGHTS / ERR_UNSUPPORTED with both sides of any contradiction. */
export function defineModel(shapes: Shapes, options: DefineOptions = {}): ModelDefinition {
  const family = detectFamily(shapes);
  if (family === undefined) {
    const names = [...shapes.keys()].slice(0, 4).map(show).join(', ');
    throw new Ptq4vmError('ERR_WEIGHTS', `These tensors belong to no Visual Mamba model that is known here (${shapes.size} tensors: ${names}, …)`);
  }
  if (family !== 'vim') {
    throw new Ptq4vmError('ERR_UNSUPPORTED', `This is a ${family} checkpoint; this version runs Vim models only`);
  }
  const { origin = '--config' } = options;
  const stated = options.config?.family;
  if (stated !== undefined && stated !== family) {
    throw new Ptq4vmError('ERR_CONFIG', `Contradiction about family: ${origin} says ${show(stated)}, the weights say '${family}'`);
  }
  const sources = [...configSource(options.config, origin), ...registrySource(options.model)];
  const { config, resolved, assumed } = resolveVimConfig(shapes, sources);
  const tensors = vimTensors(config, shapes);
  checkTensors(shapes, tensors);
  checkFixedArguments(options.config, resolved, origin);

  const labels = options.labels ?? parseLabels(options.config?.labels, origin);
  if (labels !== undefined && labels.length !== config.classes) {
    throw new Ptq4vmError('ERR_CONFIG', `Contradiction about classes: ${labels.length} labels, but head.weight has ${config.classes} rows`);
  }
  const given = options.config?.preprocess;
  const preprocess = given === undefined ? imagenetPreprocess(config.imageSize) : parsePreprocess(given, origin);
  const [height, width] = sizeOf(preprocess);
  if (height !== config.imageSize || width !== config.imageSize) {
    throw new Ptq4vmError('ERR_CONFIG', `Contradiction about picture size: preprocess makes ${height}×${width}, the model takes ${config.imageSize}×${config.imageSize}`);
  }
  const guessed = given === undefined ? [{ key: 'preprocess', value: preprocess, why: 'the ImageNet evaluation of the published models' }] : [];
  return {
    family,
    config: { ...resolved, num_classes: config.classes, dt_rank: config.dtRank, d_inner: config.dInner, seq_len: config.len, grid_size: [config.grid, config.grid] },
    assumed: [...assumed, ...guessed],
    labels,
    preprocess,
    inputShape: [config.channels, config.imageSize, config.imageSize],
    classes: config.classes,
    buildProgram: (weights: Weights) => buildVim(config, weights),
    tensors,
  };
}

function registrySource(name: string | undefined): Source[] {
  if (name === undefined) return [];
  const values = VIM_REGISTRY[VIM_SHORT_NAMES[name] ?? name];
  if (values === undefined) {
    throw new Ptq4vmError('ERR_CONFIG', `Expected one of ${[...Object.keys(VIM_SHORT_NAMES), ...Object.keys(VIM_REGISTRY)].join(', ')} for --model but received ${show(name)}`);
  }
  return [{ name: `--model '${name}'`, values }];
}

function configSource(config: UserConfig | undefined, origin: string): Source[] {
  if (config === undefined) return [];
  const args = Object.hasOwn(config, 'constructor') ? config.constructor : {};
  if (typeof args !== 'object' || args === null || Array.isArray(args)) {
    throw new Ptq4vmError('ERR_CONFIG', `Expected an object for constructor in ${origin} but received ${show(args)}`);
  }
  const known = new Set<string>([...TOP_LEVEL_KEYS, ...PROVENANCE_KEYS, ...INERT_ARGUMENTS, ...Object.keys(FIXED_ARGUMENTS), ...VIM_KEYS]);
  const values: Record<string, unknown> = {};
  for (const [key, value] of [...Object.entries(config), ...Object.entries(args)]) {
    if (!known.has(key)) throw new Ptq4vmError('ERR_CONFIG', `Unknown key ${show(key)} in ${origin}`);
    if (!(VIM_KEYS as readonly string[]).includes(key)) continue;
    if (values[key] !== undefined && values[key] !== value) {
      throw new Ptq4vmError('ERR_CONFIG', `Contradiction about ${key} in ${origin}: ${show(values[key])} and ${show(value)}`);
    }
    values[key] = value;
  }
  // A head or middle position says nothing about a model with two class tokens or none.
  if (values.use_double_cls_token === true || values.if_cls_token === false) delete values.use_middle_cls_token;
  return [{ name: origin, values }];
}

/** Throws ERR_UNSUPPORTED for an argument of another value than the one that is run; `resolved` adds what the weights tell. */
function checkFixedArguments(config: UserConfig | undefined, resolved: Readonly<Record<string, unknown>>, origin: string): void {
  if (config === undefined) return;
  const given = { ...config, ...(Object.hasOwn(config, 'constructor') ? (config.constructor as unknown as UserConfig) : {}) };
  for (const [key, isRun] of Object.entries(FIXED_ARGUMENTS)) {
    const value = Object.hasOwn(given, key) ? given[key] : undefined;
    if (value === undefined || value === null || isRun(value, resolved)) continue;
    throw new Ptq4vmError('ERR_UNSUPPORTED', `${origin} says ${key} ${show(value)}: this package does not run such models`);
  }
}

function parseLabels(labels: unknown, origin: string): readonly string[] | undefined {
  if (labels === undefined) return undefined;
  if (!Array.isArray(labels) || !labels.every((l) => typeof l === 'string')) {
    throw new Ptq4vmError('ERR_CONFIG', `Expected an array of strings for labels in ${origin} but received ${show(labels)}`);
  }
  return labels;
}

/** As strict as the official loader: nothing may be missing, left over, or of another shape. */
function checkTensors(shapes: Shapes, wanted: ReadonlyMap<string, readonly number[]>): void {
  const missing = [...wanted.keys()].filter((name) => !shapes.has(name));
  if (missing.length > 0) throw new Ptq4vmError('ERR_WEIGHTS', `The checkpoint lacks ${list(missing)}`);
  const extra = [...shapes.keys()].filter((name) => !wanted.has(name));
  if (extra.length > 0) throw new Ptq4vmError('ERR_WEIGHTS', `The checkpoint has tensors that this model does not use: ${list(extra)}`);
  for (const [name, shape] of wanted) {
    if (!sameShape(shapes.get(name)!, shape)) {
      throw new Ptq4vmError('ERR_WEIGHTS', `Tensor '${name}' is ${showShape(shapes.get(name)!)} where ${showShape(shape)} was expected`);
    }
  }
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 5).map(show).join(', ');
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}
