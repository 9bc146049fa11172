/** What both build routes must agree on, and what the compiled objects must look like. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';

const root = path.resolve(__dirname, '../..');
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');
const gyp = read('binding.gyp');

function has(program: string): boolean {
  return spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0;
}

describe('structure: build', () => {
  it('has the same flags for every instruction set in CMake and gyp', () => {
    const cmake = read('native/cpu/isa.cmake');
    for (const isa of ['avx2', 'avx512', 'neon']) {
      const options = [...cmake.matchAll(new RegExp(`PTQ4VM_FLAGS_${isa} (-m[^)]*)\\)`, 'g'))].map((match) => match[1]!.split(/\s+/));
      const flags = new RegExp(`'flags_${isa}': \\[([^\\]]*)\\]`).exec(gyp)?.[1]?.match(/-[^',]+/g);
      expect(options, `${isa} in isa.cmake`).to.not.be.empty;
      expect(options, `${isa} in binding.gyp`).to.deep.include(flags as string[]);
    }
  });

  it('has the same common flags in CMake and gyp', () => {
    const cmake = /foreach\(flag ([^)]*)\)/.exec(read('CMakeLists.txt'))?.[1]?.split(' ');
    const common = /'common_flags': \[([^\]]*)\]/.exec(gyp)?.[1]?.match(/-[^',]+/g);
    expect(cmake).to.include('-ffp-contract=off');
    // CMake passes the visibility through a property of its own.
    expect(common?.filter((flag) => flag !== '-fvisibility=hidden')).to.deep.equal(cmake);
  });

  it('names one list of CUDA architectures', () => {
    for (const file of ['CMakeLists.txt', 'binding.gyp']) expect(read(file), file).to.not.match(/sm_\d|compute_\d/);
  });

  it('shows no other names of the addon than those of Node-API', function () {
    const addon = path.join(root, 'build', 'Release', 'ptq4vm.node');
    if (process.platform !== 'linux' || !has('nm') || !existsSync(addon)) return skip(this, 'nm or the addon is not there');
    const names = execFileSync('nm', ['-D', '--defined-only', addon], { encoding: 'utf8' })
      .trim()
      .split('\n')
      .map((line) => line.split(' ').at(-1)!);
    expect(names).to.have.members(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });

  it('needs no C++ or CUDA library at run time', function () {
    const addon = path.join(root, 'build', 'Release', 'ptq4vm.node');
    if (process.platform !== 'linux' || !has('readelf') || !existsSync(addon)) return skip(this, 'readelf or the addon is not there');
    const dynamic = execFileSync('readelf', ['-d', addon], { encoding: 'utf8' });
    const needed = [...dynamic.matchAll(/NEEDED.*\[(.*)\]/g)].map((match) => match[1]!);
    expect(needed).to.include('libc.so.6');
    expect(needed.filter((name) => /stdc\+\+|libgcc|cuda|cudart/.test(name))).to.deep.equal([]);
  });

  // An inline function that the compiler leaves out of line is one copy for the whole program: the linker might keep the
  // one that was compiled for AVX-512, and the portable kernels would die on a processor without it.
  it('leaves no mergeable function in objects that are compiled for stronger instruction sets', function () {
    const archives = existsSync(path.join(root, 'build')) ? readdirSync(path.join(root, 'build')) : [];
    const stronger = archives.filter((name) => /^libkernels_(avx2|avx512|neon)\.a$/.test(name));
    if (stronger.length === 0 || !has('nm')) return skip(this, 'nm or archives of a CMake build are not there');
    const weak = stronger.flatMap((archive) =>
      execFileSync('nm', ['-C', path.join(root, 'build', archive)], { encoding: 'utf8', maxBuffer: 1 << 26 })
        .split('\n')
        .filter((line) => / W /.test(line))
        .map((line) => `${archive}: ${line.slice(17)}`),
    );
    expect(weak).to.deep.equal([]);
  });
});

function skip(context: Mocha.Context, reason: string): void {
  console.warn(`      SKIPPED: ${reason}`);
  context.skip();
}
