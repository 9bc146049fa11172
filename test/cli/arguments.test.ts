import path from 'node:path';
import { expect } from 'chai';
import { readClassNames } from '../../lib/cli/options.js';
import { Ptq4vmError } from '../../lib/errors.js';
import { noise, png, put, rejection, temporaryFolder } from '../data/support.js';
import { cli, given } from './support.js';

describe('command line: arguments', () => {
  const dir = temporaryFolder();
  const file = (name: string): string => path.join(dir, name);
  let model: string;
  let pictures: string;
  before(async () => {
    model = put(dir, 'model.pth', 'weights');
    pictures = path.dirname(put(dir, 'calib/1.png', await png(noise(2, 2))));
  });

  const VERBS = ['doctor', 'inspect', 'predict', 'quantize', 'eval'];

  it('prints help with examples for every verb, on stdout', async () => {
    for (const args of [['--help'], ['help'], ...VERBS.map((v) => [v, '--help']), ...VERBS.map((v) => ['help', v])]) {
      const { status, stdout, stderr, calls } = await cli(args);
      expect([status, stderr, calls], args.join(' ')).to.deep.equal([0, '', []]);
      expect(stdout).to.match(/Usage: ptq4vm/).and.to.match(/Examples:\n {2}ptq4vm/);
    }
    const { stdout } = await cli(['--help']);
    for (const verb of VERBS) expect(stdout).to.include(`  ${verb} `);
    for (const later of ['bench', 'report', 'serve']) expect(stdout).to.not.match(new RegExp(`^ +${later} `, 'm'));
    expect((await cli(['--version'])).stdout).to.match(/^\d+\.\d+\.\d+\n$/);
  });

  const q = (...more: string[]): string[] => ['quantize', model, '--calibration', pictures, '--weights', '8', '--activations', '8', '--output', file('q.safetensors'), ...more];
  const wrong: [string, () => string[], RegExp][] = [
    ['nothing', () => [], /Usage/],
    ['an unknown verb', () => ['frobnicate'], /unknown command 'frobnicate'/],
    ['a verb of later', () => ['serve', 'x'], /unknown command/],
    ['an unknown option', () => ['doctor', '--frob'], /unknown option '--frob'/],
    ['a missing argument', () => ['inspect'], /missing required argument/],
    ['too many arguments', () => ['inspect', 'a', 'b'], /too many arguments/],
    ['no inputs', () => ['predict', 'm'], /missing required argument 'inputs'/],
    ['no data', () => ['eval', 'm'], /--data/],
    ['an option without value', () => ['eval', 'm', '--data'], /argument missing/],
    ['no bits', () => ['quantize', 'm', '--calibration', 'd', '--output', 'o'], /--weights/],
    ['5 bits', () => q('--weights', '5'), /8, 6 or 4 for --weights.*'5'/],
    ['bits in words', () => q('--activations', 'eight'), /--activations/],
    ['an unknown method', () => q('--method', 'magic'), /minmax.*'magic'/],
    ['a method of later', () => q('--method', 'jlss'), /'jlss'/],
    ['grid neither on nor off', () => q('--grid', 'maybe'), /--grid/],
    ['alpha above 1', () => q('--alpha', '1.5'), /--alpha/],
    ['alpha in words', () => q('--alpha', ''), /--alpha/],
    ['no samples', () => q('--samples', '0'), /--samples/],
    ['half a sample', () => q('--samples', '1.5'), /--samples/],
    ['a negative seed', () => q('--seed', '-1'), /--seed/],
    ['no threads', () => q('--threads', '0'), /--threads/],
    ['an unknown device', () => q('--device', 'tpu'), /auto, cpu, cuda.*'tpu'/],
    ['precision for quantize', () => q('--precision', 'int'), /unknown option/],
    ['an unknown precision', () => ['eval', 'm', '--data', 'd', '--precision', 'int3'], /--precision/],
    ['an empty batch', () => ['eval', 'm', '--data', 'd', '--batch', '0'], /--batch/],
    ['no top', () => ['predict', 'm', 'x.jpg', '--top-k', '0'], /--top-k/],
    ['labels for a folder', () => ['eval', model, '--data', pictures, '--labels', 'y.npy'], /--labels goes with an \.npy/],
    ['nothing to compare with', () => ['eval', model, '--data', pictures], /no labels.*--reference/],
    ['logits of two inputs', () => ['predict', model, 'a.npy', 'b.npy', '--output', file('o.npy')], /one input but received 2/],
    ['logits to another format', () => ['predict', model, 'a.npy', '--output', file('o.txt')], /\.npy/],
    ['its own input as output', () => q('--output', model), /overwrite the input/],
    ['its own input, spelled differently', () => q('--output', path.join(dir, 'calib', '..', 'model.pth')), /overwrite/],
    ['its own batch as output', () => ['predict', model, file('x.npy'), '--output', file('x.npy')], /overwrite/],
  ];
  for (const [name, args, message] of wrong) {
    it(`exits 2 for ${name}, on stderr only`, async () => {
      const { status, stdout, stderr, calls } = await cli(args());
      expect(status, stderr).to.equal(2);
      expect(stderr).to.match(message);
      expect(stdout).to.equal('');
      expect(calls.filter(([n]) => n === 'quantize' || n === 'save')).to.deep.equal([]);
    });
  }

  it('hands every option of quantize on', async () => {
    const answer = await cli(q('--method', 'minmax', '--grid', 'on', '--alpha', '0.25', '--samples', '17', '--seed', '5', '--weights', '4',
      '--activations', '6', '--device', 'cpu', '--threads', '3', '--config', 'c.json', '--model', 'vim-tiny'));
    expect(answer.status, answer.stderr).to.equal(0);
    expect(given(answer, 'load')).to.include({ device: 'cpu', threads: 3, config: 'c.json', model: 'vim-tiny' });
    const options = given(answer, 'quantize');
    expect(options).to.include({ method: 'minmax', grid: true, alpha: 0.25, samples: 17, seed: 5, weights: 4, activations: 6 });
    expect((options.calibration as { length: number }).length).to.equal(1);
    expect(answer.calls.filter(([n]) => n === 'dispose')).to.have.length(2);
  });

  it('leaves defaults to the method', async () => {
    const answer = await cli(q());
    const options = given(answer, 'quantize');
    expect(options).to.include({ method: 'ptq4vm', samples: 256, seed: 0 });
    expect(options).to.not.have.any.keys('grid', 'alpha');
    expect(given(await cli(q('--grid', 'off')), 'quantize')).to.include({ grid: false });
    expect(given(answer, 'load')).to.include({ device: 'auto', threads: undefined });
  });

  it('summarises quantize, as text and as JSON, with the notes elsewhere', async () => {
    const text = await cli(q());
    expect(text.stdout).to.match(/^wrote +.*q\.safetensors\nlayers +1 linear, weights 8 bits, activations 8 bits\n/);
    expect(text.stdout).to.match(/calibrated on +1 of 1 picture/).and.to.match(/size +7 B → 9 B/);
    expect(text.stderr).to.match(/equals pts\+smooth/);
    const json = await cli(q('--json', '--quiet'));
    expect(json.stderr).to.equal('');
    expect(JSON.parse(json.stdout)).to.deep.include({ output: file('q.safetensors'), bytes: 9, inputBytes: 7, layers: 1, weights: 8, activations: 8, method: 'ptq4vm', calibrationImages: 1 });
    expect((await cli(q('--method', 'pts'))).stderr).to.equal('');
  });

  it('refuses an output that cannot be written before any work', async () => {
    for (const output of [file('nowhere/q.safetensors'), dir]) {
      const { status, stderr, calls } = await cli([...q().slice(0, -1), output]);
      expect([status, calls]).to.deep.equal([1, []]);
      expect(stderr).to.match(/^ptq4vm: Cannot write /);
    }
  });

  it('gives the configuration to the files that need it', async () => {
    put(dir, 'val/grey/1.png', await png(noise(2, 2)));
    const described = async (...files: string[]): Promise<unknown[]> => {
      const { calls, stderr } = await cli(['eval', ...files, '--data', file('val'), '--config', 'c.json', '--precision', 'fp32']);
      const loads = calls.filter(([n]) => n === 'load');
      expect(loads.length, stderr).to.be.above(0);
      return loads.map(([, name, options]) => [name, (options as { config?: string }).config, (options as { precision?: string }).precision]);
    };
    expect(await described('float')).to.deep.equal([['float', 'c.json', 'fp32']]);
    expect(await described('quantized', '--reference', 'float')).to.deep.equal([['quantized', undefined, 'fp32'], ['float', 'c.json', undefined]]);
    expect(await described('a', '--reference', 'b')).to.deep.equal([['a', 'c.json', 'fp32'], ['b', 'c.json', undefined]]);
    expect(await described('quantized'), 'and lets load refuse it').to.deep.equal([['quantized', 'c.json', 'fp32']]);
    expect(await described('a', '--reference', 'quantized')).to.deep.equal([['a', 'c.json', 'fp32'], ['quantized', undefined, undefined]]);
  });

  it('reads class names from lines and from JSON', async () => {
    const names = ['tabby cat', 'dog', 'zèbre'];
    expect(await readClassNames(put(dir, 'a.txt', 'tabby cat\r\ndog\nzèbre\n\n'))).to.deep.equal(names);
    expect(await readClassNames(put(dir, 'a.json', `\ufeff${JSON.stringify(names)}`))).to.deep.equal(names);
    for (const [content, message] of [['', /no class names/], ['a\n\nb', /class name 1 is empty/], ['[1, 2]', /array of strings/], ['[', /not JSON/]] as const) {
      const error = await rejection(readClassNames(put(dir, 'bad', content)));
      expect([error.code, message.test(error.message)], error.message).to.deep.equal(['ERR_DATA', true]);
    }
    const answer = await cli(['eval', model, '--data', file('val'), '--class-names', put(dir, 'c.txt', 'black\ngrey\nwhite')]);
    expect(given(answer, 'load').labels).to.deep.equal(['black', 'grey', 'white']);
    expect((await cli(['eval', model, '--data', file('val'), '--class-names', file('nowhere')])).status).to.equal(1);
  });

  it('says an error in one line with a hint, and its stack only when asked', async () => {
    const load = async (): Promise<never> => {
      throw new Ptq4vmError('ERR_DEVICE', "device 'cuda' cannot be used: no driver", { cause: new Error('inner') });
    };
    const short = await cli(['eval', model, '--data', file('val'), '--device', 'cuda'], { load });
    expect([short.status, short.stdout]).to.deep.equal([1, '']);
    expect(short.stderr).to.equal("ptq4vm: device 'cuda' cannot be used: no driver ('ptq4vm doctor' says what this machine offers)\n");
    const long = await cli(['eval', model, '--data', file('val'), '--verbose'], { load });
    expect(long.stderr).to.match(/\n {4}at .*\n[^]*caused by Error: inner/);
  });

  it('exits 130 when interrupted, and disposes of the model', async () => {
    const { Interrupted } = await import('../../lib/cli/environment.js');
    const controller = new AbortController();
    const quantize = async (_: unknown, { signal }: { signal: AbortSignal }): Promise<never> => {
      controller.abort(new Interrupted(143));
      return signal.throwIfAborted() as never;
    };
    const answer = await cli(q('--quiet'), { quantize }, { signal: controller.signal });
    expect([answer.status, answer.stdout, answer.stderr]).to.deep.equal([143, '', 'ptq4vm: interrupted\n']);
    expect(answer.calls.map(([n]) => n)).to.deep.equal(['load', 'dispose']);
  });
});
