/** Good checkpoints of every kind: torch zip and legacy, all element types, views, the junk that real files carry. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { type CheckpointFile, openCheckpoint, openCheckpointSource } from '../../lib/io/checkpoint.js';
import { memorySource } from '../../lib/io/files.js';
import { writeSafetensors } from '../../lib/io/safetensors.js';
import { type DType } from '../../lib/tensor.js';
import { expectFailure, scratchFolder } from './support.js';
import {
  build,
  bytesOf,
  call,
  code,
  dict,
  global,
  newObject,
  orderedDict,
  pickle,
  type Py,
  raw,
  tensor,
  torchLegacy,
  torchZip,
  zip,
} from './torch-writer.js';

const open = (bytes: Uint8Array): Promise<CheckpointFile> => openCheckpointSource(memorySource(bytes, 'file.pth'));
const floats = async (bytes: Uint8Array, name: string): Promise<number[]> => Array.from(await (await open(bytes)).readFloat32(name));

const TYPES: readonly [DType, string, readonly number[]][] = [
  ['f64', 'DoubleStorage', [0.1, -1e300, 3]],
  ['f32', 'FloatStorage', [1.5, -2.25, 1e-30]],
  ['f16', 'HalfStorage', [1.5, -65504, 2 ** -24]],
  ['bf16', 'BFloat16Storage', [1.5, -3.140625, 2 ** 100]],
  ['i64', 'LongStorage', [7, -8, 2 ** 40]],
  ['i32', 'IntStorage', [7, -8, 2 ** 30]],
  ['i16', 'ShortStorage', [7, -8, 32767]],
  ['i8', 'CharStorage', [7, -8, 127]],
  ['u8', 'ByteStorage', [7, 8, 255]],
  ['bool', 'BoolStorage', [0, 1, 1]],
];
const STORAGE_BYTES: Record<string, number> = { f64: 8, f32: 4, f16: 2, bf16: 2, i64: 8, i32: 4, i16: 2, i8: 1, u8: 1, bool: 1 };
/** 0, 1, 2, … as float32. */
const ramp = (n: number): Uint8Array =>
  bytesOf(
    'f32',
    Array.from({ length: n }, (_, i) => i),
  );

/** The same content in both torch formats: what holds for one must hold for the other. */
const FORMATS: readonly [string, 'pth-zip' | 'pth-legacy', (root: Py, storages: [string, number, Uint8Array][]) => Buffer][] = [
  ['zip', 'pth-zip', (root, storages) => torchZip(root, Object.fromEntries(storages.map(([k, , d]) => [k, d])))],
  ['legacy', 'pth-legacy', (root, storages) => torchLegacy(root, storages)],
];

describe('checkpoints', () => {
  const folder = scratchFolder();

  for (const [title, format, write] of FORMATS) {
    describe(`torch ${title} format`, () => {
      for (const [dtype, type, values] of TYPES) {
        it(`reads ${dtype}`, async () => {
          const data = bytesOf(dtype, values);
          const file = await open(write(dict({ w: tensor({ type, shape: [3] }) }), [['0', STORAGE_BYTES[dtype]!, data]]));
          expect(file.format).to.equal(format);
          expect(file.entries.get('w')).to.include({ dtype }).and.to.have.deep.property('shape', [3]);
          const read = await file.read('w');
          expect(read.dtype).to.equal(dtype);
          expect(Buffer.compare(read.data, data)).to.equal(0);
          expect(await file.readFloat32('w')).to.deep.equal(Float32Array.from(values));
        });
      }

      it('reads scalars, empty tensors, parameters and v3 tensors', async () => {
        const root = orderedDict({
          scalar: tensor({ storage: '0', shape: [] }),
          empty: tensor({ storage: '1', shape: [0, 3], numel: 0 }),
          parameter: call(
            global('torch._utils', '_rebuild_parameter'),
            tensor({ storage: '2', shape: [1, 2] }),
            true,
            call(global('collections', 'OrderedDict')),
          ),
        });
        const file = await open(
          write(root, [
            ['0', 4, ramp(1)],
            ['1', 4, ramp(0)],
            ['2', 4, ramp(2)],
          ]),
        );
        expect([...file.entries].map(([name, e]) => [name, e.shape])).to.deep.equal([
          ['scalar', []],
          ['empty', [0, 3]],
          ['parameter', [1, 2]],
        ]);
        expect(Array.from(await file.readFloat32('scalar'))).to.deep.equal([0]);
        expect((await file.read('empty')).data.length).to.equal(0);
        expect(Array.from(await file.readFloat32('parameter'))).to.deep.equal([0, 1]);
      });

      it('resolves views: offsets, transposes, slices, expanded axes, shared storages', async () => {
        const view = (offset: number, shape: number[], strides: number[]): Py => tensor({ numel: 24, offset, shape, strides });
        const root = dict({
          whole: view(0, [2, 3, 4], [12, 4, 1]),
          slice: view(12, [3, 4], [4, 1]),
          transposed: view(0, [4, 6], [1, 4]),
          permuted: view(0, [4, 2, 3], [1, 12, 4]),
          column: view(3, [6], [4]),
          stepped: view(1, [2, 2], [12, 2]),
          expanded: view(5, [3, 2], [0, 1]),
          ones: view(7, [1, 2, 1], [99, 1, 77]),
        });
        const file = await open(write(root, [['0', 4, ramp(24)]]));
        const expected: Record<string, number[]> = {
          whole: Array.from({ length: 24 }, (_, i) => i),
          slice: Array.from({ length: 12 }, (_, i) => 12 + i),
          transposed: Array.from({ length: 24 }, (_, i) => Math.floor(i / 6) + 4 * (i % 6)),
          permuted: Array.from({ length: 24 }, (_, i) => Math.floor(i / 6) + 12 * (Math.floor(i / 3) % 2) + 4 * (i % 3)),
          column: [3, 7, 11, 15, 19, 23],
          stepped: [1, 3, 13, 15],
          expanded: [5, 6, 5, 6, 5, 6],
          ones: [7, 8],
        };
        for (const [name, values] of Object.entries(expected)) expect(Array.from(await file.readFloat32(name)), name).to.deep.equal(values);
      });

      it('gathers strided views of every element width', async () => {
        for (const [dtype, type] of TYPES) {
          const values = [1, 0, 1, 1, 0, 0];
          const root = dict({ t: tensor({ type, numel: 6, shape: [3, 2], strides: [1, 3] }) });
          const file = await open(write(root, [['0', STORAGE_BYTES[dtype]!, bytesOf(dtype, values)]]));
          expect(Array.from(await file.readFloat32('t')), dtype).to.deep.equal([1, 1, 0, 0, 1, 0]);
        }
      });

      for (const key of ['model', 'state_dict', 'model_state_dict', 'module', 'net']) {
        it(`finds the state dict under '${key}' and keeps the rest as metadata`, async () => {
          const root = dict({
            epoch: 299,
            [key]: orderedDict({ 'a.weight': tensor() }),
            args: build(newObject(global('argparse', 'Namespace')), dict({ lr: 5e-4, model: 'vim_tiny' })),
            optimizer: dict({ state: new Map([[0, dict({ exp_avg: tensor({ storage: '1' }) })]]) }),
          });
          const file = await open(
            write(root, [
              ['0', 4, ramp(2)],
              ['1', 4, ramp(2)],
            ]),
          );
          expect([...file.entries.keys()]).to.deep.equal(['a.weight']);
          const metadata = JSON.parse(JSON.stringify(file.metadata));
          expect(metadata.epoch).to.equal(299);
          expect(metadata.args).to.deep.equal({ __class__: 'argparse.Namespace', state: { lr: 5e-4, model: 'vim_tiny' } });
          expect(metadata.optimizer.state['0'].exp_avg).to.deep.equal({ __class__: 'torch.Tensor', dtype: 'float32', shape: [2] });
          expect(metadata.__reader__).to.deep.equal({ stateDict: key });
        });
      }

      it('takes the top level itself for the state dict, other values for metadata', async () => {
        const file = await open(write(dict({ w: tensor(), version: 3 }), [['0', 4, ramp(2)]]));
        expect([...file.entries.keys()]).to.deep.equal(['w']);
        expect(file.metadata.version).to.equal(3);
      });

      it('strips the prefixes of wrappers only when every name has them', async () => {
        const both = await open(write(dict({ 'module._orig_mod.a': tensor(), 'module._orig_mod.b.c': tensor() }), [['0', 4, ramp(2)]]));
        expect([...both.entries.keys()]).to.deep.equal(['a', 'b.c']);
        expect((both.metadata.__reader__ as Record<string, unknown>).strippedPrefix).to.equal('module._orig_mod.');
        const some = await open(write(dict({ 'module.a': tensor(), b: tensor() }), [['0', 4, ramp(2)]]));
        expect([...some.entries.keys()]).to.deep.equal(['module.a', 'b']);
      });

      it('uses averaged weights only when there is nothing else', async () => {
        const ema = dict({ w: tensor({ storage: '1' }) });
        const both = await open(
          write(dict({ model: dict({ w: tensor() }), model_ema: ema }), [
            ['0', 4, ramp(2)],
            ['1', 4, bytesOf('f32', [5, 6])],
          ]),
        );
        expect(Array.from(await both.readFloat32('w'))).to.deep.equal([0, 1]);
        expect(both.metadata.model_ema).to.equal('<1 averaged weights, not used>');
        const alone = await open(write(dict({ model_ema: ema, epoch: 1 }), [['1', 4, bytesOf('f32', [5, 6])]]));
        expect(Array.from(await alone.readFloat32('w'))).to.deep.equal([5, 6]);
        expect((alone.metadata.__reader__ as Record<string, string>).note).to.match(/averaged ones of 'model_ema'/);
      });

      it('keeps tensors named __proto__ apart from the language', async () => {
        const file = await open(write(dict({ ['__proto__']: tensor(), constructor: tensor() }), [['0', 4, ramp(2)]]));
        expect([...file.entries.keys()]).to.deep.equal(['__proto__', 'constructor']);
        expect(Array.from(await file.readFloat32('__proto__'))).to.deep.equal([0, 1]);
        await expectFailure(file.read('toString'), 'ERR_WEIGHTS', "no tensor 'toString'");
      });

      it('names a missing tensor, and one that is like it', async () => {
        const file = await open(write(dict({ 'layers.0.norm.weight': tensor() }), [['0', 4, ramp(2)]]));
        await expectFailure(file.read('norm.weight'), 'ERR_WEIGHTS', "no tensor 'norm.weight' (it has 'layers.0.norm.weight')");
        await expectFailure(file.readFloat32('head.bias'), 'ERR_WEIGHTS', "no tensor 'head.bias'");
      });

      it('fails clearly after close, which may be called twice', async () => {
        const file = await open(write(dict({ w: tensor() }), [['0', 4, ramp(2)]]));
        await file.close();
        await file.close();
        await expectFailure(file.read('w'), 'ERR_DISPOSED', 'is closed');
      });

      it('hands out memory of its own', async () => {
        const file = await open(write(dict({ w: tensor() }), [['0', 4, ramp(2)]]));
        (await file.read('w')).data.fill(255);
        expect(Array.from(await file.readFloat32('w'))).to.deep.equal([0, 1]);
      });
    });
  }

  it('torch zip: big-endian storages', async () => {
    const order = { name: 'archive/byteorder', data: Buffer.from('big') };
    const big = Buffer.from(ramp(4)).swap32();
    expect(await floats(torchZip(dict({ w: tensor({ shape: [2, 2], strides: [1, 2] }) }), { 0: big }, [order]), 'w')).to.deep.equal([
      0, 2, 1, 3,
    ]);
    const half = Buffer.from(bytesOf('f16', [1.5, -2])).swap16();
    expect(await floats(torchZip(dict({ w: tensor({ type: 'HalfStorage' }) }), { 0: half }, [order]), 'w')).to.deep.equal([1.5, -2]);
    const double = Buffer.from(bytesOf('f64', [1.5, -2])).swap64();
    expect(await floats(torchZip(dict({ w: tensor({ type: 'DoubleStorage' }) }), { 0: double }, [order]), 'w')).to.deep.equal([1.5, -2]);
    const little = { name: 'archive/byteorder', data: Buffer.from('little') };
    expect(await floats(torchZip(dict({ w: tensor() }), { 0: ramp(2) }, [little]), 'w')).to.deep.equal([0, 1]);
  });

  it('torch zip: untyped storages, whose tensors carry the type', async () => {
    const id = (numel: number): Py =>
      raw(code(raw('(', ...(['storage', global('torch.storage', 'UntypedStorage'), '0', 'cpu', numel] as Py[]).map(code), 't')), 'Q');
    const v3 = call(
      global('torch._utils', '_rebuild_tensor_v3'),
      id(8),
      1,
      raw(code(1), 0x85),
      raw(code(1), 0x85),
      false,
      call(global('collections', 'OrderedDict')),
      global('torch', 'float32'),
      null,
    );
    expect(await floats(torchZip(dict({ w: v3 }), { 0: bytesOf('f32', [5, 6]) }), 'w')).to.deep.equal([6]);
  });

  it('torch zip: a file that was zipped anew, deflated and with a folder of its own', async () => {
    const stored = ramp(4096);
    const bytes = zip([
      { name: '__MACOSX/x/data.pkl', data: Buffer.from('junk') },
      {
        name: 'x/data.pkl',
        data: pickle(dict({ w: tensor({ shape: [4096] }), v: tensor({ numel: 4096, shape: [2], strides: [2], offset: 1 }) })),
      },
      { name: 'x/data/0', data: deflateRawSync(stored), method: 8, size: stored.length },
    ]);
    const file = await open(bytes);
    expect(Buffer.compare((await file.read('w')).data, stored)).to.equal(0);
    expect(Array.from(await file.readFloat32('v'))).to.deep.equal([1, 3]);
  });

  it('torch zip: a comment at the end, any alignment', async () => {
    expect(
      await floats(torchZip(dict({ w: tensor() }), { 0: ramp(2) }, [], { comment: Buffer.from('hello'), align: 1 }), 'w'),
    ).to.deep.equal([0, 1]);
  });

  it('torch legacy: views of storages (before PyTorch 0.4) and an object larger than the first window', async () => {
    const root = dict({
      a: tensor({ numel: 10, shape: [4], view: ['v', 2, 4] }),
      b: tensor({ numel: 10, shape: [2], offset: 1, view: ['u', 5, 5] }),
      note: 'x'.repeat(600_000),
    });
    const file = await open(torchLegacy(root, [['0', 4, ramp(10)]]));
    expect(Array.from(await file.readFloat32('a'))).to.deep.equal([2, 3, 4, 5]);
    expect(Array.from(await file.readFloat32('b'))).to.deep.equal([6, 7]);
    expect((file.metadata.note as string).length).to.equal(600_000);
  });

  it('torch legacy: many storages of different widths, in an order of their own', async () => {
    const root = dict({
      h: tensor({ storage: '94', type: 'HalfStorage', shape: [3] }),
      f: tensor({ storage: '17', shape: [2] }),
      b: tensor({ storage: '5', type: 'BoolStorage', shape: [1] }),
      d: tensor({ storage: '6', type: 'DoubleStorage', shape: [1] }),
    });
    const file = await open(
      torchLegacy(root, [
        ['17', 4, ramp(2)],
        ['94', 2, bytesOf('f16', [1, 2, 3])],
        ['5', 1, Uint8Array.of(1)],
        ['6', 8, bytesOf('f64', [0.5])],
      ]),
    );
    expect(Array.from(await file.readFloat32('h'))).to.deep.equal([1, 2, 3]);
    expect(Array.from(await file.readFloat32('f'))).to.deep.equal([0, 1]);
    expect(Array.from(await file.readFloat32('b'))).to.deep.equal([1]);
    expect(Array.from(await file.readFloat32('d'))).to.deep.equal([0.5]);
  });

  it('recognizes the format by content, whatever the name', async () => {
    const files: [string, string, Uint8Array][] = [
      ['zip.safetensors', 'pth-zip', torchZip(dict({ w: tensor() }), { 0: ramp(2) })],
      ['legacy.bin', 'pth-legacy', torchLegacy(dict({ w: tensor() }), [['0', 4, ramp(2)]])],
    ];
    for (const [name, format, bytes] of files) {
      const full = path.join(folder(), name);
      fs.writeFileSync(full, bytes);
      const file = await openCheckpoint(full);
      expect(file.format).to.equal(format);
      expect(file.path).to.equal(full);
      expect(Array.from(await file.readFloat32('w'))).to.deep.equal([0, 1]);
      await file.close();
    }
    const full = path.join(folder(), 'safetensors.pth');
    await writeSafetensors(full, [{ name: 'w', dtype: 'f32', shape: [2], data: ramp(2) }]);
    const file = await openCheckpoint(full);
    expect(file.format).to.equal('safetensors');
    await file.close();
  });

  it('reads zip entries beyond 4 GB in place', async () => {
    // [data.pkl][directory][a hole of 5 GiB][local header and data of the storage][end record], by moving the parts of a small zip.
    const full = path.join(folder(), 'zip64.pth');
    const at = 5 * 2 ** 30;
    const first = zip([{ name: 'a/data.pkl', data: pickle(dict({ w: tensor() })) }]);
    const local = first.readUInt32LE(first.length - 6);
    const both = zip([
      { name: 'a/data.pkl', data: pickle(dict({ w: tensor() })) },
      { name: 'a/data/0', data: ramp(2), zip64Offset: BigInt(at) },
    ]);
    const directory = both.readUInt32LE(both.length - 6);
    const end = Buffer.from(both.subarray(-22));
    end.writeUInt32LE(local, 16);
    const handle = fs.openSync(full, 'w');
    fs.writeSync(handle, both, 0, local, 0);
    fs.writeSync(handle, both, directory, both.length - 22 - directory, local);
    fs.writeSync(handle, both, local, directory - local, at);
    fs.writeSync(handle, end, 0, 22, at + directory - local);
    fs.closeSync(handle);
    const file = await openCheckpoint(full);
    expect(Array.from(await file.readFloat32('w'))).to.deep.equal([0, 1]);
    await file.close();
    fs.rmSync(full);
  });

  it('reads storages beyond 2 GB in place', async () => {
    // A sparse file: [pickles][storage '0': 3 GiB of zeros but for its last element][storage '1']. Only what is asked for is read.
    const full = path.join(folder(), 'large.pth');
    const numel = 3 * 2 ** 28;
    const root = dict({
      last: tensor({ numel, shape: [2], offset: numel - 2 }),
      far: tensor({ numel, shape: [3], strides: [2 ** 28] }),
      after: tensor({ storage: '1' }),
    });
    const head = torchLegacy(root, [['0', 4, new Uint8Array(0)]], { keys: ['0', '1'], numel: { 0: numel } });
    const handle = fs.openSync(full, 'w');
    const end = head.length + 4 * numel;
    const one = bytesOf('f32', [42]);
    fs.writeSync(handle, head, 0, head.length, 0);
    fs.writeSync(handle, one, 0, 4, end - 4);
    const tail = Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), bytesOf('f32', [7, 8])]);
    fs.writeSync(handle, tail, 0, tail.length, end);
    fs.closeSync(handle);
    const before = process.memoryUsage().rss;
    const file = await openCheckpoint(full);
    expect(Array.from(await file.readFloat32('last'))).to.deep.equal([0, 42]);
    expect(Array.from(await file.readFloat32('after'))).to.deep.equal([7, 8]);
    expect(Array.from(await file.readFloat32('far'))).to.deep.equal([0, 0, 0]);
    await file.close();
    expect(process.memoryUsage().rss - before, 'memory for 8 numbers').to.be.lessThan(300e6);
    fs.rmSync(full);
  }).timeout(20_000);
});
