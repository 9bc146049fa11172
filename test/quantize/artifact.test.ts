/** The quantized file: what is saved comes back bit for bit; how it is saved. */
import * as fs from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { inspectFile } from '../../lib/inspect.js';
import { packNibbles, unpackNibbles } from '../../lib/io/artifact.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { openSafetensors } from '../../lib/io/safetensors.js';
import { load, type Model } from '../../lib/model.js';
import { METHODS } from '../../lib/ptq/recipe.js';
import { float32ToHalf, fromFloat32, halfToFloat32, toFloat32 } from '../../lib/tensor.js';
import { expectFailure, scratchFolder } from '../io/support.js';
import { Random, SEED } from '../ops/random.js';
import { calibrated, LABELS, logitsOf, type Small, small } from './artifact-support.js';

describe('quantized file: round trip', () => {
  const folder = scratchFolder();
  let it1: Small;
  before(async () => {
    it1 = await small(folder());
  });
  after(() => it1.float.dispose());

  for (const weights of [4, 6, 8]) {
    for (const activations of [4, 6, 8]) {
      it(`W${weights}A${activations}, every method: the same parameters and, int and fake, the same logits bit for bit`, async () => {
        for (const method of METHODS) {
          const label = `${method}, SEED=${SEED}`;
          const q = await calibrated(it1, weights, activations, method);
          const file = path.join(folder(), `w${weights}a${activations}.safetensors`);
          await q.save(file);
          const back = await load(file);
          expect(back.quantization!.layers.size, label).to.equal(6);
          for (const [name, layer] of q.quantization!.layers) {
            const { weightBits, actBits, weight, weightScale, actScale, actZero, smooth } = layer;
            expect(back.quantization!.layers.get(name), `${name} ${label}`).to.deep.equal({ weightBits, actBits, weight, weightScale, actScale, actZero, smooth });
          }
          expect(await logitsOf(back, it1.pictures), `int ${label}`).to.deep.equal(await logitsOf(q, it1.pictures));
          const [fakeBack, fake] = [back.with({ precision: 'fake' }), q.with({ precision: 'fake' })];
          expect(await logitsOf(fakeBack, it1.pictures), `fake ${label}`).to.deep.equal(await logitsOf(fake, it1.pictures));
          for (const model of [q, back, fake, fakeBack]) await model.dispose();
        }
      });
    }
  }

  it('everything else about the model comes back, and saving what was loaded gives the same bytes', async () => {
    const q = await calibrated(it1, 4, 6);
    const [first, second] = [path.join(folder(), 'first.safetensors'), path.join(folder(), 'second.safetensors')];
    await q.save(first);
    const back = await load(first);
    expect(back.config).to.deep.equal(q.config);
    expect(back.preprocess).to.deep.equal(q.preprocess);
    expect(back.labels).to.deep.equal(LABELS);
    expect(back.inputShape).to.deep.equal(q.inputShape);
    expect(back.quantization!.recipe).to.deep.equal(q.quantization!.recipe);
    expect(back.warnings, 'nothing is assumed any more').to.deep.equal([]);
    await back.save(second);
    expect(fs.readFileSync(second).equals(fs.readFileSync(first)), 'the same bytes').to.equal(true);
    await q.dispose();
    await back.dispose();
  });

  it('metadata: the contents that the format promises', async () => {
    const q = await calibrated(it1, 4, 8, 'pts+smooth');
    const file = path.join(folder(), 'metadata.safetensors');
    await q.save(file);
    await q.dispose();
    const opened = await openSafetensors(file);
    await opened.close();
    const { metadata, entries } = opened;
    expect(Object.keys(metadata)).to.have.members(['format', 'version', 'family', 'config', 'recipe', 'preprocess', 'labels', 'layers']);
    expect(metadata).to.include({ format: 'ptq4vm', version: '1', family: 'vim' });
    const parse = (key: string) => JSON.parse(metadata[key] as string);
    expect(parse('labels')).to.deep.equal(LABELS);
    expect(parse('config')).to.include({ embed_dim: 19, depth: 1, d_state: 5, stride: 8, use_middle_cls_token: true, norm_epsilon: 1e-5 });
    expect(parse('recipe')).to.deep.include({ method: 'pts+smooth', weights: 4, activations: 8, perToken: true, smooth: true, grid: true, alpha: 0.5 });
    expect(parse('recipe').calibration).to.deep.equal({ name: 'pictures in memory', images: 6 });
    expect(parse('preprocess')).to.deep.equal({ size: 16, resize: 20, interpolation: 'bilinear', mean: [0.1, 0.2, 0.3], std: [0.5, 0.25, 2] });
    const layers = parse('layers');
    expect(layers['layers.0.mixer.in_proj']).to.deep.equal({ weightBits: 4, actBits: 8, len: 5, shape: [76, 19] });
    const stored = (name: string) => ({ dtype: entries.get(name)!.dtype, shape: entries.get(name)!.shape });
    expect(stored('layers.0.mixer.in_proj.weight')).to.deep.equal({ dtype: 'u8', shape: [76, 10] });
    expect(stored('layers.0.mixer.in_proj.weight_scale')).to.deep.equal({ dtype: 'f32', shape: [76] });
    expect(stored('layers.0.mixer.in_proj.act_scale')).to.deep.equal({ dtype: 'f32', shape: [5] });
    expect(stored('layers.0.mixer.in_proj.act_zero')).to.deep.equal({ dtype: 'u8', shape: [5] });
    expect(stored('layers.0.mixer.in_proj.smooth')).to.deep.equal({ dtype: 'f32', shape: [19] });
    expect(stored('layers.0.mixer.in_proj.bias')).to.deep.equal({ dtype: 'f32', shape: [76] });
  });

  for (const dtype of ['f16', 'bf16', 'f64', 'f32'] as const) {
    it(`a ${dtype} checkpoint: what stays float keeps its name, type and bytes`, async () => {
      const it2 = await small(folder(), dtype);
      const q = await calibrated(it2, 8, 8);
      const file = path.join(folder(), `${dtype}.safetensors`);
      await q.save(file);
      const [before, after] = [await openCheckpoint(path.join(folder(), `float-${dtype}.safetensors`)), await openCheckpoint(file)];
      const layers = q.quantization!.layers;
      let kept = 0;
      for (const [name, { shape }] of before.entries) {
        if (layers.has(name.replace(/\.weight$/, '')) && name.endsWith('.weight')) continue;
        const raw = await after.read(name);
        expect(raw.dtype, name).to.equal(dtype);
        expect(raw.shape, name).to.deep.equal(shape);
        expect(Buffer.from(raw.data).equals(Buffer.from((await before.read(name)).data)), `bytes of ${name}`).to.equal(true);
        kept++;
      }
      expect(kept).to.be.above(10);
      const report = await inspectFile(file);
      const total = [...before.entries.values()].reduce((sum, e) => sum + e.shape.reduce((a, b) => a * b, 1), 0);
      expect(report.parameters, 'parameters counted by inspect').to.equal(total);
      expect(report).to.deep.include({ format: 'ptq4vm', family: 'vim', labels: LABELS, assumed: [] });
      await before.close();
      await after.close();
      const back = await load(file);
      expect(await logitsOf(back, it2.pictures)).to.deep.equal(await logitsOf(q, it2.pictures));
      for (const model of [it2.float, q, back]) await model.dispose();
    });
  }
});

describe('quantized file: element types and nibbles', () => {
  it('every one of the 65536 halves goes to float32 and back', () => {
    for (let h = 0; h < 65536; h++) {
      const value = halfToFloat32(h);
      if (Number.isNaN(value)) {
        expect(float32ToHalf(value) & 0x7fff, `NaN ${h}`).to.be.above(0x7c00);
      } else if (float32ToHalf(value) !== h) {
        expect.fail(`half 0x${h.toString(16)} = ${value} came back as 0x${float32ToHalf(value).toString(16)}`);
      }
    }
  });

  it('what lies between two halves goes to the nearer one, the middle to the even one', () => {
    for (let h = 0; h < 0x7c00; h++) {
      const low = halfToFloat32(h);
      const high = h === 0x7bff ? 65536 : halfToFloat32(h + 1);
      const middle = (low + high) / 2; // exact in double, and a float32
      const even = h % 2 === 0 ? h : h + 1;
      const tiny = (high - low) / 1024;
      for (const [value, wanted] of [[middle, even], [middle - tiny, h], [middle + tiny, h + 1]] as const) {
        const f = Math.fround(value);
        if (float32ToHalf(f) !== wanted) expect.fail(`${f} between halves ${h} and ${h + 1} gave ${float32ToHalf(f)}`);
        if (float32ToHalf(-f) !== (wanted | 0x8000)) expect.fail(`${-f} gave ${float32ToHalf(-f)}`);
      }
    }
  });

  it('every bfloat16 that is a number goes to float32 and back, and so do float64, integers and bool', () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((b) => (b & 0x7f80) !== 0x7f80 || (b & 0x7f) === 0);
    const bytes = new Uint8Array(bits.buffer);
    expect(fromFloat32(toFloat32({ dtype: 'bf16', shape: [bits.length], data: bytes }), 'bf16')).to.deep.equal(bytes);
    const whole = Float32Array.from([0, 1, 2, 100]);
    for (const dtype of ['f64', 'f32', 'f16', 'bf16', 'i64', 'i32', 'i16', 'i8', 'u8', 'bool'] as const) {
      expect([...toFloat32({ dtype, shape: [4], data: fromFloat32(whole, dtype) })], dtype).to.deep.equal([...whole]);
    }
  });

  it('nibbles: literal bytes, odd columns, negative codes, unused ones 0', () => {
    const codes = Int8Array.from([1, -1, 7, -7, 0, -8]);
    expect([...packNibbles(codes, 2, 3)]).to.deep.equal([0xf1, 0x07, 0x09, 0x08]);
    expect([...packNibbles(codes, 1, 6)]).to.deep.equal([0xf1, 0x97, 0x80]);
    expect([...packNibbles(codes, 6, 1)]).to.deep.equal([0x01, 0x0f, 0x07, 0x09, 0x00, 0x08]);
    const draw = new Random('nibbles');
    for (let round = 0; round < 50; round++) {
      const [rows, columns] = [draw.integer(1, 9), draw.integer(1, 17)];
      const all = Int8Array.from({ length: rows * columns }, () => draw.integer(-8, 7));
      const packed = packNibbles(all, rows, columns);
      expect(packed.length).to.equal(rows * Math.ceil(columns / 2));
      expect(unpackNibbles(packed, rows, columns), `${rows}×${columns}, SEED=${SEED}`).to.deep.equal(all);
    }
  });
});

describe('quantized file: saving', () => {
  const folder = scratchFolder();
  let it1: Small;
  let q: Model;
  before(async () => {
    it1 = await small(folder());
    q = await calibrated(it1, 8, 8);
  });
  after(async () => {
    await q.dispose();
    await it1.float.dispose();
  });

  it('a float model is not saved, and says why', async () => {
    const file = path.join(folder(), 'float-copy.safetensors');
    await expectFailure(it1.float.save(file), 'ERR_UNSUPPORTED', 'quantize this one first');
    expect(fs.existsSync(file)).to.equal(false);
  });

  it('paths that are none', async () => {
    for (const bad of ['', 7, undefined, null]) {
      const error = await q.save(bad as string).catch((e: unknown) => e);
      expect(error, String(bad)).to.be.instanceOf(TypeError);
      expect((error as Error).message).to.match(/^Expected a path for path but received/);
    }
    await expectFailure(q.save(folder()), 'ERR_FILE_WRITE', 'it is a folder');
    await expectFailure(q.save(path.join(folder(), 'none', 'x.safetensors')), 'ERR_FILE_WRITE', 'ENOENT');
  });

  it('over the very file that was loaded, again and again', async () => {
    const file = path.join(folder(), 'again.safetensors');
    await q.save(file);
    const bytes = fs.readFileSync(file);
    const model = await load(file);
    await Promise.all([model.save(file), model.save(file), model.save(file)]);
    expect(fs.readFileSync(file).equals(bytes)).to.equal(true);
    expect(await logitsOf(model, it1.pictures)).to.deep.equal(await logitsOf(q, it1.pictures));
    await model.dispose();
    expect(fs.readdirSync(folder()).filter((f) => f.endsWith('.tmp'))).to.deep.equal([]);
  });

  it('aborted before and in the middle: the reason is thrown, the old file stays, no temporary is left', async () => {
    const file = path.join(folder(), 'kept.safetensors');
    fs.writeFileSync(file, 'the old file');
    const reason = new Error('changed my mind');
    expect(await q.save(file, { signal: AbortSignal.abort(reason) }).catch((e: unknown) => e)).to.equal(reason);

    const controller = new AbortController();
    const saving = q.save(file, { signal: controller.signal }).then(() => 'saved', (e: unknown) => e);
    const temporary = () => fs.readdirSync(folder()).some((f) => f.endsWith('.tmp'));
    for (let turn = 0; turn < 10_000 && !temporary(); turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(temporary(), 'writing has begun').to.equal(true);
    controller.abort(reason);
    expect(await saving).to.equal(reason);
    expect(fs.readFileSync(file, 'utf8')).to.equal('the old file');
    expect(temporary()).to.equal(false);
  });
});
