/** Quantized files that are broken, hostile or from the future: each ends in a clear Ptq4vmError. */
import path from 'node:path';
import { expect } from 'chai';
import { Ptq4vmError } from '../../lib/errors.js';
import { inspectFile } from '../../lib/inspect.js';
import { openSafetensors, type TensorToWrite, writeSafetensors } from '../../lib/io/safetensors.js';
import { load } from '../../lib/model.js';
import type { DType } from '../../lib/tensor.js';
import { expectFailure, scratchFolder } from '../io/support.js';
import { Random, SEED } from '../ops/random.js';
import { calibrated, small } from './artifact-support.js';

/** A quantized file taken apart, to be put together wrongly. */
interface Opened {
  tensors: Map<string, { dtype: DType; shape: number[]; data: Uint8Array }>;
  metadata: Record<string, string>;
}

async function takeApart(file: string): Promise<Opened> {
  const opened = await openSafetensors(file);
  const tensors: Opened['tensors'] = new Map();
  for (const name of opened.entries.keys()) {
    const { dtype, shape, data } = await opened.read(name);
    tensors.set(name, { dtype, shape: [...shape], data: Uint8Array.from(data) });
  }
  await opened.close();
  return { tensors, metadata: { ...(opened.metadata as Record<string, string>) } };
}

async function putTogether(file: string, { tensors, metadata }: Opened): Promise<string> {
  const list: TensorToWrite[] = [...tensors].map(([name, t]) => ({ name, ...t }));
  await writeSafetensors(file, list, metadata);
  return file;
}

const IN = 'layers.0.mixer.in_proj';
const DT = 'layers.0.mixer.dt_proj_b';
const f32 = (values: readonly number[]) => new Uint8Array(Float32Array.from(values).buffer);

function json(o: Opened, key: string, change: (value: any) => unknown): void {
  o.metadata[key] = JSON.stringify(change(JSON.parse(o.metadata[key]!)));
}
const layer = (o: Opened, change: Record<string, unknown>, name = IN) => json(o, 'layers', (l) => ({ ...l, [name]: { ...l[name], ...change } }));
/** Writes `key: text` as the first entry of a JSON object, where JSON.stringify would lose `__proto__`. */
const inject = (o: Opened, key: string, entry: string) => {
  o.metadata[key] = o.metadata[key]!.replace('{', `{${entry},`);
};
const floatAt = (o: Opened, name: string, at: number, value: number) => o.tensors.get(name)!.data.set(f32([value]), 4 * at);

/** title, bits of the file, what is done to it, code, message */
const HOSTILE: readonly [string, number, (o: Opened) => void, string, RegExp][] = [
  ['a version from the future', 8, (o) => (o.metadata.version = '2'), 'ERR_UNSUPPORTED', /version 2.*reads up to 1.*update/],
  ...['', '0', '-1', '1.5', 'one', '1e999', 'NaN'].map(
    (v): (typeof HOSTILE)[number] => [`version '${v}'`, 8, (o) => (o.metadata.version = v), 'ERR_FILE_FORMAT', /'version'/],
  ),
  ...['version', 'family', 'config', 'recipe', 'preprocess', 'layers'].map(
    (key): (typeof HOSTILE)[number] => [`no ${key}`, 8, (o) => delete o.metadata[key], 'ERR_FILE_FORMAT', new RegExp(`'${key}'`)],
  ),
  ...['config', 'recipe', 'layers'].flatMap((key): (typeof HOSTILE)[number][] =>
    ['{', '', 'null', '[]', '7', '"x"', '['.repeat(100_000)].map((text) => [
      `${key} is ${JSON.stringify(text.slice(0, 10))}`, 8, (o) => (o.metadata[key] = text), 'ERR_FILE_FORMAT', new RegExp(`'${key}' in its metadata is not`),
    ]),
  ),
  ['labels are broken JSON', 8, (o) => (o.metadata.labels = '["a"'), 'ERR_FILE_FORMAT', /'labels' in its metadata is not JSON/],
  ['labels are too few', 8, (o) => (o.metadata.labels = '["a"]'), 'ERR_CONFIG', /1 label.*4/],
  ['labels are numbers', 8, (o) => (o.metadata.labels = '[1,2,3,4]'), 'ERR_CONFIG', /labels in the metadata of/],
  ['labels are null', 8, (o) => (o.metadata.labels = 'null'), 'ERR_CONFIG', /labels in the metadata of/],
  ['preprocess makes another size', 8, (o) => json(o, 'preprocess', (p) => ({ ...p, size: 32 })), 'ERR_CONFIG', /32×32.*16×16/],
  ['preprocess is null', 8, (o) => (o.metadata.preprocess = 'null'), 'ERR_CONFIG', /preprocess in the metadata of/],
  ['preprocess divides by zero', 8, (o) => json(o, 'preprocess', (p) => ({ ...p, std: [1, 0, 1] })), 'ERR_CONFIG', /preprocess.std/],
  ['another family', 8, (o) => (o.metadata.family = 'vmamba'), 'ERR_CONFIG', /family.*'vmamba'.*'vim'/],
  ['a configuration against the weights', 8, (o) => json(o, 'config', (c) => ({ ...c, depth: 5 })), 'ERR_CONFIG', /depth: the weights say 1, the metadata of .* says 5/],
  ['an unknown configuration key', 8, (o) => json(o, 'config', (c) => ({ ...c, window: 7 })), 'ERR_CONFIG', /Unknown key 'window' in the metadata of/],
  ['__proto__ in the configuration', 8, (o) => inject(o, 'config', '"__proto__":{"polluted":1}'), 'ERR_CONFIG', /Unknown key '__proto__'/],
  ['__proto__ in preprocess', 8, (o) => inject(o, 'preprocess', '"__proto__":{"polluted":1}'), 'ERR_CONFIG', /Unknown key preprocess.__proto__/],
  ['__proto__ as a layer', 8, (o) => inject(o, 'layers', '"__proto__":{"weightBits":8,"actBits":8,"len":1,"shape":[1,1]}'), 'ERR_WEIGHTS', /'__proto__.weight'/],
  ['__proto__ as a layer that is none', 8, (o) => inject(o, 'layers', '"__proto__":{"polluted":1}'), 'ERR_FILE_FORMAT', /layer '__proto__'/],
  ['constructor as a layer', 8, (o) => inject(o, 'layers', '"constructor":{"weightBits":8,"actBits":8,"len":1,"shape":[1,1]}'), 'ERR_WEIGHTS', /'constructor.weight'/],
  ['a layer without a name', 8, (o) => inject(o, 'layers', '"":{"weightBits":8,"actBits":8,"len":1,"shape":[1,1]}'), 'ERR_WEIGHTS', /'.weight'/],
  ['a layer that is null', 8, (o) => json(o, 'layers', (l) => ({ ...l, [IN]: null })), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['5 bits', 8, (o) => layer(o, { weightBits: 5 }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['bits as text', 8, (o) => layer(o, { actBits: '8' }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['len 0', 8, (o) => layer(o, { len: 0 }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['len 2.5', 8, (o) => layer(o, { len: 2.5 }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['a shape of three', 8, (o) => layer(o, { shape: [76, 19, 1] }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['a negative shape', 8, (o) => layer(o, { shape: [-76, -19] }), 'ERR_FILE_FORMAT', /layer '.*in_proj' is not/],
  ['a shape that no memory holds', 8, (o) => layer(o, { shape: [2 ** 50, 2 ** 50] }), 'ERR_CONFIG', /expand: the weights say .*, the metadata of .* says 2/],
  ['a shape that the model has not', 8, (o) => layer(o, { shape: [76, 20] }), 'ERR_WEIGHTS', /'.*in_proj.weight' is 76×20 where 76×19/],
  ['a layer that no Vim has', 8, (o) => json(o, 'layers', (l) => ({ ...l, 'layers.9.mixer.in_proj': l[IN] })), 'ERR_WEIGHTS', /does not use: 'layers.9.mixer.in_proj.weight'/],
  ['a layer whose weight is float', 8, (o) => json(o, 'layers', (l) => ({ ...l, head: { ...l[IN], shape: [4, 19] } })), 'ERR_FILE_FORMAT', /'head.weight' is f32 4×19 where i8/],
  ['a layer that is not quantizable', 8, (o) => {
    json(o, 'layers', (l) => ({ ...l, head: { weightBits: 8, actBits: 8, len: 1, shape: [4, 19] } }));
    o.tensors.set('head.weight', { dtype: 'i8', shape: [4, 19], data: new Uint8Array(76) });
    o.tensors.set('head.weight_scale', { dtype: 'f32', shape: [4], data: f32([1, 1, 1, 1]) });
    o.tensors.set('head.act_scale', { dtype: 'f32', shape: [1], data: f32([1]) });
    o.tensors.set('head.act_zero', { dtype: 'u8', shape: [1], data: new Uint8Array(1) });
  }, 'ERR_FILE_FORMAT', /'head' is not a quantizable linear/],
  ['a layer left out of the list', 8, (o) => json(o, 'layers', ({ [IN]: _, ...l }) => l), 'ERR_WEIGHTS', /does not use: .*in_proj\.(weight_scale|act_)/],
  ...['weight', 'weight_scale', 'act_scale', 'act_zero'].map(
    (t): (typeof HOSTILE)[number] => [`no ${t}`, 8, (o) => o.tensors.delete(`${IN}.${t}`), 'ERR_FILE_FORMAT', new RegExp(`lacks '${IN}.${t}'`)],
  ),
  ['a float tensor is missing', 8, (o) => o.tensors.delete('norm_f.weight'), 'ERR_WEIGHTS', /lacks 'norm_f.weight'/],
  ['an extra tensor', 8, (o) => o.tensors.set('extra', { dtype: 'u8', shape: [1], data: new Uint8Array(1) }), 'ERR_WEIGHTS', /does not use: 'extra'/],
  ['an extra tensor of a layer', 8, (o) => o.tensors.set(`${IN}.act_extra`, { dtype: 'u8', shape: [1], data: new Uint8Array(1) }), 'ERR_WEIGHTS', /act_extra/],
  ['an extra tensor named __proto__', 8, (o) => o.tensors.set('__proto__', { dtype: 'u8', shape: [1], data: new Uint8Array(1) }), 'ERR_WEIGHTS', /__proto__/],
  ['codes as U8', 8, (o) => (o.tensors.get(`${IN}.weight`)!.dtype = 'u8'), 'ERR_FILE_FORMAT', /in_proj.weight' is u8 76×19 where i8 76×19/],
  ['codes as I8 in a 4-bit file', 4, (o) => (o.tensors.get(`${IN}.weight`)!.dtype = 'i8'), 'ERR_FILE_FORMAT', /is i8 76×10 where u8 76×10/],
  ['8-bit codes that claim 4 bits', 8, (o) => layer(o, { weightBits: 4 }), 'ERR_FILE_FORMAT', /is i8 76×19 where u8 76×10/],
  ['codes transposed', 8, (o) => (o.tensors.get(`${IN}.weight`)!.shape = [19, 76]), 'ERR_FILE_FORMAT', /is i8 19×76 where i8 76×19/],
  ['code −128', 8, (o) => (o.tensors.get(`${IN}.weight`)!.data[5] = 0x80), 'ERR_FILE_FORMAT', /'.*in_proj.weight' has codes outside ±127/],
  ['a 6-bit code 32', 6, (o) => (o.tensors.get(`${DT}.weight`)!.data[0] = 32), 'ERR_FILE_FORMAT', /codes outside ±31/],
  ['a 4-bit code −8', 4, (o) => (o.tensors.get(`${IN}.weight`)!.data[0] = 0x08), 'ERR_FILE_FORMAT', /codes outside ±7/],
  ['a 6-bit zero point 64', 6, (o) => (o.tensors.get(`${IN}.act_zero`)!.data[1] = 64), 'ERR_FILE_FORMAT', /in_proj.act_zero' exceeds 63/],
  ['a 4-bit zero point 16', 4, (o) => (o.tensors.get(`${DT}.act_zero`)!.data[4] = 16), 'ERR_FILE_FORMAT', /dt_proj_b.act_zero' exceeds 15/],
  ['zero points as I8', 8, (o) => (o.tensors.get(`${IN}.act_zero`)!.dtype = 'i8'), 'ERR_FILE_FORMAT', /act_zero' is i8/],
  ...['weight_scale', 'act_scale', 'smooth'].flatMap((t): (typeof HOSTILE)[number][] =>
    [Number.NaN, 0, -0.01, Number.POSITIVE_INFINITY].map((v) => [
      `${t} ${v}`, 8, (o) => floatAt(o, `${IN}.${t}`, 2, v), 'ERR_FILE_FORMAT', new RegExp(`'${IN}.${t}' holds a value that is not positive and finite`),
    ]),
  ),
  ...['smooth', 'act_scale'].map(
    (t): (typeof HOSTILE)[number] => [
      `${t} too small to invert`, 8, (o) => floatAt(o, `${IN}.${t}`, 0, 1e-45), 'ERR_FILE_FORMAT', new RegExp(`${t}' holds a value too small`),
    ],
  ),
  ['smooth of another length', 8, (o) => o.tensors.set(`${IN}.smooth`, { dtype: 'f32', shape: [3], data: f32([1, 1, 1]) }), 'ERR_FILE_FORMAT', /smooth' is f32 3 where f32 19/],
  ['weight_scale as F64', 8, (o) => o.tensors.set(`${IN}.weight_scale`, { dtype: 'f64', shape: [76], data: new Uint8Array(608) }), 'ERR_FILE_FORMAT', /weight_scale' is f64/],
  ['len against the tensors', 8, (o) => layer(o, { len: 4 }), 'ERR_FILE_FORMAT', /is (u8|f32) 5 where (u8|f32) 4/],
  ['len against the model', 8, (o) => {
    layer(o, { len: 4 });
    o.tensors.set(`${IN}.act_scale`, { dtype: 'f32', shape: [4], data: f32([1, 1, 1, 1]) });
    o.tensors.set(`${IN}.act_zero`, { dtype: 'u8', shape: [4], data: new Uint8Array(4) });
  }, 'ERR_FILE_FORMAT', /steps for 4 token positions where the model has 5/],
  ['NaN in a float tensor', 8, (o) => floatAt(o, 'layers.0.mixer.A_log', 3, Number.NaN), 'ERR_WEIGHTS', /'layers.0.mixer.A_log'.*NaN/],
];

describe('quantized file: hostile and broken', () => {
  const folder = scratchFolder();
  const good = new Map<number, Opened>();
  before(async () => {
    const it1 = await small(folder());
    for (const bits of [4, 6, 8]) {
      const q = await calibrated(it1, bits, bits);
      const file = path.join(folder(), `${bits}.safetensors`);
      await q.save(file);
      await q.dispose();
      good.set(bits, await takeApart(file));
    }
    await it1.float.dispose();
  });

  it('taken apart and put together again, it loads', async () => {
    for (const [bits, opened] of good) {
      const model = await load(await putTogether(path.join(folder(), 'same.safetensors'), opened));
      expect(model.quantization!.recipe.weights).to.equal(bits);
      await model.dispose();
    }
  });

  for (const [title, bits, change, code, message] of HOSTILE) {
    it(`${title}: ${code}`, async () => {
      const opened = structuredClone(good.get(bits)!);
      change(opened);
      const file = await putTogether(path.join(folder(), 'hostile.safetensors'), opened);
      await expectFailure(load(file), code, message);
      // inspect looks at names and metadata only: it may find nothing wrong, but nothing else may come of it.
      await inspectFile(file).catch((e: unknown) => expect(e).to.be.instanceOf(Ptq4vmError));
      expect(({} as { polluted?: unknown }).polluted, 'Object.prototype').to.equal(undefined);
    });
  }

  it('a recipe is a record: keys of any name stay data', async () => {
    const opened = structuredClone(good.get(8)!);
    inject(opened, 'recipe', '"__proto__":{"polluted":1},"by a later version":[1]');
    const model = await load(await putTogether(path.join(folder(), 'recipe.safetensors'), opened));
    expect(model.quantization!.recipe).to.have.property('by a later version');
    expect((model.quantization!.recipe as { polluted?: unknown }).polluted).to.equal(undefined);
    expect(({} as { polluted?: unknown }).polluted).to.equal(undefined);
    await model.save(path.join(folder(), 'recipe.safetensors'));
    await model.dispose();
  });

  it('random changes of bytes and of metadata end in a model or in a Ptq4vmError', async () => {
    const draw = new Random('hostile bytes');
    const file = path.join(folder(), 'noise.safetensors');
    let refused = 0;
    for (let round = 0; round < 60; round++) {
      const bits = draw.pick([4, 6, 8]);
      const opened = structuredClone(good.get(bits)!);
      if (draw.next() < 0.5) {
        const key = draw.pick(Object.keys(opened.metadata).filter((k) => k !== 'format'));
        const text = Buffer.from(opened.metadata[key]!);
        text[draw.integer(0, text.length - 1)] = draw.integer(32, 126);
        opened.metadata[key] = text.toString('latin1');
      } else {
        const tensor = opened.tensors.get(draw.pick([...opened.tensors.keys()]))!;
        for (let i = 0; i < 4; i++) tensor.data[draw.integer(0, tensor.data.length - 1)] = draw.integer(0, 255);
      }
      await putTogether(file, opened);
      try {
        const model = await load(file);
        await model.forward({ dims: [1, 3, 16, 16], data: new Float32Array(768) });
        await model.dispose();
      } catch (error) {
        expect(error, `round ${round}, SEED=${SEED}: ${(error as Error).stack}`).to.be.instanceOf(Ptq4vmError);
        refused++;
      }
    }
    expect(refused, 'some of them must be noticed').to.be.above(5);
  });

  it('the options that belong to float checkpoints are refused', async () => {
    const file = await putTogether(path.join(folder(), 'q.safetensors'), good.get(8)!);
    await expectFailure(load(file, { config: {} }), 'ERR_CONFIG', 'carries its configuration');
    await expectFailure(load(file, { model: 'vim-tiny' }), 'ERR_CONFIG', 'carries its configuration');
    await expectFailure(load(file, { precision: 'fp32' }), 'ERR_UNSUPPORTED', /fp32.*quantized.*int or fake/);
    await expectFailure(load(file, { labels: ['one'] }), 'ERR_CONFIG', /1 label.*4/);
    const model = await load(file, { labels: ['a', 'b', 'c', 'd'] });
    expect(model.labels).to.deep.equal(['a', 'b', 'c', 'd']);
    await model.dispose();
  });
});
