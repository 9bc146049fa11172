// Finds the CUDA compiler and says what to build with it. The one place that names architectures; used by
// CMakeLists.txt (`node scripts/cuda.js nvcc|architectures`) and by binding.gyp (`compiler|gencode|include|libraries`).
'use strict';
const { execFileSync, spawnSync } = require('node:child_process');
const { existsSync, realpathSync } = require('node:fs');
const path = require('node:path');

// What the kernels are tuned for, Turing to Hopper. 90a carries Hopper's own instructions (wgmma) and needs CUDA 12;
// the PTX of the last entry lets the driver compile for everything newer.
const REAL = ['75', '80', '86', '89', '90a'];
const VIRTUAL = '90';

function run(program, args) {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Path of a CUDA compiler that answers, or '' (also with PTQ4VM_CUDA=off). */
function findNvcc() {
  if ((process.env.PTQ4VM_CUDA || '').toLowerCase() === 'off') return '';
  const name = process.platform === 'win32' ? 'nvcc.exe' : 'nvcc';
  const roots = [process.env.CUDA_HOME, process.env.CUDA_PATH].filter(Boolean).map((root) => path.join(root, 'bin'));
  const onPath = (process.env.PATH || '').split(path.delimiter).filter(Boolean);
  const usual = process.platform === 'win32' ? [] : ['/usr/local/cuda/bin', '/opt/cuda/bin'];
  const candidates = [...roots, ...onPath, ...usual].map((dir) => path.join(dir, name));
  if (process.env.CUDACXX) candidates.unshift(process.env.CUDACXX);
  for (const candidate of candidates) {
    if (!existsSync(candidate)) continue;
    try {
      run(candidate, ['--version']);
      return candidate;
    } catch {
      // a stub or a wrapper whose toolkit is gone: look further
    }
  }
  return '';
}

/** [major, minor] of the toolkit. */
function toolkitVersion(nvcc) {
  const match = /release (\d+)\.(\d+)/.exec(run(nvcc, ['--version']));
  return match ? [Number(match[1]), Number(match[2])] : [0, 0];
}

/** Toolkit root. nvcc may be a wrapper script, so ask it (TOP= of a dry run) before trusting its path. */
function toolkitRoot(nvcc) {
  const nothing = process.platform === 'win32' ? 'NUL' : '/dev/null';
  const { stderr } = spawnSync(nvcc, ['-v', '--dryrun', '-x', 'cu', '-c', nothing], { encoding: 'utf8' });
  const match = /^#\$ TOP=(.+)$/m.exec(stderr || '');
  if (match) return path.resolve(match[1].trim());
  return path.resolve(path.dirname(realpathSync(nvcc)), '..');
}

/** { real, virtual }: the wanted architectures that this toolkit can build. */
function architectures(nvcc) {
  const known = new Set((run(nvcc, ['--list-gpu-code']).match(/sm_\d+/g) || []).map((code) => code.slice(3)));
  const [major] = toolkitVersion(nvcc);
  const builds = (arch) => known.has(arch.replace(/\D/g, '')) && (!/\D/.test(arch) || major >= 12);
  const real = REAL.filter(builds);
  if (real.length === 0) throw new Error(`${nvcc} builds none of ${REAL.join(', ')}; CUDA 12.0 or later is needed`);
  return { real, virtual: known.has(VIRTUAL) ? VIRTUAL : real[real.length - 1].replace(/\D/g, '') };
}

function libraryDirectory(root) {
  const target = process.arch === 'arm64' ? 'sbsa-linux' : 'x86_64-linux';
  const names = process.platform === 'win32' ? ['lib/x64'] : ['lib64', `targets/${target}/lib`, 'lib'];
  const file = process.platform === 'win32' ? 'cudart_static.lib' : 'libcudart_static.a';
  const found = names.map((name) => path.join(root, name)).find((dir) => existsSync(path.join(dir, file)));
  if (!found) throw new Error(`${file} was not found below ${root}`);
  return found;
}

const verbs = {
  nvcc: () => findNvcc(),
  architectures: (nvcc) => {
    const { real, virtual } = architectures(nvcc);
    return [...real.map((arch) => `${arch}-real`), `${virtual}-virtual`].join(';');
  },
  gencode: (nvcc) => {
    const { real, virtual } = architectures(nvcc);
    return [
      ...real.map((arch) => `-gencode=arch=compute_${arch},code=sm_${arch}`),
      `-gencode=arch=compute_${virtual},code=compute_${virtual}`,
    ].join(' ');
  },
  include: (nvcc) => path.join(toolkitRoot(nvcc), 'include'),
  libraries: (nvcc) => libraryDirectory(toolkitRoot(nvcc)),
};

module.exports = { findNvcc, toolkitVersion, toolkitRoot, architectures };

if (require.main === module) {
  const [verb, given] = process.argv.slice(2);
  const nvcc = verb === 'nvcc' ? '' : given || findNvcc();
  if (!verbs[verb]) throw new Error(`Expected one of ${Object.keys(verbs).join(', ')} but received '${verb}'`);
  if (verb === 'nvcc' || nvcc) process.stdout.write(verbs[verb](nvcc));
}
