/** scripts/install.js: what it builds, when it does not, and what it says then. */
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { buildFolder, type Outcome, run, writeFiles } from './support.js';

describe('package: scripts/install.js', function () {
  this.timeout(5 * 60_000);
  let folder = '';

  before(() => {
    folder = buildFolder('install');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const install = (env: NodeJS.ProcessEnv): Promise<Outcome> => run(process.execPath, ['scripts/install.js'], { cwd: folder, env });

  /** A PATH on which only these programs are, each a script. */
  function pathWith(name: string, programs: Readonly<Record<string, string>>): string {
    const bin = path.join(folder, name);
    mkdirSync(bin, { recursive: true });
    if (!existsSync(path.join(bin, 'node'))) symlinkSync(process.execPath, path.join(bin, 'node'));
    for (const [program, script] of Object.entries(programs)) {
      writeFiles(bin, { [program]: `#!/bin/sh\n${script}\n` });
      chmodSync(path.join(bin, program), 0o755);
    }
    return bin;
  }

  it('does nothing when told so', async () => {
    const { status, stdout } = await install({ PTQ4VM_SKIP_BUILD: '1' });
    expect(status).to.equal(0);
    expect(stdout).to.include('nothing built');
    expect(existsSync(path.join(folder, 'build'))).to.equal(false);
  });

  it('refuses settings it does not know', async () => {
    for (const [name, value] of [['PTQ4VM_BUILD', 'make'], ['PTQ4VM_CUDA', 'maybe']] as const) {
      const { status, stderr } = await install({ [name]: value });
      expect(status).to.not.equal(0);
      expect(stderr).to.include(`for ${name} but received '${value}'`);
    }
  });

  it('lists every route, its reason and the remedies when nothing can build', async function () {
    if (process.platform === 'win32') this.skip();
    const { status, stderr } = await install({ PATH: pathWith('nothing', {}), PTQ4VM_CUDA: 'off' });
    expect(status).to.equal(1);
    expect(stderr).to.match(/- cmake-js: cmake was not found on PATH/);
    expect(stderr).to.match(/- node-gyp: (python3|node-gyp) was not found/);
    expect(stderr).to.include('What to do:').and.include('install a C++17 compiler and CMake').and.include('npm rebuild ptq4vm-native');
    expect(readFileSync(path.join(folder, 'build', 'install.log'), 'utf8')).to.include('cmake was not found');
  });

  it('tries only the route that PTQ4VM_BUILD names', async function () {
    if (process.platform === 'win32') this.skip();
    const PATH = pathWith('nothing', {});
    const cmake = await install({ PATH, PTQ4VM_CUDA: 'off', PTQ4VM_BUILD: 'cmake' });
    expect(cmake.stderr).to.include('- cmake-js:').and.not.include('- node-gyp:');
    const gyp = await install({ PATH, PTQ4VM_CUDA: 'off', PTQ4VM_BUILD: 'gyp' });
    expect(gyp.stderr).to.include('- node-gyp:').and.not.include('- cmake-js:');
  });

  it('repeats what a failing compiler said', async function () {
    if (process.platform !== 'linux') this.skip();
    const failing = 'case "$1" in --version) exit 0;; esac; echo "broken.cpp:1: error: this compiler is broken" >&2; exit 1';
    const PATH = pathWith('broken', { cmake: failing, 'g++': failing, ninja: 'exit 0' });
    const { status, stderr } = await install({ PATH, PTQ4VM_CUDA: 'off', PTQ4VM_BUILD: 'cmake' });
    expect(status).to.equal(1);
    expect(stderr).to.match(/- cmake-js: cmake \(configuration\) failed .*this compiler is broken/);
  });
});
