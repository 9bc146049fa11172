/**
 * The only place that loads `ptq4vm.node`, when it is first needed. When it cannot, it says where it looked, what was
 * wrong at each place, and what to do.
 */
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Ptq4vmError } from '../errors.js';
import type { NativeAddon } from './addon-types.js';

/** One place that was tried, and why it did not do. */
export interface AddonAttempt {
  readonly path: string;
  readonly reason: string;
}

/** `lib/native` and `dist/native` both lie two levels below the package. */
const packageRoot = resolve(__dirname, '..', '..');

let loaded: NativeAddon | undefined;

/** The addon, loaded once per process. Throws `ERR_ADDON_NOT_FOUND`; a later call tries again. */
export function loadAddon(): NativeAddon {
  loaded ??= loadAddonFrom(packageRoot, process.env);
  return loaded;
}

/**
 * Where the addon of the package at `root` may lie, in order. The environment variable PTQ4VM_ADDON names the file to
 * use; it is an explicit choice, so no other place is tried then.
 */
export function addonPaths(root: string, env: NodeJS.ProcessEnv): string[] {
  if (env.PTQ4VM_ADDON) return [resolve(env.PTQ4VM_ADDON)];
  const file = 'ptq4vm.node';
  return [
    join(root, 'build', 'Release', file),
    join(root, 'build', 'Debug', file),
    join(root, 'prebuilds', `${process.platform}-${process.arch}`, file),
  ];
}

/** `loadAddon` for a given package folder and environment, without the cache. */
export function loadAddonFrom(root: string, env: NodeJS.ProcessEnv): NativeAddon {
  const { version } = require(join(root, 'package.json')) as { version: string };
  const attempts: AddonAttempt[] = [];
  for (const path of addonPaths(root, env)) {
    if (!existsSync(path)) {
      attempts.push({ path, reason: 'there is no such file' });
      continue;
    }
    try {
      // The system's loader maps a file that was cut off and dies of it (SIGBUS), so look first.
      const reason = cutOff(path) ? 'it is damaged: shorter than its own header says' : mismatch(require(path), version);
      if (reason === '') return require(path) as NativeAddon;
      attempts.push({ path, reason });
    } catch (error) {
      attempts.push({ path, reason: explainLoadFailure(path, error instanceof Error ? error.message : String(error)) });
    }
  }
  throw new Ptq4vmError('ERR_ADDON_NOT_FOUND', describeFailure(root, attempts, Boolean(env.PTQ4VM_ADDON)));
}

/** Why a file that did load is not the addon of this version, or ''. */
function mismatch(addon: Partial<NativeAddon>, version: string): string {
  if (typeof addon?.Session !== 'function' || typeof addon.build?.version !== 'string') {
    return 'it loads, but it is not the addon of ptq4vm-native';
  }
  if (addon.build.version === version) return '';
  return `it was built from version ${addon.build.version} of the sources, this package is version ${version}`;
}

/** Turns what the system's loader says into what it means. The loader's own words stay at the end. */
export function explainLoadFailure(path: string, message: string): string {
  const words = message.split('\n')[0]?.replace(`${path}: `, '') ?? '';
  const foreign = foreignBinary(path);
  if (foreign !== '') return `${foreign}, this is ${process.platform} on ${process.arch} (${words})`;
  const newer = /version [`'"]?((?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)[`'"]? not found/.exec(message);
  if (newer) return `it needs a newer system library than this one (${newer[1]}); it was built on a newer system (${words})`;
  const symbol = /undefined symbol: (\S+)|symbol not found[^:]*: *'?([^\s']+)|Error relocating .*: (\S+): symbol not found/.exec(message);
  if (symbol) {
    return `it lacks the symbol ${symbol[1] ?? symbol[2] ?? symbol[3]}; the build is incomplete or of another version (${words})`;
  }
  const library = /(\S+): cannot open shared object file|Error loading shared library (\S+):|Library not loaded: (\S+)/.exec(message);
  const name = library?.[1] ?? library?.[2] ?? library?.[3];
  if (name !== undefined && name !== path) return `it needs the library ${name}, which is not installed (${words})`;
  if (/invalid ELF header|file too short|not a mach-o|not a valid Win32|file too small/i.test(message)) {
    return `it is damaged or no shared library (${words})`;
  }
  if (/did not self-register|NODE_MODULE_VERSION/.test(message)) return `it was built for another kind of Node.js (${words})`;
  return words;
}

/** The first bytes of a file, zeros where it is shorter; undefined when it cannot be read. */
function readHeader(path: string): Buffer | undefined {
  const header = Buffer.alloc(64);
  try {
    const file = openSync(path, 'r');
    try {
      readSync(file, header, 0, header.length, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    return undefined;
  }
  return header;
}

const ELF = 0x7f454c46;
const ELF_MACHINES: Readonly<Record<number, string>> = {
  3: 'ia32', 21: 'ppc64', 22: 's390x', 40: 'arm', 62: 'x64', 183: 'arm64', 243: 'riscv64', 258: 'loong64',
};

/** True for a 64-bit little-endian ELF file that ends before its section headers, which lie last. */
function cutOff(path: string): boolean {
  const header = readHeader(path);
  if (header?.readUInt32BE(0) !== ELF || header[4] !== 2 || header[5] !== 1) return false;
  const end = Number(header.readBigUInt64LE(0x28)) + header.readUInt16LE(0x3a) * header.readUInt16LE(0x3c);
  return statSync(path).size < end;
}

/** "it was built for Linux on arm64" when the file's header names another system than this one, else ''. */
function foreignBinary(path: string): string {
  const header = readHeader(path);
  if (header === undefined) return '';
  let system = '';
  let arch: string | undefined;
  if (header.readUInt32BE(0) === ELF) {
    system = 'linux';
    // e_machine, in the byte order that the header names
    const machine = header[5] === 2 ? header.readUInt16BE(18) : header.readUInt16LE(18);
    arch = ELF_MACHINES[machine] ?? `machine ${machine}`;
  } else if ([0xcffaedfe, 0xcafebabe].includes(header.readUInt32BE(0))) {
    system = 'darwin';
    const cpu = header.readUInt32BE(0) === 0xcffaedfe ? header.readUInt32LE(4) : 0;
    arch = { 16777223: 'x64', 16777228: 'arm64' }[cpu];
  } else if (header.toString('latin1', 0, 2) === 'MZ') {
    system = 'win32';
  }
  const here = process.platform === 'win32' || process.platform === 'darwin' ? process.platform : 'linux'; // ELF elsewhere
  const same = system === '' || (system === here && (arch === undefined || arch === process.arch));
  return same ? '' : `it was built for ${system}${arch === undefined ? '' : ` on ${arch}`}`;
}

function describeFailure(root: string, attempts: readonly AddonAttempt[], chosen: boolean): string {
  const log = join(root, 'build', 'install.log');
  const system = `${process.platform} on ${process.arch}, Node.js ${process.versions.node}`;
  const remedies = [
    ...(chosen ? ['unset PTQ4VM_ADDON, or let it name a file built by this package for this system'] : []),
    'npm rebuild ptq4vm-native   (in a checkout: npm run build:native); it needs a C++17 compiler with CMake, or with Python 3 and make',
    'if the package was installed with --ignore-scripts, nothing was built: the same command does it',
    ...(existsSync(log) ? [`what the last build said is in ${log}`] : []),
  ];
  return [
    `The native addon of ptq4vm-native could not be loaded (${system}). Tried:`,
    ...attempts.map(({ path, reason }) => `  - ${path}: ${reason}`),
    'What to do:',
    ...remedies.map((line) => `  - ${line}`),
  ].join('\n');
}
