/** The real files beside the repository: every name and shape that their manifests state, every value finite, both ways round. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { openNpy, readNpy, readNpyIntegers, writeNpy } from '../../lib/io/npy.js';
import { openSafetensors, writeSafetensors } from '../../lib/io/safetensors.js';
import { describeShared, scratchFolder } from './support.js';

interface Manifest {
  files: Record<string, { tensors?: Record<string, number[]>; shape?: number[]; dtype?: string }>;
}

const bytesOf = (a: Float32Array): Uint8Array => new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
const manifestOf = (folder: string): Manifest => JSON.parse(fs.readFileSync(path.join(folder, 'manifest.json'), 'utf8')) as Manifest;

describeShared('real files of ../shared', (root) => {
  const scratch = scratchFolder();
  const cases = fs.readdirSync(path.join(root, 'golden')).filter((n) => fs.existsSync(path.join(root, 'golden', n, 'manifest.json')));

  for (const name of cases) {
    const folder = path.join(root, 'golden', name);
    const { files } = manifestOf(folder);

    for (const [file, { tensors }] of Object.entries(files)) {
      if (tensors === undefined || !/\.(pth|ckpt)$/.test(file)) continue;
      it(`${name}/${file}: names, shapes, finite values, and the same bytes through safetensors`, async () => {
        const source = await openCheckpoint(path.join(folder, file));
        expect(source.format).to.equal('pth-zip');
        expect(Object.fromEntries([...source.entries].map(([n, e]) => [n, e.shape]))).to.deep.equal(tensors);
        const copy = path.join(scratch(), 'copy.safetensors');
        await writeSafetensors(
          copy,
          [...source.entries].map(([n, e]) => ({ name: n, dtype: e.dtype, shape: e.shape, data: async () => (await source.read(n)).data })),
        );
        const read = await openSafetensors(copy);
        for (const n of source.entries.keys()) {
          const values = await source.readFloat32(n);
          expect(values.every(Number.isFinite), n).to.equal(true);
          expect(Buffer.compare(bytesOf(values), (await read.read(n)).data), n).to.equal(0);
        }
        await read.close();
        await source.close();
      });
    }

    it(`${name}: every .npy, whole, by rows and rewritten`, async () => {
      for (const [file, { shape, dtype }] of Object.entries(files)) {
        if (!file.endsWith('.npy')) continue;
        const full = path.join(folder, file);
        const array = await readNpy(full);
        if (shape !== undefined) expect(array.shape, file).to.deep.equal(shape);
        if (dtype !== undefined)
          expect(array.dtype, file).to.equal({ float32: 'f32', float64: 'f64', int32: 'i32', int64: 'i64', uint8: 'u8' }[dtype]);
        if (array.dtype === 'i32') {
          expect(Array.from((await readNpyIntegers(full)).data), file).to.deep.equal(Array.from(array.toFloat32()));
          continue;
        }
        const values = array.toFloat32();
        if (array.shape.length > 0) {
          const rows = await openNpy(full);
          const middle = rows.rows >> 1;
          const joined = Buffer.concat([await rows.readRows(0, middle), await rows.readRows(middle, rows.rows)].map(bytesOf));
          expect(Buffer.compare(joined, bytesOf(values)), file).to.equal(0);
          await rows.close();
        }
        if (array.dtype === 'f32') {
          const copy = path.join(scratch(), 'copy.npy');
          await writeNpy(copy, { dims: array.shape, data: values });
          expect(Buffer.compare(fs.readFileSync(copy), fs.readFileSync(full)), `${file}: byte for byte what NumPy wrote`).to.equal(0);
        }
      }
    }).timeout(20_000);
  }

  it('the optimizer, arguments and configuration in real checkpoints', async () => {
    const vim = await openCheckpoint(path.join(root, 'golden/A_vim_odd/model_with_junk.pth'));
    const args = vim.metadata.args as { __class__: string; state: Record<string, unknown> };
    expect(args.__class__).to.equal('argparse.Namespace');
    expect(args.state).to.include({ batch_size: 64, epochs: 300, lr: 0.0005, clip_grad: null, distributed: true });
    expect(vim.metadata).to.include({ epoch: 299, max_accuracy: 78.3 });
    const optimizer = vim.metadata.optimizer as { param_groups: { betas: number[] }[] };
    expect(optimizer.param_groups[0]!.betas).to.deep.equal([0.9, 0.999]);
    expect(() => JSON.stringify(vim.metadata)).not.to.throw();
    await vim.close();

    const vmamba = await openCheckpoint(path.join(root, 'golden/B_vmamba_v2_ratio2/model_with_junk_4d_linears.pth'));
    const config = vmamba.metadata.config as { __class__: string; items: { MODEL: { items: Record<string, unknown> } } };
    expect(config.__class__).to.equal('yacs.config.CfgNode');
    expect(config.items.MODEL.items).to.include({ TYPE: 'vssm', DROP_PATH_RATE: 0.2 });
    await vmamba.close();

    const local = await openCheckpoint(path.join(root, 'golden/C_localvim_rope/official_style.ckpt'));
    expect((local.metadata.__reader__ as Record<string, string>).stateDict).to.equal('state_dict');
    await local.close();
  });

  it('the trained models', async () => {
    for (const name of fs.readdirSync(path.join(root, 'models'))) {
      const file = path.join(root, 'models', name, 'model.pth');
      if (!fs.existsSync(file)) continue;
      const checkpoint = await openCheckpoint(file);
      expect(checkpoint.entries.size, name).to.be.greaterThan(50);
      for (const n of checkpoint.entries.keys())
        expect((await checkpoint.readFloat32(n)).every(Number.isFinite), `${name} ${n}`).to.equal(true);
      await checkpoint.close();
    }
  });
});
