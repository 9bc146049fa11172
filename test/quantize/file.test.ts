/** The quantized file: identical logits after a round trip, the contract of its tensors, and files that must be refused. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { imageFolder } from '../../lib/data/folder.js';
import { Ptq4vmError } from '../../lib/errors.js';
import { packNibbles, unpackNibbles } from '../../lib/io/artifact.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { load, type Model, quantize } from '../../lib/model.js';
import { type DType, float32ToHalf, halfToFloat32 } from '../../lib/tensor.js';
import { readSome } from '../support/pictures.js';
import { maxDifference } from '../support/shared.js';

const DEMO = path.resolve(__dirname, '../../demo/vim-shapes');
const LAYER = 'layers.0.mixer.in_proj';

interface Stored {
  metadata: Record<string, string>;
  tensors: Map<string, { dtype: DType; shape: number[]; data: Uint8Array }>;
}

describe('quantized file', function () {
  this.timeout(60_000);
  let folder: string;
  let float: Model;
  let pictures: Float32Array;
  const images = () => ({ dims: [2, 3, 64, 64], data: pictures });
  const file = (name: string) => path.join(folder, name);

  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'ptq4vm-file-'));
    float = await load(path.join(DEMO, 'model.pth'), { config: path.join(DEMO, 'config.json') });
    pictures = await readSome(path.join(DEMO, 'val'), float.preprocess, 2);
    const q = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 8 });
    await q.save(file('good.safetensors'));
    await q.dispose();
  });
  after(async () => {
    await float.dispose();
    await rm(folder, { recursive: true, force: true });
  });

  for (const weights of [4, 6, 8]) {
    for (const [activations, method] of [[4, 'pts+smooth'], [6, 'minmax'], [8, 'smoothquant'], [8, 'pts']] as const) {
      it(`W${weights}A${activations} ${method}: saved and loaded, the logits have equal bits`, async () => {
        const q = await quantize(float, { weights, activations, method, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 8 });
        const name = file(`w${weights}a${activations}-${method.replace('+', '-')}.safetensors`);
        await q.save(name);
        const loaded = await load(name);
        expect(maxDifference((await loaded.forward(images())).data, (await q.forward(images())).data)).to.equal(0);
        expect(loaded.labels).to.deep.equal(float.labels);
        expect(loaded.preprocess).to.deep.equal(float.preprocess);
        expect(loaded.warnings, 'nothing is assumed any more').to.deep.equal([]);
        expect(loaded.quantization!.recipe.method).to.equal(method);
        await Promise.all([loaded.dispose(), q.dispose()]);
      });
    }
  }

  it('other tensors keep names, types and bytes', async () => {
    const before = await openCheckpoint(path.join(DEMO, 'model.pth'));
    const after = await openCheckpoint(file('good.safetensors'));
    for (const [name, entry] of before.entries) {
      if (/(in|x|dt|out)_proj(_b)?\.weight$/.test(name)) continue;
      expect(after.entries.get(name)?.dtype, name).to.equal(entry.dtype);
      expect(Buffer.compare((await after.read(name)).data, (await before.read(name)).data), name).to.equal(0);
    }
    await Promise.all([before.close(), after.close()]);
  });

  it('two runs write the same bytes, and nothing else is left in the folder', async () => {
    const q = await quantize(float, { weights: 8, activations: 8, calibration: imageFolder(path.join(DEMO, 'calib')), samples: 8 });
    await q.save(file('again.safetensors'));
    await q.dispose();
    expect(Buffer.compare(await readFile(file('again.safetensors')), await readFile(file('good.safetensors')))).to.equal(0);
    expect((await readdir(folder)).filter((name) => !name.endsWith('.safetensors'))).to.deep.equal([]);
  });

  it('an aborted save leaves the old file as it was; a float model is not saved', async () => {
    const loaded = await load(file('good.safetensors'));
    const old = await readFile(file('good.safetensors'));
    const error = await loaded.save(file('good.safetensors'), { signal: AbortSignal.abort() }).catch((e: unknown) => e);
    expect((error as Error).name).to.equal('AbortError');
    expect(Buffer.compare(await readFile(file('good.safetensors')), old)).to.equal(0);
    await loaded.save(file('good.safetensors')); // over the file it came from
    expect(Buffer.compare(await readFile(file('good.safetensors')), old)).to.equal(0);
    await loaded.dispose();
    expect(((await float.save(file('float.safetensors')).catch((e: unknown) => e)) as Ptq4vmError).code).to.equal('ERR_UNSUPPORTED');
  });

  const edit = (change: (layers: Record<string, Record<string, unknown>>) => void) => (s: Stored) => {
    const layers = JSON.parse(s.metadata.layers!) as Record<string, Record<string, unknown>>;
    change(layers);
    s.metadata.layers = JSON.stringify(layers);
  };
  const floats = (s: Stored, name: string) => new Float32Array(s.tensors.get(name)!.data.buffer);
  const HOSTILE: readonly [string, (s: Stored) => void, Ptq4vmError['code'], RegExp][] = [
    ['a version from the future', (s) => { s.metadata.version = '99'; }, 'ERR_UNSUPPORTED', /version 99.*update/],
    ['no version', (s) => { delete s.metadata.version; }, 'ERR_FILE_FORMAT', /'version'/],
    ['a family that contradicts the tensors', (s) => { s.metadata.family = 'vmamba'; }, 'ERR_CONFIG', /family.*'vmamba'.*'vim'/],
    ['no family', (s) => { delete s.metadata.family; }, 'ERR_FILE_FORMAT', /'family'/],
    ['no layers', (s) => { delete s.metadata.layers; }, 'ERR_FILE_FORMAT', /'layers'/],
    ['layers that are no JSON', (s) => { s.metadata.layers = '{'; }, 'ERR_FILE_FORMAT', /'layers'.*not JSON/],
    ['layers that are a list', (s) => { s.metadata.layers = '[]'; }, 'ERR_FILE_FORMAT', /'layers'.*not an object/],
    ['a layer of 5 bits', edit((l) => { l[LAYER]!.weightBits = 5; }), 'ERR_FILE_FORMAT', /layer 'layers.0.mixer.in_proj'/],
    ['a layer of negative length', edit((l) => { l[LAYER]!.len = -65; }), 'ERR_FILE_FORMAT', /layer/],
    ['a layer that no model has', edit((l) => { l['layers.0.mixer.sideways'] = { ...l[LAYER]! }; }), 'ERR_WEIGHTS', /sideways/],
    ['a layer named __proto__', (s) => { s.metadata.layers = s.metadata.layers!.replace(`"${LAYER}"`, '"__proto__"'); }, 'ERR_WEIGHTS', /__proto__|in_proj/],
    ['steps for another length', edit((l) => { l[LAYER]!.len = 64; }), 'ERR_FILE_FORMAT', /act_(scale|zero)/],
    ['a missing scale', (s) => { s.tensors.delete(`${LAYER}.weight_scale`); }, 'ERR_FILE_FORMAT', /lacks 'layers.0.mixer.in_proj.weight_scale'/],
    ['a missing float tensor', (s) => { s.tensors.delete('norm_f.weight'); }, 'ERR_WEIGHTS', /lacks 'norm_f.weight'/],
    ['a tensor too many', (s) => { s.tensors.set('extra', { dtype: 'u8', shape: [1], data: new Uint8Array(1) }); }, 'ERR_WEIGHTS', /does not use: 'extra'/],
    ['a step of NaN', (s) => { floats(s, `${LAYER}.act_scale`)[3] = Number.NaN; }, 'ERR_FILE_FORMAT', /act_scale' holds a value/],
    ['a step of zero', (s) => { floats(s, `${LAYER}.weight_scale`)[0] = 0; }, 'ERR_FILE_FORMAT', /weight_scale' holds a value/],
    ['a negative smoothing scale', (s) => { floats(s, `${LAYER}.smooth`)[0] = -1; }, 'ERR_FILE_FORMAT', /smooth' holds a value/],
    ['a code below the range', (s) => { new Int8Array(s.tensors.get(`${LAYER}.weight`)!.data.buffer)[7] = -128; }, 'ERR_FILE_FORMAT', /codes outside ±127/],
    ['a code beyond fewer bits', edit((l) => { l[LAYER]!.weightBits = 6; }), 'ERR_FILE_FORMAT', /codes outside ±31/],
    ['a zero point beyond fewer bits', edit((l) => { l[LAYER]!.actBits = 4; }), 'ERR_FILE_FORMAT', /act_zero' exceeds 15/],
    ['a weight of another type', (s) => { s.tensors.get(`${LAYER}.weight`)!.dtype = 'u8'; }, 'ERR_FILE_FORMAT', /u8.*where i8/],
    ['a float weight that is infinite', (s) => { floats(s, 'norm_f.weight')[0] = Number.POSITIVE_INFINITY; }, 'ERR_WEIGHTS', /'norm_f.weight'.*infinite/],
    ['labels for other classes', (s) => { s.metadata.labels = '["a"]'; }, 'ERR_CONFIG', /1 labels/],
    ['preprocessing of another size', (s) => { s.metadata.preprocess = s.metadata.preprocess!.replace('64', '32'); }, 'ERR_CONFIG', /32×32.*64×64/],
  ];
  for (const [what, spoil, code, message] of HOSTILE) {
    it(`refuses ${what}`, async () => {
      const stored = await readStored(file('good.safetensors'));
      spoil(stored);
      const tensors = [...stored.tensors].map(([name, t]) => ({ name, ...t }));
      await writeSafetensors(file('bad.safetensors'), tensors, stored.metadata);
      const error = await load(file('bad.safetensors')).catch((e: unknown) => e);
      expect(error).to.be.instanceOf(Ptq4vmError);
      expect((error as Ptq4vmError).message).to.match(message);
      expect((error as Ptq4vmError).code).to.equal(code);
    });
  }
});

describe('packing', () => {
  it('nibbles: every code, odd widths, unused ones 0', () => {
    for (const columns of [1, 2, 3, 7, 16]) {
      const codes = Int8Array.from({ length: 3 * columns }, (_, i) => (i % 16) - 8);
      const packed = packNibbles(codes, 3, columns);
      expect(packed.length).to.equal(3 * Math.ceil(columns / 2));
      expect([...unpackNibbles(packed, 3, columns)]).to.deep.equal([...codes]);
      if (columns % 2) expect(packed[packed.length - 1]! >> 4).to.equal(0);
    }
    expect([...packNibbles(Int8Array.of(1, -2), 1, 2)], 'low nibble first, two’s complement').to.deep.equal([0xe1]);
  });

  it('halves: all 65,536 bit patterns survive the way through float32', () => {
    let wrong = 0;
    for (let bits = 0; bits < 65536; bits++) {
      const value = halfToFloat32(bits);
      if (Number.isNaN(value) ? !Number.isNaN(halfToFloat32(float32ToHalf(value))) : float32ToHalf(value) !== bits) wrong++;
    }
    expect(wrong).to.equal(0);
  });
});

async function readStored(name: string): Promise<Stored> {
  const file = await openCheckpoint(name);
  const tensors: Stored['tensors'] = new Map();
  for (const [tensor, { dtype, shape }] of file.entries) {
    tensors.set(tensor, { dtype, shape: [...shape], data: (await file.read(tensor)).data.slice() });
  }
  const metadata = { ...(file.metadata as Record<string, string>) };
  await file.close();
  return { metadata, tensors };
}
