/** lib/native/addon.ts: what it loads, and what it says when it cannot. The broken addons are made here. */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { Ptq4vmError } from '../../lib/errors.js';
import { addonPaths, explainLoadFailure, loadAddon, loadAddonFrom } from '../../lib/native/addon.js';

const root = path.resolve(__dirname, '../..');
const built = path.join(root, 'build', 'Release', 'ptq4vm.node');
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
const prebuilt = path.join('prebuilds', `${process.platform}-${process.arch}`, 'ptq4vm.node');

/** The error's message; anything but ERR_ADDON_NOT_FOUND fails the test. */
function failure(packageRoot: string, env: NodeJS.ProcessEnv = {}): string {
  try {
    loadAddonFrom(packageRoot, env);
  } catch (error) {
    expect(error).to.be.instanceOf(Ptq4vmError);
    expect((error as Ptq4vmError).code).to.equal('ERR_ADDON_NOT_FOUND');
    return (error as Error).message;
  }
  throw new Error('an addon was loaded');
}

describe('native: addon loader', () => {
  let directory = '';
  let count = 0;

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'ptq4vm-loader-'));
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  /** An empty package folder; dlopen remembers paths, so that every test has one of its own. */
  function packageFolder(packageVersion = version): string {
    const folder = path.join(directory, `package${count++}`);
    mkdirSync(path.join(folder, 'build', 'Release'), { recursive: true });
    mkdirSync(path.join(folder, 'build', 'Debug'), { recursive: true });
    mkdirSync(path.join(folder, path.dirname(prebuilt)), { recursive: true });
    writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ version: packageVersion }));
    return folder;
  }

  const release = (folder: string): string => path.join(folder, 'build', 'Release', 'ptq4vm.node');

  /** Compiles C to a shared library; skips the test where there is no C compiler. */
  function compile(context: Mocha.Context, source: string, file: string, ...options: string[]): void {
    if (process.platform !== 'linux' || spawnSync('gcc', ['--version'], { stdio: 'ignore' }).status !== 0) {
      console.warn('      SKIPPED: gcc on Linux is needed to make broken addons');
      context.skip();
    }
    const args = ['-shared', '-fPIC', '-x', 'c', '-', '-x', 'none', '-o', file, ...options];
    execFileSync('gcc', args, { input: source, stdio: ['pipe', 'ignore', 'inherit'] });
  }

  it('loads the addon that the build made, once', () => {
    const addon = loadAddon();
    expect(addon.build.version).to.equal(version);
    expect(loadAddon()).to.equal(addon);
    expect(addon.cpu().isas).to.include.members(['reference', 'portable']);
    expect(addon.build.isas).to.include.members([...addon.cpu().isas]);
    expect(addon.cpu().physicalCores).to.be.within(1, os.cpus().length);
    const cuda = addon.cuda();
    expect(cuda.compiled).to.equal(addon.build.cudaCompiled);
    expect(cuda.reason === '').to.equal(cuda.available);
    if (!cuda.available) expect(cuda.reason).to.match(/driver|GPU|nvcc/);
  });

  it('lists every place and the remedies when nothing is there', () => {
    const folder = packageFolder();
    const message = failure(folder);
    for (const place of [release(folder), path.join(folder, 'build', 'Debug', 'ptq4vm.node'), path.join(folder, prebuilt)]) {
      expect(message).to.include(`${place}: there is no such file`);
    }
    expect(message).to.match(/What to do:\n.*npm rebuild ptq4vm-native/);
    expect(message).to.include('--ignore-scripts');
    expect(message).to.include(`${process.platform} on ${process.arch}`);
    expect(message).to.not.include('install.log');
  });

  it('names the log of the last build when there is one', () => {
    const folder = packageFolder();
    writeFileSync(path.join(folder, 'build', 'install.log'), '');
    expect(failure(folder)).to.include(path.join(folder, 'build', 'install.log'));
  });

  it('goes on to the next place', () => {
    for (const place of [path.join('build', 'Debug', 'ptq4vm.node'), prebuilt]) {
      const folder = packageFolder();
      writeFileSync(release(folder), 'not a library');
      copyFileSync(built, path.join(folder, place));
      expect(loadAddonFrom(folder, {}).build.version).to.equal(version);
    }
  });

  it('takes PTQ4VM_ADDON, and nothing else when it is set', () => {
    const folder = packageFolder();
    expect(loadAddonFrom(folder, { PTQ4VM_ADDON: built }).build.version).to.equal(version);
    copyFileSync(built, release(folder));
    const missing = path.join(folder, 'other.node');
    const message = failure(folder, { PTQ4VM_ADDON: missing });
    expect(message).to.include(`${missing}: there is no such file`);
    expect(message).to.not.include(release(folder));
    expect(message).to.include('unset PTQ4VM_ADDON');
    expect(addonPaths(folder, { PTQ4VM_ADDON: 'x.node' })).to.deep.equal([path.resolve('x.node')]);
  });

  it('recognizes damaged files', () => {
    for (const content of ['', 'not a library at all', readFileSync(built).subarray(0, 4000)]) {
      const folder = packageFolder();
      writeFileSync(release(folder), content);
      const message = failure(folder);
      expect(message).to.include(`${release(folder)}: it is damaged`);
    }
  });

  it('recognizes addons of other systems', () => {
    const elf = (machine: number): Buffer => {
      const header = Buffer.alloc(64);
      header.write('\x7fELF', 'latin1');
      header.set([2, 1, 1], 4);
      header.writeUInt16LE(3, 16);
      header.writeUInt16LE(machine, 18);
      return header;
    };
    const machO = Buffer.alloc(64);
    machO.writeUInt32LE(0xfeedfacf, 0);
    machO.writeUInt32LE(0x0100000c, 4);
    const other = process.arch === 'arm64' ? { machine: 62, name: 'x64' } : { machine: 183, name: 'arm64' };
    const cases: [Buffer, string][] = [
      [elf(other.machine), `it was built for linux on ${other.name}`],
      [elf(9999), 'it was built for linux on machine 9999'],
      ...(process.platform === 'darwin' ? [] : ([[machO, 'it was built for darwin on arm64']] as [Buffer, string][])),
      ...(process.platform === 'win32' ? [] : ([[Buffer.from('MZ'.padEnd(64, '\0')), 'it was built for win32']] as [Buffer, string][])),
    ];
    for (const [content, expected] of cases) {
      const folder = packageFolder();
      writeFileSync(release(folder), content);
      const message = failure(folder);
      expect(message).to.include(`${release(folder)}: ${expected}, this is ${process.platform} on ${process.arch}`);
    }
  });

  it('names a missing symbol', function () {
    const folder = packageFolder();
    compile(this, 'void ptq4vm_no_such_function(void); void f(void) { ptq4vm_no_such_function(); }', release(folder), '-Wl,-z,now');
    expect(failure(folder)).to.include('it lacks the symbol ptq4vm_no_such_function');
  });

  it('names a missing library', function () {
    const folder = packageFolder();
    const library = path.join(folder, 'libptq4vm_gone.so');
    compile(this, 'int gone(void) { return 1; }', library, '-Wl,-soname,libptq4vm_gone.so');
    compile(this, 'int gone(void); int f(void) { return gone(); }', release(folder), library);
    rmSync(library);
    expect(failure(folder)).to.include('it needs the library libptq4vm_gone.so, which is not installed');
  });

  it('names a system library that is too old', () => {
    const words = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by /x/ptq4vm.node)";
    expect(explainLoadFailure('/x/ptq4vm.node', words)).to.match(/^it needs a newer system library than this one \(GLIBC_2\.99\)/);
  });

  it('recognizes libraries that are no addon, and other addons', function () {
    const plain = packageFolder();
    compile(this, 'int f(void) { return 1; }', release(plain));
    expect(failure(plain)).to.include('it was built for another kind of Node.js');

    const foreign = packageFolder();
    const source = 'void *napi_register_module_v1(void *env, void *exports) { (void)env; return exports; }';
    compile(this, source, release(foreign));
    expect(failure(foreign)).to.include('it loads, but it is not the addon of ptq4vm-native');
  });

  it('refuses an addon of another version', () => {
    const folder = packageFolder('99.0.0');
    copyFileSync(built, release(folder));
    expect(failure(folder)).to.include(`it was built from version ${version} of the sources, this package is version 99.0.0`);
  });
});
