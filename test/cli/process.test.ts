/** The real thing: `ptq4vm` as a process, with the native addon and the trained shapes model. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { backends } from '../../lib/device.js';
import { npyBytes, put, temporaryFolder } from '../data/support.js';
import { shapes } from './support.js';

const MAIN = path.resolve(__dirname, '../../lib/cli/main.ts');

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function start(args: readonly string[]): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
}

function ended(child: ChildProcess): Promise<Ended> {
  let stdout = '';
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => { stdout += chunk; });
  child.stderr!.on('data', (chunk: Buffer) => { stderr += chunk; });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout, stderr }));
  });
}

const ptq4vm = (...args: string[]): Promise<Ended> => ended(start(args));

/** stderr once it holds `text`. */
function said(child: ChildProcess, text: RegExp): Promise<void> {
  let all = '';
  return new Promise((resolve, reject) => {
    child.stderr!.on('data', (chunk: Buffer) => {
      all += chunk;
      if (text.test(all)) resolve();
    });
    child.on('close', () => reject(new Error(`ended without saying ${text}: ${all}`)));
  });
}

describe('command line: as a process', function () {
  this.timeout(120_000);
  const dir = temporaryFolder();
  const out = (name: string): string => path.join(dir, name);
  let quantized: string | undefined;

  before(function () {
    try {
      backends();
    } catch (error) {
      console.warn(`      SKIPPED: ${(error as Error).message.split('\n')[0]}`);
      this.skip();
    }
  });

  /** The quantized shapes model, made by the command line, once. */
  async function w8a8(context: Mocha.Context): Promise<string> {
    const { model, config, calib } = shapes(context);
    if (quantized === undefined) {
      const file = out('w8a8.safetensors');
      const args = ['quantize', model, '--config', config, '--calibration', calib, '--weights', '8', '--activations', '8', '--samples', '64', '--output', file, '--json'];
      const { status, stdout, stderr } = await ptq4vm(...args);
      expect(status, stderr).to.equal(0);
      const summary = JSON.parse(stdout);
      expect(summary).to.include({ output: file, bytes: statSync(file).size, weights: 8, activations: 8, method: 'ptq4vm', calibrationImages: 64 });
      expect(summary.layers).to.equal(36);
      expect(summary.bytes).to.be.below(summary.inputBytes / 2);
      quantized = file;
    }
    return quantized;
  }

  it('doctor finds that CPU inference works', async () => {
    const { status, stdout, stderr } = await ptq4vm('doctor', '--json');
    expect([status, stderr]).to.deep.equal([0, '']);
    const findings = JSON.parse(stdout);
    expect(findings.ok).to.equal(true);
    expect(findings.backends.cpu.isas).to.include(findings.backends.cpu.isa);
    expect(findings.sharp).to.match(/^\d/);
  });

  it('quantize, inspect, eval, predict on real pictures', async function () {
    const { model, config, val } = shapes(this);
    const file = await w8a8(this);
    const inspected = JSON.parse((await ptq4vm('inspect', file, '--json')).stdout);
    expect(inspected.family).to.equal('vim');
    expect(Object.values(inspected.layers)).to.have.length(36);
    expect(inspected.layers['layers.0.mixer.in_proj']).to.include({ weightBits: 8, actBits: 8, len: 65 });
    const { status, stdout, stderr } = await ptq4vm('eval', file, '--data', val, '--reference', model, '--config', config, '--json');
    expect(status, stderr).to.equal(0);
    const report = JSON.parse(stdout);
    expect(report.images).to.be.above(0);
    expect(report.top1).to.be.above(0.87);
    expect(report.reference.top1).to.be.above(0.87);
    expect(report.reference.agreement).to.be.above(0.95);
    expect(report.reference.logitError).to.be.within(0.001, 0.15);
    const one = path.join(val, 'star', readdirSync(path.join(val, 'star'))[0]!);
    const bad = put(dir, 'bad.png', 'x');
    const predicted = await ptq4vm('predict', file, one, bad, '--json');
    const { results } = JSON.parse(predicted.stdout);
    expect([predicted.status, results[0].top.length, results[1].error.code]).to.deep.equal([1, 5, 'ERR_DATA']);
    expect(results[0].top[0].score).to.be.within(0.1, 1);
  });

  it('the same file gives the same logits, bit for bit', async function () {
    const file = await w8a8(this);
    const x = put(dir, 'x.npy', npyBytes('<f4', [3, 3, 64, 64], Float32Array.from({ length: 3 * 12288 }, (_, i) => Math.sin(i / 50) * 1.5)));
    for (const [name, batch] of [['a.npy', '3'], ['b.npy', '1']] as const) {
      const { status, stderr } = await ptq4vm('predict', file, x, '--output', out(name), '--batch', batch);
      expect(status, stderr).to.equal(0);
    }
    expect(readFileSync(out('a.npy')).equals(readFileSync(out('b.npy')))).to.equal(true);
  });

  it('a mistake exits 2, a failure 1, both in one line without a stack', async function () {
    const { model } = shapes(this);
    const mistake = await ptq4vm('eval', model, '--data', dir, '--batch', 'many');
    expect([mistake.status, mistake.stdout]).to.deep.equal([2, '']);
    for (const args of [['inspect', out('nowhere.pth')], ['inspect', put(dir, 'junk.pth', 'junk')], ['predict', model, 'x.jpg', '--device', 'cuda', '--model', 'nobody']]) {
      const { status, stdout, stderr } = await ptq4vm(...args);
      expect([status, stdout], stderr).to.deep.equal([1, '']);
      expect(stderr).to.match(/^ptq4vm: [^\n]+\n$/);
    }
  });

  it('a reader that goes away is no failure', async function () {
    const { model, config } = shapes(this);
    const child = start(['inspect', model, '--config', config, '--json']);
    child.stdout!.destroy();
    let stderr = '';
    child.stderr!.on('data', (chunk: Buffer) => { stderr += chunk; });
    const status = await new Promise((resolve) => child.on('exit', resolve));
    expect([status, stderr]).to.deep.equal([0, '']);
  });

  for (const [signal, status] of [['SIGINT', 130], ['SIGTERM', 143]] as const) {
    it(`${signal} ends quantize with ${status} and leaves nothing behind`, async function () {
      if (process.platform === 'win32') this.skip();
      const { model, config, calib } = shapes(this);
      const folder = path.dirname(put(dir, `${signal}/keep`, ''));
      const child = start(['quantize', model, '--config', config, '--calibration', calib, '--weights', '4', '--activations', '4', '--threads', '1', '--output', path.join(folder, 'q.safetensors')]);
      const end = ended(child);
      // The note comes when the model is loaded: calibration has just begun.
      await said(child, /equals pts\+smooth/);
      child.kill(signal);
      const { status: got, stdout, stderr } = await end;
      expect([got, stdout]).to.deep.equal([status, '']);
      expect(stderr).to.match(/ptq4vm: interrupted\n$/);
      expect(readdirSync(folder)).to.deep.equal(['keep']);
    });
  }

  it('classifies in the examples', async function () {
    const dist = path.resolve(__dirname, '../../dist/index.mjs');
    if (!existsSync(dist)) {
      console.warn('      SKIPPED: dist/ is not built');
      this.skip();
    }
    const { val } = shapes(this);
    const file = await w8a8(this);
    const picture = path.join(val, 'disk', readdirSync(path.join(val, 'disk'))[0]!);
    const examples = path.resolve(__dirname, '../../examples');
    const classified = await ended(spawn(process.execPath, [path.join(examples, 'classify.mjs'), file, picture], { stdio: ['ignore', 'pipe', 'pipe'] }));
    expect(classified.status, classified.stderr).to.equal(0);
    expect(classified.stdout).to.match(/: \w+ \d+\.\d %, /);
    const server = spawn(process.execPath, [path.join(examples, 'http-server.mjs'), file, '0'], { stdio: ['ignore', 'pipe', 'pipe'] });
    try {
      const url = await new Promise<string>((resolve, reject) => {
        server.stdout.on('data', (chunk: Buffer) => resolve(/http:\S+/.exec(String(chunk))![0]));
        server.on('close', () => reject(new Error('the server ended')));
      });
      const good = await fetch(url, { method: 'POST', body: readFileSync(picture) });
      expect([good.status, ((await good.json()) as { top: unknown[] }).top.length]).to.deep.equal([200, 5]);
      expect((await fetch(url, { method: 'POST', body: 'no picture' })).status).to.equal(400);
      expect((await fetch(url)).status).to.equal(405);
    } finally {
      server.kill('SIGINT');
    }
    await new Promise((resolve) => (server.exitCode === null ? server.on('exit', resolve) : resolve(undefined)));
    expect(server.exitCode).to.equal(0);
  });
});
