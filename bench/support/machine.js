/** What a result was measured on, stored beside every figure. */
'use strict';
const { execFileSync } = require('node:child_process');
const os = require('node:os');
const path = require('node:path');

const ROOT = path.resolve(__dirname, '../..');

/** `{ cpu, isa, physicalCores, memoryGiB, gpu, node, platform }`. */
function machine() {
  const { backends } = require(path.join(ROOT, 'dist/index.js'));
  const { cpu, cuda, build } = backends();
  return {
    cpu: cpu.model,
    isa: cpu.isa,
    features: cpu.features,
    physicalCores: cpu.physicalCores,
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    gpu: cuda.devices[0]?.name ?? null,
    compiler: build.compiler,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
  };
}

/** Commit of the working tree, with `+changes` when it is not clean (results under bench/results do not count). */
function commit() {
  const git = (...args) => execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).trim();
  try {
    const changed = git('status', '--porcelain', '--', '.', ':!bench/results', ':!docs') !== '';
    return git('rev-parse', '--short=12', 'HEAD') + (changed ? '+changes' : '');
  } catch {
    return 'unknown';
  }
}

/** Command line as a user would type it, from the project's folder. */
function command() {
  return ['node', path.relative(ROOT, process.argv[1]), ...process.argv.slice(2)].join(' ');
}

module.exports = { machine, commit, command, ROOT };
