import path from 'node:path';
import { expect } from 'chai';
import { Ptq4vmError } from '../../lib/errors.js';
import { readNpy } from '../../lib/io/npy.js';
import { npyBytes, png, put, rgb, temporaryFolder } from '../data/support.js';
import { cli, fakeModel } from './support.js';

interface PredictJson {
  readonly results: { input: string; row?: number; top?: { index: number; label: string; score: number }[]; error?: { code: string; message: string } }[];
}

describe('command line: results', () => {
  const dir = temporaryFolder();
  const file = (name: string): string => path.join(dir, name);
  const picture = async (name: string, level: number): Promise<string> => put(dir, name, await png(rgb(2, 2, () => [level, level, level])));
  let black: string;
  let grey: string;
  let white: string;
  let batch: string;
  before(async () => {
    black = await picture('val/black/0.png', 0);
    grey = await picture('val/grey/0.png', 128);
    white = await picture('val/white/0.png', 255);
    // Rows: white, black, black.
    batch = put(dir, 'x.npy', npyBytes('<f4', [3, 3, 2, 2], Float32Array.from({ length: 36 }, (_, i) => (i < 12 ? 1 : 0))));
    put(dir, 'y.npy', npyBytes('<i8', [3], BigInt64Array.of(2n, 0n, 1n)));
  });

  it('predict prints labels by picture', async () => {
    const { status, stdout, stderr } = await cli(['predict', 'm', grey, white, '--top-k', '2']);
    expect([status, stderr]).to.deep.equal([0, '']);
    const lines = stdout.trimEnd().split('\n');
    expect([lines[0], lines[3], lines.length]).to.deep.equal([grey, white, 6]);
    expect(lines[1]).to.match(/^ +98\.\d\d % {2}grey$/);
    expect(lines[4]).to.match(/^ +99\.\d\d % {2}white$/);
  });

  it('predict --json keeps the order of the inputs, pictures and batches mixed', async () => {
    const { status, stdout } = await cli(['predict', 'm', white, batch, black, grey, '--json', '--top-k', '1', '--batch', '2']);
    const { results } = JSON.parse(stdout) as PredictJson;
    expect(status).to.equal(0);
    expect(results.map((r) => [r.input, r.row, r.top![0]!.label])).to.deep.equal([
      [white, undefined, 'white'], [batch, 0, 'white'], [batch, 1, 'black'], [batch, 2, 'black'], [black, undefined, 'black'], [grey, undefined, 'grey'],
    ]);
    expect(results[0]!.top).to.have.length(1);
    expect(results[0]!.top![0]).to.have.all.keys('index', 'label', 'score');
    expect(results[0]!.top![0]!.index).to.equal(2);
    expect(results[0]!.top![0]!.score).to.be.within(0.99, 1);
  });

  it('predict reads many pictures in batches', async () => {
    const inputs = Array.from({ length: 11 }, (_, i) => [black, grey, white][i % 3]!);
    const { stdout, calls } = await cli(['predict', 'm', ...inputs, '--json', '--batch', '4']);
    expect(calls.filter(([n]) => n === 'forward').map(([, dims]) => (dims as number[])[0])).to.deep.equal([4, 4, 3]);
    const { results } = JSON.parse(stdout) as PredictJson;
    expect(results.map((r) => r.top![0]!.index)).to.deep.equal(inputs.map((_, i) => i % 3));
  });

  it('predict finishes the others when some cannot be read, and exits 1', async () => {
    const bad = put(dir, 'bad.jpg', 'nothing');
    const badBatch = put(dir, 'bad.npy', 'nothing');
    const args = ['predict', 'm', bad, black, file('gone.png'), badBatch, white, '--batch', '2'];
    const json = await cli([...args, '--json']);
    const { results } = JSON.parse(json.stdout) as PredictJson;
    expect(json.status).to.equal(1);
    expect(results.map((r) => r.error?.code ?? r.top![0]!.label)).to.deep.equal(['ERR_DATA', 'black', 'ERR_FILE_NOT_FOUND', 'ERR_FILE_FORMAT', 'white']);
    expect(results[0]!.error!.message).to.include(bad);
    const text = await cli(args);
    expect(text.status).to.equal(1);
    expect(text.stdout).to.include(black).and.to.include(white).and.not.include('bad');
    expect(text.stderr.split('\n').filter(Boolean)).to.have.length(4);
    expect(text.stderr).to.match(/3 of 5 inputs failed/);
    const alone = await cli(['predict', 'm', bad]);
    expect([alone.status, alone.stdout, alone.calls.some(([n]) => n === 'forward')]).to.deep.equal([1, '', false]);
  });

  it('predict never passes NaN for a label', async () => {
    const load = async (): Promise<object> => fakeModel([], {
      forward: async ({ dims }: { dims: number[] }) => ({ dims: [dims[0], 3], data: Float32Array.from({ length: dims[0]! * 3 }, (_, i) => (i === 4 ? Number.NaN : i)) }),
    });
    const { status, stdout } = await cli(['predict', 'm', black, grey, white, '--json'], { load });
    const { results } = JSON.parse(stdout) as PredictJson;
    expect(status).to.equal(1);
    expect(results.map((r) => r.error?.message ?? 'ok')).to.deep.equal(['ok', `The model's logits for ${grey} are not finite`, 'ok']);
  });

  it('predict fails as a whole when the model does', async () => {
    const load = async (): Promise<object> => fakeModel([], {
      forward: async () => { throw new Ptq4vmError('ERR_OUT_OF_MEMORY', 'too much'); },
    });
    const { status, stdout, stderr } = await cli(['predict', 'm', black, '--json'], { load });
    expect([status, stdout]).to.deep.equal([1, '']);
    expect(stderr).to.match(/too much \(a smaller --batch/);
  });

  it('predict --output writes the logits of a batch, or of a picture', async () => {
    const out = file('logits.npy');
    const { status, stdout, calls } = await cli(['predict', 'm', batch, '--output', out, '--batch', '2']);
    expect([status, stdout]).to.deep.equal([0, `wrote logits 3×3 of ${batch} to ${out}\n`]);
    expect(calls.filter(([n]) => n === 'forward').map(([, dims]) => (dims as number[])[0])).to.deep.equal([2, 1]);
    const array = await readNpy(out);
    expect([array.dtype, array.shape]).to.deep.equal(['f32', [3, 3]]);
    expect(Array.from(array.toFloat32(), (v) => v + 0)).to.deep.equal([-10, -5, 0, 0, -5, -10, 0, -5, -10]);
    const json = await cli(['predict', 'm', white, '--output', out, '--json']);
    expect(JSON.parse(json.stdout)).to.deep.equal({ results: [{ input: white, output: out, shape: [1, 3] }] });
    const bad = await cli(['predict', 'm', put(dir, 'bad.npy', 'x'), '--output', file('never.npy')]);
    expect([bad.status, bad.stdout]).to.deep.equal([1, '']);
    expect((await import('node:fs')).existsSync(file('never.npy'))).to.equal(false);
  });

  it('eval prints a report, as text and as JSON', async () => {
    const json = await cli(['eval', 'm', '--data', file('val'), '--json', '--reference', 'r']);
    expect(json.status, json.stderr).to.equal(0);
    const report = JSON.parse(json.stdout);
    expect(report).to.have.all.keys('images', 'top1', 'top5', 'imagesPerSecond', 'reference');
    expect(report).to.deep.include({ images: 3, top1: 1, top5: 1, reference: { top1: 1, agreement: 1, kl: 0, logitError: 0 } });
    expect(report.imagesPerSecond).to.be.above(0);
    const text = await cli(['eval', 'm', '--data', file('val'), '--reference', 'r']);
    expect(text.stdout).to.match(/^images {4}3\ntop-1 {5}100\.00 %\ntop-5 {5}100\.00 %\nimages\/s +[\d.]+/);
    expect(text.stdout).to.match(/against r\n(.*\n)* +relative logit error +0\n$/);
    expect(text.calls.filter(([n]) => n === 'dispose')).to.have.length(2);
  });

  it('eval takes an .npy batch with labels, or with a reference alone', async () => {
    const labelled = JSON.parse((await cli(['eval', 'm', '--data', batch, '--labels', file('y.npy'), '--json'])).stdout);
    expect(labelled).to.deep.include({ images: 3, top1: 2 / 3, top5: 1 });
    expect(labelled).to.not.have.property('reference');
    const compared = JSON.parse((await cli(['eval', 'm', '--data', batch, '--reference', 'r', '--json'])).stdout);
    expect(compared).to.have.all.keys('images', 'imagesPerSecond', 'reference');
    expect(compared.reference).to.deep.equal({ agreement: 1, kl: 0, logitError: 0 });
    expect((await cli(['eval', 'm', '--data', batch])).status).to.equal(2);
  });

  it('eval names a class folder that the model does not know', async () => {
    await picture('other/purple/0.png', 9);
    const { status, stderr, stdout } = await cli(['eval', 'm', '--data', file('other')]);
    expect([status, stdout]).to.deep.equal([1, '']);
    expect(stderr).to.match(/'purple'.*black, grey, white/);
  });

  it('notes what it ignored and assumed on stderr, unless quiet', async () => {
    put(dir, 'val/notes.txt', 'x');
    const load = async (): Promise<object> => fakeModel([], { warnings: ['stride was assumed'] });
    const loud = await cli(['eval', 'm', '--data', file('val'), '--json'], { load });
    expect(loud.stderr).to.match(/1 file in .*val ignored/).and.to.match(/stride was assumed/);
    expect(() => JSON.parse(loud.stdout)).to.not.throw();
    expect((await cli(['eval', 'm', '--data', file('val'), '-q'], { load })).stderr).to.equal('');
  });

  it('inspect prints what the file is, as text and as JSON', async () => {
    const text = await cli(['inspect', batch]);
    expect(text.stdout).to.match(/format +ptq4vm/).and.to.match(/layers\.0\.mixer\.in_proj +2×2 +W4A8 +17/).and.to.match(/head\.weight +f32 +2×2 +16/);
    expect((await cli(['inspect', batch, '--no-tensors'])).stdout).to.not.match(/head\.weight/);
    const json = JSON.parse((await cli(['inspect', batch, '--json', '--model', 'vim-tiny'])).stdout);
    expect(json).to.include.keys('format', 'family', 'config', 'tensors', 'layers');
  });

  it('doctor fails when the kernels are missing or wrong, and says the remedy', async () => {
    const missing = await cli(['doctor', '--json'], { backends: () => { throw new Ptq4vmError('ERR_ADDON_NOT_FOUND', 'no addon at a, b'); } });
    expect(missing.status).to.equal(1);
    const findings = JSON.parse(missing.stdout);
    expect(findings.ok).to.equal(false);
    expect(findings.problems[0]).to.deep.include({ what: 'no addon at a, b', fatal: true });
    expect(findings.problems[0].remedy).to.match(/npm rebuild/);
    const machine = {
      build: { version: '0', compiler: 'c', buildType: 'Release', isas: ['portable'], cudaCompiled: false, cudaToolkit: '' },
      cpu: { model: 'a CPU', physicalCores: 1, logicalCores: 2, features: [], isas: ['portable'], isa: 'portable' },
      cuda: { compiled: false, available: false, reason: 'built without CUDA.', driver: '', runtime: '', devices: [] },
    };
    const wrong = await cli(['doctor'], { backends: () => machine, ops: { gemmI8: async () => new Float32Array(15) } });
    expect(wrong.status).to.equal(1);
    expect(wrong.stdout).to.match(/integer kernel is wrong on this CPU/).and.to.match(/selected +portable/).and.to.match(/built without CUDA/);
  });
});
