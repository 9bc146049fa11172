// Builds and runs native/test/*_test.cpp once per instruction set that this processor can run.
//
//   node scripts/native-tests.js [--sanitize=address|undefined] [--arm64] [name …]
//
// A program passes with exit status 0 and is skipped with 77. --arm64 cross-compiles with aarch64-linux-gnu-g++ and
// runs the neon set under qemu-aarch64. Names select programs whose name contains one of them.
// PTQ4VM_TEST_ALL=1 leaves nothing out.
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.resolve(__dirname, '..');

/** Programs that emulation makes too slow for every run of npm test. */
const SLOW_EMULATED = /^(calibrate|scan)_test/;

function works(program, args = ['--version']) {
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}

/** How one kind of build is configured, where it lies, and how its programs are started. */
function variant(kind) {
  const configure = ['-DPTQ4VM_NATIVE_TESTS=ON', '-DCMAKE_BUILD_TYPE=Release', '-DPTQ4VM_CUDA=OFF'];
  if (works('ninja')) configure.push('-G', 'Ninja');
  if (kind === 'arm64') {
    configure.push(
      '-DCMAKE_SYSTEM_NAME=Linux',
      '-DCMAKE_SYSTEM_PROCESSOR=aarch64',
      '-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++',
      '-DCMAKE_EXE_LINKER_FLAGS=-static',
    );
    return { directory: 'build/native-arm64', configure, target: 'native_tests_neon', launcher: ['qemu-aarch64', '-cpu', 'max'] };
  }
  if (kind !== '') {
    configure.push(`-DPTQ4VM_SANITIZE=${kind}`);
    return { directory: `build/native-${kind}`, configure, target: 'native_tests', launcher: [] };
  }
  // The addon's own build tree has the kernels already, if it is CMake's.
  if (fs.existsSync(path.join(root, 'build', 'CMakeCache.txt'))) {
    return { directory: 'build', configure: ['-DPTQ4VM_NATIVE_TESTS=ON'], target: 'native_tests', launcher: [] };
  }
  return { directory: 'build/native', configure, target: 'native_tests', launcher: [] };
}

function missing(kind) {
  if (!works('cmake')) return 'cmake was not found';
  if (kind === 'arm64' && !works('aarch64-linux-gnu-g++')) return 'aarch64-linux-gnu-g++ was not found';
  if (kind === 'arm64' && !works('qemu-aarch64')) return 'qemu-aarch64 was not found';
  return '';
}

function build(directory, configure, target) {
  const jobs = Math.max(1, Math.min(os.availableParallelism(), Math.floor(os.freemem() / 2 ** 29)));
  const steps = [
    ['cmake', ['-S', root, '-B', directory, ...configure]],
    ['cmake', ['--build', directory, '--target', target, '--parallel', String(jobs)]],
  ];
  for (const [program, args] of steps) {
    const result = spawnSync(program, args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
    if (result.status !== 0) {
      console.error(`$ ${program} ${args.join(' ')}\n${result.stdout || ''}${result.stderr || ''}`);
      return false;
    }
  }
  return true;
}

/** Runs everything; returns { passed, failed, skipped }. */
function runNativeTests({ kind = '', names = [] } = {}) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const label = kind === '' ? 'native' : `native (${kind})`;
  const reason = missing(kind);
  if (reason !== '') {
    console.log(`SKIPPED: ${label} tests: ${reason}`);
    return { ...counts, skipped: 1 };
  }
  const { directory, configure, target, launcher } = variant(kind);
  if (!build(path.join(root, directory), configure, target)) {
    console.log(`FAILED: ${label} tests could not be built`);
    return { ...counts, failed: 1 };
  }
  const programs = path.join(root, directory, 'native-tests');
  const start = (program, args = []) => {
    const [command, ...rest] = [...launcher, path.join(programs, program), ...args];
    return spawnSync(command, rest, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 26, timeout: 600_000 });
  };
  const usable = new Set(kind === 'arm64' ? ['neon'] : start('usable_isas').stdout.split('\n').filter(Boolean));
  const compiled = ['portable', 'avx2', 'avx512', 'neon'];
  const suffix = process.platform === 'win32' ? '.exe' : '';
  const tests = fs
    .readdirSync(programs)
    .filter((file) => new RegExp(`_test(_(${compiled.join('|')}))?${suffix}$`).test(file))
    .filter((file) => names.length === 0 || names.some((name) => file.includes(name)))
    .sort();
  if (tests.length === 0) {
    console.log(`FAILED: no ${label} test was found`);
    return { ...counts, failed: 1 };
  }
  for (const test of tests) {
    const isa = compiled.find((name) => test.endsWith(`_${name}${suffix}`));
    if (isa !== undefined && !usable.has(isa)) {
      console.log(`SKIPPED: ${label} ${test}: this processor has no ${isa}`);
      counts.skipped++;
      continue;
    }
    if (kind === 'arm64' && SLOW_EMULATED.test(test) && names.length === 0 && process.env.PTQ4VM_TEST_ALL !== '1') {
      console.log(`SKIPPED: ${label} ${test}: takes minutes under emulation; PTQ4VM_TEST_ALL=1 runs it`);
      counts.skipped++;
      continue;
    }
    const started = Date.now();
    const result = start(test);
    const seconds = ((Date.now() - started) / 1000).toFixed(1);
    const output = `${result.stdout || ''}${result.stderr || ''}`.trimEnd();
    const last = output.split('\n').at(-1) ?? '';
    if (result.status === 77) {
      console.log(`SKIPPED: ${label} ${test}: ${last}`);
      counts.skipped++;
    } else if (result.status === 0) {
      console.log(`  ✔ ${label} ${test} (${seconds} s) ${last}`);
      counts.passed++;
    } else {
      const ending = `ended with ${result.signal ?? `status ${result.status}`}`;
      const how = result.error?.code === 'ETIMEDOUT' ? 'took more than 10 minutes' : ending;
      console.log(`FAILED: ${label} ${test} ${how}\n${output}`);
      counts.failed++;
    }
  }
  return counts;
}

module.exports = { runNativeTests };

if (require.main === module) {
  const args = process.argv.slice(2);
  const sanitize = args.find((arg) => arg.startsWith('--sanitize='))?.slice('--sanitize='.length);
  const kind = args.includes('--arm64') ? 'arm64' : (sanitize ?? '');
  if (!['', 'arm64', 'address', 'undefined'].includes(kind)) {
    throw new Error(`Expected address or undefined for --sanitize but received '${kind}'`);
  }
  const counts = runNativeTests({ kind, names: args.filter((arg) => !arg.startsWith('--')) });
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = counts.failed > 0 ? 1 : 0;
}
