/** Where a Vim's configuration comes from: shapes, --config, --model; what is assumed; and every way they can disagree. */
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { inspectFile } from '../../lib/inspect.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { load } from '../../lib/model.js';
import { type DefineOptions, defineModel } from '../../lib/models/registry.js';
import { VIM_REGISTRY, VIM_SHORT_NAMES } from '../../lib/models/vim-registry.js';
import { expectFailure, scratchFolder } from '../io/support.js';
import { json, shared } from '../support/shared.js';
import { type RandomVim, randomVim, shapesOf, type Variant, writeVim } from './random-vim.js';

type Config = Record<string, unknown>;

const define = async (shapes: ReadonlyMap<string, readonly number[]>, options: DefineOptions = {}) => defineModel(shapes, options);

async function fileShapes(file: string): Promise<Map<string, readonly number[]>> {
  const checkpoint = await openCheckpoint(file);
  await checkpoint.close();
  return new Map([...checkpoint.entries].map(([name, e]) => [name, e.shape]));
}

describe('Vim configuration: from the shapes alone', () => {
  /** What no shape tells. */
  const HIDDEN = ['stride', 'img_size', 'if_divide_out', 'preprocess'];
  const CASES: Readonly<Record<string, { assumed: readonly string[]; wrong?: Config }>> = {
    A_vim_double_cls: { assumed: HIDDEN },
    A_vim_headcls_nodiv: { assumed: [...HIDDEN, 'use_middle_cls_token'], wrong: { use_middle_cls_token: true, if_divide_out: true } },
    A_vim_micro: { assumed: [...HIDDEN, 'use_middle_cls_token'] },
    A_vim_nocls_meanpool: { assumed: HIDDEN },
    // A 5×5 grid of 16 px patches: neither published stride makes it of 224 px, so patches that touch are assumed.
    A_vim_odd: { assumed: [...HIDDEN, 'use_middle_cls_token'], wrong: { stride: 16, img_size: 80 } },
    A_vim_rope: { assumed: [...HIDDEN, 'if_rope_residual'], wrong: { if_divide_out: true } },
    A_vim_rope_midcls: { assumed: [...HIDDEN, 'use_middle_cls_token', 'if_rope_residual'] },
    A_vim_tiny_depth2: { assumed: [...HIDDEN, 'use_middle_cls_token'] },
  };
  const FROM_SHAPES = [
    'patch_size', 'embed_dim', 'depth', 'num_classes', 'rms_norm', 'if_abs_pos_embed', 'if_rope', 'if_cls_token', 'use_double_cls_token',
  ];

  for (const [name, { assumed, wrong = {} }] of Object.entries(CASES)) {
    it(`${name}: what is inferred, what is assumed, and what --config then settles`, async function () {
      const dir = shared(this, 'golden', name);
      const config = json(path.join(dir, 'config.json')) as Config & { constructor: Config };
      const shapes = await fileShapes(path.join(dir, 'model.pth'));
      const alone = await define(shapes);
      for (const key of FROM_SHAPES) expect(alone.config[key], key).to.equal(config.constructor[key]);
      for (const key of ['d_state', 'd_conv', 'expand', 'dt_rank', 'd_inner']) expect(alone.config[key], key).to.equal(config[key]);
      expect(alone.assumed.map((a) => a.key)).to.have.members([...assumed]);
      for (const { key, value, why } of alone.assumed) {
        expect(why, key).to.be.a('string').with.length.above(8);
        if (key === 'preprocess') continue;
        expect(value, `assumed ${key}`).to.equal(wrong[key] ?? config.constructor[key]);
        expect(alone.config[key], 'what is assumed is what is used').to.equal(value);
      }

      const told = await define(shapes, { config });
      expect(told.assumed.map((a) => a.key)).to.deep.equal(['preprocess']);
      for (const [key, value] of Object.entries(config.constructor)) if (key in told.config) expect(told.config[key], key).to.equal(value);
      expect(told.inputShape).to.deep.equal([3, config.constructor.img_size, config.constructor.img_size]);
      expect(told.config.seq_len).to.equal(config.seq_len);
      expect(told.config.grid_size).to.deep.equal(config.grid_size);
    });
  }

  it('every assumption is a warning of the loaded model and is reported by inspect', async function () {
    const dir = shared(this, 'golden', 'A_vim_micro');
    const file = path.join(dir, 'model.pth');
    const model = await load(file);
    const keys = ['use_middle_cls_token', ...HIDDEN];
    for (const key of keys) expect(model.warnings.filter((w) => w.startsWith(`${key} `)), key).to.have.length(1);
    expect(model.warnings).to.have.length(keys.length);
    await model.dispose();
    const report = await inspectFile(file);
    expect(report.assumed.map((a) => a.key)).to.have.members(keys);
    expect(report.format).to.equal('pth-zip');
  });
});

describe('Vim configuration: registry names', () => {
  /** Shapes of an official model: one layer drawn, the others alike. */
  const official = (variant: Variant): Map<string, readonly number[]> => {
    const one = shapesOf(randomVim({ imageSize: 224, patch: 16, depth: 1, classes: 1000, ...variant }, 'official').weights);
    const all = new Map<string, readonly number[]>();
    for (const [name, shape] of one) {
      if (!name.startsWith('layers.0.')) all.set(name, shape);
      else for (let i = 0; i < 24; i++) all.set(name.replace('layers.0.', `layers.${i}.`), shape);
    }
    return all;
  };
  const NAMES: readonly [string, Variant][] = [
    ['vim-tiny', { dim: 192 }],
    ['vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2', { dim: 192 }],
    ['vim_tiny_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2', { dim: 192, stride: 8 }],
    ['vim-small', { dim: 384 }],
    ['vim_small_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2', { dim: 384 }],
    ['vim_small_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2', { dim: 384, stride: 8 }],
    ['vim-base', { dim: 768 }],
    ['vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2', { dim: 768 }],
    ['vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_rope_also_residual', { dim: 192, rope: true, classToken: 'none' }],
    ['vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_rope_also_residual_with_cls_token', { dim: 192, rope: true }],
  ];
  it('these are all the names there are', () => {
    expect(NAMES.map(([name]) => name)).to.have.members([...Object.keys(VIM_REGISTRY), ...Object.keys(VIM_SHORT_NAMES)]);
  });
  for (const [name, variant] of NAMES) {
    it(`--model ${name} fits its own weights and leaves only the picture size and preprocessing assumed`, async () => {
      const { config, assumed, classes, inputShape } = await define(official(variant), { model: name });
      expect(assumed.map((a) => a.key)).to.have.members(['img_size', 'preprocess']);
      expect(config).to.include({ img_size: 224, patch_size: 16, stride: variant.stride ?? 16, depth: 24, embed_dim: variant.dim, num_classes: 1000 });
      expect(classes).to.equal(1000);
      expect(inputShape).to.deep.equal([3, 224, 224]);
      // Only the one rope model without a class token does not halve (golden README A_vim_rope).
      expect(config.if_divide_out).to.equal(!name.endsWith('rope_also_residual'));
    });
  }

  it('the weights of another size: both sides are named', async () => {
    const tiny = official({ dim: 192 });
    await expectFailure(define(tiny, { model: 'vim-small' }), 'ERR_CONFIG', /embed_dim.*the weights say 192.*--model 'vim-small' says 384/);
    const rope = 'vim_tiny_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_rope_also_residual';
    await expectFailure(define(tiny, { model: rope }), 'ERR_CONFIG', /if_(rope|cls_token).*the weights say.*--model '.*' says/);
    const stride8 = 'vim_tiny_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2';
    await expectFailure(define(tiny, { model: stride8, config: { img_size: 224 } }), 'ERR_CONFIG', /pos_embed has 14×14.*stride 8 give 27×27/);
  });

  it('--config against --model: both sides are named', async () => {
    const tiny = official({ dim: 192 });
    await expectFailure(define(tiny, { model: 'vim-tiny', config: { if_divide_out: false } }), 'ERR_CONFIG', /if_divide_out: --config says false, --model 'vim-tiny' says true/);
    await expectFailure(define(tiny, { model: 'vim-tiny', config: { constructor: { stride: 8 } } }), 'ERR_CONFIG', /stride: --config says 8, --model 'vim-tiny' says 16/);
  });

  for (const name of ['vim-large', '', 'constructor', '__proto__', 'toString', 'VIM-TINY', 7, null]) {
    it(`--model ${JSON.stringify(name)} is no name`, async () => {
      let error: Error | undefined;
      try {
        await define(official({ dim: 32 }), { model: name as string });
      } catch (e) {
        error = e as Error;
      }
      expect(error).to.have.property('code', 'ERR_CONFIG');
      expect(error!.message).to.match(/^Expected one of vim-tiny, vim-small, vim-base, .* for --model but received /);
    });
  }
});

describe('Vim configuration: contradictions and mistakes', () => {
  let vim: RandomVim;
  let shapes: Map<string, readonly number[]>;
  const folder = scratchFolder();
  before(() => {
    vim = randomVim({}, 'configuration');
    shapes = shapesOf(vim.weights);
  });

  const DISAGREE: readonly [string, Config, RegExp][] = [
    ['embed_dim', { embed_dim: 64 }, /embed_dim: the weights say 32, --config says 64/],
    ['depth', { depth: 3 }, /depth: the weights say 2, --config says 3/],
    ['patch_size', { patch_size: 16 }, /patch_size: the weights say 8, --config says 16/],
    ['class count', { num_classes: 10 }, /num_classes: the weights say 6, --config says 10/],
    ['channels', { channels: 1 }, /channels: the weights say 3, --config says 1/],
    ['d_state', { d_state: 8 }, /d_state: the weights say 16, --config says 8/],
    ['d_conv', { d_conv: 3 }, /d_conv: the weights say 4, --config says 3/],
    ['expand', { expand: 1 }, /expand: the weights say 2, --config says 1/],
    ['norm', { rms_norm: false }, /rms_norm: the weights say true, --config says false/],
    ['pos_embed', { if_abs_pos_embed: false }, /if_abs_pos_embed: the weights say true, --config says false/],
    ['rope', { if_rope: true }, /if_rope: the weights say false, --config says true/],
    ['class token', { if_cls_token: false }, /if_cls_token: the weights say true, --config says false/],
    ['double class token', { use_double_cls_token: true }, /use_double_cls_token: the weights say false, --config says true/],
    ['stride', { stride: 4, img_size: 32 }, /pos_embed has 4×4.*img_size 32, patch_size 8 and stride 4 give 7×7/],
    ['img_size', { img_size: 64, stride: 8 }, /pos_embed has 4×4.*img_size 64, patch_size 8 and stride 8 give 8×8/],
    ['labels', { labels: ['a', 'b'] }, /2 labels.*6/],
    ['family', { family: 'vmamba' }, /family: --config says 'vmamba', the weights say 'vim'/],
    ['preprocess size', { preprocess: { size: 64, mean: [0, 0, 0], std: [1, 1, 1] } }, /preprocess makes 64×64, the model takes 32×32/],
    ['preprocess shape', { preprocess: { size: [32, 16], mean: [0, 0, 0], std: [1, 1, 1] } }, /preprocess makes 32×16, the model takes 32×32/],
    ['itself', { depth: 2, constructor: { depth: 3 } }, /depth in --config: 2 and 3/],
  ];
  for (const [what, config, message] of DISAGREE) {
    it(`${what}: at the top level`, () => expectFailure(define(shapes, { config }), 'ERR_CONFIG', message));
    const [key] = Object.keys(config);
    if (['labels', 'family', 'preprocess'].includes(key!) || 'constructor' in config && Object.hasOwn(config, 'constructor')) continue;
    it(`${what}: as a constructor argument`, () => expectFailure(define(shapes, { config: { constructor: config } }), 'ERR_CONFIG', message));
  }
  it('labels given beside the configuration', () => expectFailure(define(shapes, { labels: ['a'] }), 'ERR_CONFIG', /1 label.*6/));

  const MISTAKES: readonly [string, unknown, RegExp][] = [
    ['an unknown key', { embed_dims: 32 }, /Unknown key 'embed_dims' in --config/],
    ['an unknown constructor argument', { constructor: { window: 7 } }, /Unknown key 'window' in --config/],
    ['an unknown key named __proto__', JSON.parse('{"__proto__": {"depth": 2}}'), /Unknown key '__proto__'/],
    ['an unknown key of preprocess', { preprocess: { size: 32, mean: [0, 0, 0], std: [1, 1, 1], crop: 1 } }, /Unknown key preprocess.crop/],
    ['a number as text', { depth: '2' }, /depth: the weights say 2, --config says '2'/],
    ['stride 0', { stride: 0 }, /Expected an integer ≥ 1 for stride in --config but received 0/],
    ['stride 2.5', { stride: 2.5 }, /Expected an integer ≥ 1 for stride in --config but received 2.5/],
    ['img_size of two numbers', { img_size: [32, 32] }, /for img_size in --config/],
    ['a negative epsilon', { norm_epsilon: -1e-5 }, /Expected a positive number for norm_epsilon in --config/],
    ['epsilon as text', { norm_epsilon: '1e-5' }, /Expected a positive number for norm_epsilon in --config/],
    ['a flag as a number', { if_divide_out: 1 }, /Expected true or false for if_divide_out in --config but received 1/],
    ['constructor: null', { constructor: null }, /Expected an object for constructor/],
    ['constructor: a list', { constructor: ['depth'] }, /Expected an object for constructor/],
    ['labels as text', { labels: 'a,b,c,d,e,f' }, /Expected an array of strings for labels/],
    ['labels as numbers', { labels: [1, 2, 3, 4, 5, 6] }, /Expected an array of strings for labels/],
    ['preprocess as a number', { preprocess: 32 }, /preprocess in --config/],
    ['std 0', { preprocess: { size: 32, mean: [0, 0, 0], std: [1, 0, 1] } }, /preprocess.std/],
  ];
  for (const [what, config, message] of MISTAKES) {
    it(`refused: ${what}`, () => expectFailure(define(shapes, { config: config as Config }), 'ERR_CONFIG', message));
  }

  /** Arguments that change what the official code computes, and which this engine does not do. */
  const OTHER_MODELS: readonly [string, Config, Variant?][] = [
    ["bimamba_type 'v1'", { bimamba_type: 'v1' }],
    ["bimamba_type 'none'", { bimamba_type: 'none' }],
    ['if_bidirectional', { if_bidirectional: true }],
    ['flipped sequences', { flip_img_sequences_ratio: 0.5 }],
    ["final_pool_type 'max' without a class token", { final_pool_type: 'max' }, { classToken: 'none' }],
    ['layer scale', { init_layer_scale: 1e-4 }],
  ];
  for (const [what, config, variant] of OTHER_MODELS) {
    it(`not run as something else: ${what}`, async () => {
      const weights = variant === undefined ? shapes : shapesOf(randomVim(variant, 'configuration').weights);
      const key = Object.keys(config)[0]!;
      await expectFailure(define(weights, { config: { constructor: config } }), 'ERR_UNSUPPORTED', key);
      await expectFailure(define(weights, { config }), 'ERR_UNSUPPORTED', key);
    });
  }

  it('provenance and arguments without effect are accepted and never compared', async () => {
    const config = {
      official_registry_name: 'vim-of-somebody', seed: 3, batch: 7, dt_rank: 99, d_inner: 1, grid_size: [1, 2], seq_len: 0, num_patches: -1, note: 'x',
      constructor: {
        residual_in_fp32: false, fused_add_norm: false, final_pool_type: 'mean', bimamba_type: 'v2', drop_path_rate: 0.1, drop_rate: 0.1,
        if_bidirectional: false, flip_img_sequences_ratio: -1, if_devide_out: true, if_bimamba: false, init_layer_scale: null,
      },
    };
    const { config: resolved } = await define(shapes, { config });
    expect(resolved).to.include({ dt_rank: 2, d_inner: 64, seq_len: 17, depth: 2 });
  });

  it('null means "not told", as in the official configurations', async () => {
    const { assumed } = await define(shapes, { config: { constructor: { stride: null, if_divide_out: true } } });
    expect(assumed.map((a) => a.key)).to.include('stride').and.not.include('if_divide_out');
  });

  it('a configuration object may come without a prototype and stays untouched', async () => {
    const config = Object.assign(Object.create(null), { norm_epsilon: 1e-5, constructor: Object.freeze({ depth: 2 }) });
    await define(shapes, { config: Object.freeze(config) });
  });

  it('configurations that cannot be read', async () => {
    const file = await writeVim(path.join(folder(), 'vim.safetensors'), vim.weights);
    await expectFailure(load(file, { config: path.join(folder(), 'none.json') }), 'ERR_FILE_NOT_FOUND', 'none.json');
    await expectFailure(load(file, { config: file }), 'ERR_CONFIG', 'is not JSON');
    for (const bad of [7, null, [], true]) {
      const error = await load(file, { config: bad as never }).catch((e: unknown) => e);
      expect(error, String(bad)).to.be.instanceOf(TypeError);
      expect((error as Error).message).to.match(/^Expected an object or the path of a JSON file for config but received/);
    }
  });

  const without = (...names: string[]) => new Map([...shapes].filter(([name]) => !names.includes(name)));
  const having = (name: string, shape: readonly number[]) => new Map(shapes).set(name, shape);
  const TENSORS: readonly [string, () => Map<string, readonly number[]>, string, RegExp][] = [
    ['a tensor is missing', () => without('layers.1.mixer.D_b'), 'ERR_WEIGHTS', /lacks 'layers.1.mixer.D_b'/],
    ['many are missing', () => without(...[...shapes.keys()].filter((n) => n.includes('conv1d_b'))), 'ERR_WEIGHTS', /lacks .*conv1d_b/],
    ['head is missing', () => without('head.weight'), 'ERR_WEIGHTS', /'head.weight'/],
    ['patch_embed is missing', () => without('patch_embed.proj.weight'), 'ERR_WEIGHTS', /'patch_embed.proj.weight'/],
    ['one too many', () => having('layers.0.mixer.gamma', [32]), 'ERR_WEIGHTS', /does not use: 'layers.0.mixer.gamma'/],
    ['a layer left out in the middle', () => new Map([...shapes].map(([n, s]) => [n.replace('layers.1.', 'layers.2.'), s])), 'ERR_WEIGHTS', /'layers.2./],
    ['half of a double class token', () => having('cls_token_head', [1, 1, 32]), 'ERR_WEIGHTS', /'cls_token_head'/],
    ['another shape', () => having('layers.1.mixer.A_b_log', [64, 8]), 'ERR_WEIGHTS', /'layers.1.mixer.A_b_log' is 64×8 where 64×16 was expected/],
    ['a transposed weight', () => having('layers.0.mixer.out_proj.weight', [64, 32]), 'ERR_WEIGHTS', /is 64×32 where 32×64/],
    ['another rank', () => having('head.weight', [192]), 'ERR_WEIGHTS', /'head.weight' has 1 dimension/],
    ['pos_embed of another rank', () => having('pos_embed', [544]), 'ERR_WEIGHTS', /'pos_embed' has 1 dimension/],
    ['pos_embed for no square grid', () => having('pos_embed', [1, 16, 32]), 'ERR_WEIGHTS', /15 patches.*square/],
    ['pos_embed without rows', () => having('pos_embed', [1, 0, 32]), 'ERR_WEIGHTS', /square/],
    ['oblong patches', () => having('patch_embed.proj.weight', [32, 3, 8, 4]), 'ERR_WEIGHTS', /'patch_embed.proj.weight' is 32×3×8×4 where 32×3×8×8/],
    ['dt_rank 0', () => new Map([...shapes].map(([n, s]) => [n, /dt_proj\w*\.weight/.test(n) ? [64, 0] : /x_proj/.test(n) ? [32, 64] : s])), 'ERR_WEIGHTS', /dt_proj.weight.*64×0/],
    ['an odd in_proj', () => having('layers.0.mixer.in_proj.weight', [129, 32]), 'ERR_WEIGHTS', /in_proj/],
    ['no classes', () => new Map([...shapes, ['head.weight', [0, 32]], ['head.bias', [0]]]), 'ERR_CONFIG', /num_classes in the weights but received 0/],
    ['no backward direction', () => new Map([...shapes].filter(([n]) => !/_b(\.|_log|$)/.test(n))), 'ERR_UNSUPPORTED', /bimamba v2/],
    ['no model at all', () => new Map([['fc.weight', [10, 10]], ['fc.bias', [10]]]), 'ERR_WEIGHTS', /no Visual Mamba model.*2 tensors: 'fc.weight'/],
    ['no tensors', () => new Map(), 'ERR_WEIGHTS', /no Visual Mamba model.*0 tensors/],
  ];
  for (const [what, make, code, message] of TENSORS) {
    it(`weights: ${what}`, async () => {
      await expectFailure(define(make()), code, message);
    });
  }

  it('rope with an odd grid or two class tokens is what the official code cannot run either', async () => {
    const odd = shapesOf(randomVim({ rope: true, imageSize: 40 }, 'odd').weights);
    await expectFailure(define(odd), 'ERR_CONFIG', /rope needs an even number of patches/);
    const double = shapesOf(randomVim({ rope: true, classToken: 'double' }, 'double').weights);
    await expectFailure(define(double), 'ERR_CONFIG', /at most one class token/);
  });

  it('a picture smaller than a patch, where no table tells the grid', async () => {
    const free = shapesOf(randomVim({ positionEmbedding: false }, 'free').weights);
    expect((await define(free)).inputShape, 'the published size, assumed').to.deep.equal([3, 224, 224]);
    await expectFailure(define(free, { config: { img_size: 4 } }), 'ERR_CONFIG', /img_size 4.*patch_size 8/);
  });

  it('NaN and infinite weights are named', async () => {
    for (const [bad, name, at] of [[Number.NaN, 'layers.1.mixer.D', 5], [Number.POSITIVE_INFINITY, 'pos_embed', 0], [Number.NEGATIVE_INFINITY, 'head.bias', 5]] as const) {
      const weights = new Map(vim.weights);
      const weight = weights.get(name)!;
      const data = weight.data.slice();
      data[at] = bad;
      weights.set(name, { ...weight, data });
      const file = await writeVim(path.join(folder(), 'broken.safetensors'), weights);
      await expectFailure(load(file, { config: vim.config }), 'ERR_WEIGHTS', new RegExp(`'${name}' .*NaN or infinite`));
    }
  });
});

describe('every shared model and golden configuration', () => {
  it('parses for its family', async function () {
    const names = ['golden', 'models'].flatMap((kind) => {
      const root = shared(this, kind);
      return readdirSync(root).map((name) => path.join(root, name)).filter((dir) => existsSync(path.join(dir, 'config.json')));
    });
    expect(names.length).to.be.above(20);
    for (const dir of names) {
      const config = json(path.join(dir, 'config.json')) as { family: string; model?: string };
      const files = readdirSync(dir).filter((f) => /\.(pth|ckpt)$/.test(f)).map((f) => path.join(dir, f));
      if (config.family.startsWith('ptq4vm-')) {
        // A calibration's record, not a model: told apart by its family before any key is looked at.
        const own = path.resolve(dir, config.model!);
        await expectFailure(define(await fileShapes(own), { config }), config.family === 'ptq4vm-vim' ? 'ERR_CONFIG' : 'ERR_UNSUPPORTED', /family|vmamba/);
        continue;
      }
      expect(files, dir).to.not.have.length(0);
      for (const file of files) {
        const shapes = await fileShapes(file);
        if (config.family === 'vim') {
          expect((await define(shapes, { config })).family, file).to.equal('vim');
        } else {
          // Golden family names are those of the message, and neither the configuration nor its absence matters.
          await expectFailure(define(shapes, { config }), 'ERR_UNSUPPORTED', new RegExp(`\\b${config.family} checkpoint`));
          await expectFailure(define(shapes), 'ERR_UNSUPPORTED', new RegExp(`\\b${config.family} checkpoint`));
        }
      }
    }
  });
});
