/**
 * The package as a stranger gets it: `npm pack`, `npm install` of the tarball into an empty project (which compiles the
 * addon there, CPU only to save time), then require, import, TypeScript, the command line, other versions of Node.js.
 */
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { isOffline, median, npm, root, run, runWell, skip, temporaryFolder, writeFiles } from './support.js';

const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };

/** Prints what the package is and that its addon loads, in one line of JSON. Import adds names of its own (__esModule, module.exports). */
const PROBE = `
const cpu = api.backends().cpu;
const names = Object.keys(api).filter((name) => !/^__|\\./.test(name)).sort();
console.log(JSON.stringify({ names, isa: cpu.isa, load: typeof api.load, node: process.versions.node }));
`;

interface Probe {
  readonly names: readonly string[];
  readonly isa: string;
  readonly load: string;
  readonly node: string;
}

describe('package: tarball', function () {
  this.timeout(15 * 60_000);
  let folder = '';
  let project = '';
  let installed = '';
  let tarball = '';
  let files: string[] = [];

  before(async function () {
    folder = temporaryFolder('pack');
    const output = await runWell(npm, ['pack', '--json', '--pack-destination', folder], { cwd: root });
    const [report] = JSON.parse(output.slice(output.indexOf('['))) as [{ filename: string; files: { path: string }[] }];
    tarball = path.join(folder, report.filename);
    files = report.files.map((file) => file.path);

    project = path.join(folder, 'project');
    installed = path.join(project, 'node_modules', 'ptq4vm-native');
    writeFiles(project, { 'package.json': JSON.stringify({ name: 'stranger', version: '1.0.0', private: true }) });
    const install = await run(npm, ['install', tarball, '--no-audit', '--no-fund', '--prefer-offline'], {
      cwd: project,
      env: { PTQ4VM_CUDA: 'off' },
    });
    if (isOffline(install) && install.status !== 0) skip(this, 'the dependencies could not be downloaded');
    if (install.status !== 0) throw new Error(`npm install of the tarball failed\n${install.stdout}\n${install.stderr}`);
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  it('is below 2 MB and holds what it needs, nothing else', () => {
    expect(statSync(tarball).size).to.be.below(2e6);
    expect(files).to.include.members(['dist/index.js', 'dist/index.mjs', 'dist/index.d.ts', 'dist/cli/main.js']);
    expect(files).to.include.members(['CMakeLists.txt', 'binding.gyp', 'LICENSE', 'scripts/install.js', 'native/bindings/addon.cpp']);
    const allowed = /^(dist|native|scripts|docs)\/|^(CMakeLists\.txt|binding\.gyp|package\.json|LICENSE|README\.md|CHANGELOG\.md)$/;
    expect(files.filter((file) => !allowed.test(file))).to.deep.equal([]);
    expect(files.filter((file) => /^native\/test\/|\.(pth|pt|safetensors|npy|npz|jpe?g|node|o|a)$/.test(file))).to.deep.equal([]);
    // Every source has its output, and no output is left of a source that is gone.
    const sources = readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter((file) => /\.m?ts$/.test(file));
    const outputs = sources.flatMap((file) => {
      const stem = `dist/${file.split(path.sep).join('/').replace(/ts$/, '')}`;
      return [`${stem}js`, stem.replace(/(\.m?)$/, '.d$1ts')];
    });
    expect(files.filter((file) => file.startsWith('dist/'))).to.have.members(outputs);
  });

  it('was built at its installation', () => {
    expect(existsSync(path.join(installed, 'build', 'Release', 'ptq4vm.node'))).to.equal(true);
  });

  let required: Probe;

  it('works by require', async () => {
    const output = await runWell(process.execPath, ['-e', `const api = require('ptq4vm-native');${PROBE}`], { cwd: project });
    required = JSON.parse(output) as Probe;
    expect(required.load).to.equal('function');
    expect(required.isa).to.not.equal('');
    expect(required.names).to.include.members(['load', 'quantize', 'backends', 'Ptq4vmError', 'ops', 'imageFolder']);
  });

  it('works by import, with named exports, from the same module instance', async () => {
    writeFiles(project, {
      'probe.mjs': `import * as api from 'ptq4vm-native';
import { load, Ptq4vmError } from 'ptq4vm-native';
import { createRequire } from 'node:module';
const required = createRequire(import.meta.url)('ptq4vm-native');
if (load !== required.load || Ptq4vmError !== required.Ptq4vmError) throw new Error('two instances');
${PROBE}`,
    });
    const imported = JSON.parse(await runWell(process.execPath, ['probe.mjs'], { cwd: project })) as Probe;
    expect(imported.names).to.deep.equal(required.names);
  });

  it('has a command line', async () => {
    const command = path.join(project, 'node_modules', '.bin', process.platform === 'win32' ? 'ptq4vm.cmd' : 'ptq4vm');
    expect((await runWell(command, ['--version'], { cwd: project })).trim()).to.equal(version);
    const doctor = JSON.parse(await runWell(command, ['doctor', '--json'], { cwd: project })) as object;
    expect(JSON.stringify(doctor)).to.include(required.isa);
  });

  it('says what to do when its addon is gone', async () => {
    const env = { PTQ4VM_ADDON: path.join(project, 'nowhere.node') };
    const { status, stderr } = await run(process.execPath, ['-e', "require('ptq4vm-native').backends()"], { cwd: project, env });
    expect(status).to.equal(1);
    expect(stderr).to.match(/ERR_ADDON_NOT_FOUND/).and.include('nowhere.node: there is no such file');
  });

  describe('types', () => {
    const program = `import { load, quantize, imageFolder, Ptq4vmError, type Prediction } from 'ptq4vm-native';
export async function main(): Promise<Prediction | undefined> {
  const model = await load('model.pth', { device: 'auto' });
  try {
    const quantized = await quantize(model, { weights: 8, activations: 8, calibration: imageFolder('calibration') });
    await quantized.save('model.safetensors');
    const [top] = await quantized.predict('cat.jpg', { topK: 5 });
    await quantized.dispose();
    return top;
  } catch (error) {
    if (error instanceof Ptq4vmError) console.error(error.code);
    throw error;
  }
}
`;
    const settings: Readonly<Record<string, { type: string; options: Record<string, unknown> }>> = {
      'Node16, ES modules': { type: 'module', options: { module: 'Node16', moduleResolution: 'Node16' } },
      'Node16, CommonJS': { type: 'commonjs', options: { module: 'Node16', moduleResolution: 'Node16' } },
      bundler: { type: 'module', options: { module: 'ESNext', moduleResolution: 'bundler' } },
    };

    function compile(name: string, source: string, index: number): Promise<{ status: number; stdout: string }> {
      const { type, options } = settings[name]!;
      const place = path.join(project, `types${index}`);
      writeFiles(place, {
        'package.json': JSON.stringify({ type }),
        'main.ts': source,
        'tsconfig.json': JSON.stringify({
          compilerOptions: {
            target: 'ES2022',
            strict: true,
            noEmit: true,
            skipLibCheck: false,
            types: ['node'],
            typeRoots: [path.join(root, 'node_modules', '@types')],
            ...options,
          },
          files: ['main.ts'],
        }),
      });
      const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
      return run(process.execPath, [tsc, '-p', place], { cwd: place });
    }

    Object.keys(settings).forEach((name, index) => {
      it(`are right for TypeScript with ${name}`, async () => {
        const good = await compile(name, program, 2 * index);
        expect(good.stdout).to.equal('');
        expect(good.status).to.equal(0);
        const bad = await compile(name, program.replace('weights: 8', "weights: 'eight'"), 2 * index + 1);
        expect(bad.stdout).to.include('main.ts(5').and.match(/error TS2\d+/);
      });
    });
  });

  describe('start-up', () => {
    it('takes less than 100 ms to require (median of 9)', async () => {
      const script = "const t = performance.now(); require('ptq4vm-native'); console.log(performance.now() - t)";
      const times: number[] = [];
      for (let i = 0; i < 9; i++) times.push(Number(await runWell(process.execPath, ['-e', script], { cwd: project })));
      console.log(`      require: ${median(times).toFixed(1)} ms (${Math.min(...times).toFixed(1)}–${Math.max(...times).toFixed(1)})`);
      expect(median(times)).to.be.below(100);
    });

    it('loads neither the addon nor any dependency', async () => {
      const script = "require('ptq4vm-native'); console.log(JSON.stringify(Object.keys(require.cache)))";
      const loaded = JSON.parse(await runWell(process.execPath, ['-e', script], { cwd: project })) as string[];
      expect(loaded).to.not.be.empty;
      const own = path.join(installed, 'dist') + path.sep;
      expect(loaded.filter((file) => !file.startsWith(own)).map((file) => path.relative(project, file))).to.deep.equal([]);
    });
  });

  describe('Node.js', () => {
    // npm's packages node-<platform>-<arch> hold nothing but the binary.
    for (const major of [20, 22, 24]) {
      it(`${major} runs it`, async function () {
        let node = process.execPath;
        if (Number(process.versions.node.split('.')[0]) !== major) {
          const place = path.join(root, '.cache', `node-${major}`);
          const name = `node-${process.platform}-${process.arch}`;
          node = path.join(place, 'node_modules', name, 'bin', 'node');
          if (!existsSync(node)) {
            writeFiles(place, { 'package.json': '{"private":true}' });
            const fetched = await run(npm, ['install', `${name}@${major}`, '--no-audit', '--no-fund', '--ignore-scripts'], { cwd: place });
            if (fetched.status !== 0 || !existsSync(node)) skip(this, `Node.js ${major}: npm's ${name}@${major} is not to be had`);
          }
        }
        const byRequire = await runWell(node, ['-e', `const api = require('ptq4vm-native');${PROBE}`], { cwd: project });
        const probe = JSON.parse(byRequire) as Probe;
        expect(probe.node).to.match(new RegExp(`^${major}\\.`));
        expect({ ...probe, node: '' }).to.deep.equal({ ...required, node: '' });
        const byImport = await runWell(node, ['probe.mjs'], { cwd: project });
        expect((JSON.parse(byImport) as Probe).names).to.deep.equal(required.names);
      });
    }
  });

  it('builds by node-gyp too, with the same result', async function () {
    if ((await run('python3', ['--version'], { cwd: project })).status !== 0) skip(this, 'node-gyp needs Python 3');
    const env = { PTQ4VM_BUILD: 'gyp', PTQ4VM_CUDA: 'off' };
    const output = await runWell(npm, ['rebuild', 'ptq4vm-native', '--foreground-scripts'], { cwd: project, env });
    expect(output).to.include('built by node-gyp');
    const probe = await runWell(process.execPath, ['-e', `const api = require('ptq4vm-native');${PROBE}`], { cwd: project });
    expect(JSON.parse(probe)).to.deep.equal(required);
  });
});
