// Builds build/Release/ptq4vm.node; npm runs it at `npm install`, developers as `npm run build:native`.
//
// Routes, in order: cmake-js (needs CMake and a C++17 compiler), the same without CUDA where the CUDA part failed,
// node-gyp (needs Python, make and a compiler). Quiet unless everything fails; then it says what was tried, why it
// failed and what to do. Compiler output goes to build/install.log.
//
//   PTQ4VM_BUILD=cmake|gyp   only this route          PTQ4VM_CUDA=off|on   no CUDA | fail without CUDA
//   PTQ4VM_SKIP_BUILD=1      do nothing               PTQ4VM_JOBS=N        compile N files at a time
'use strict';
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const root = path.resolve(__dirname, '..');
const buildDirectory = path.join(root, 'build');
const addonPath = path.join(buildDirectory, 'Release', 'ptq4vm.node');
const settingsPath = path.join(buildDirectory, 'install-settings.json');
const logPath = path.join(buildDirectory, 'install.log');

const env = process.env;
let log = '';

// In reasons that leaving CUDA out cannot mend.
const ABSENT = 'was not found';

/** Runs a program to its end; output goes to the log. Returns what went wrong, or ''. */
function run(title, program, args, extra = {}) {
  const result = spawnSync(program, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', 'pipe', 'pipe'],
    windowsHide: true,
    ...extra,
  });
  log += `\n$ ${[program, ...args].join(' ')}\n${result.stdout || ''}${result.stderr || ''}`;
  if (result.error) return `${title} could not be started: ${result.error.message}`;
  if (result.status !== 0) return `${title} failed with ${result.signal || `exit code ${result.status}`}`;
  return '';
}

function runs(program, args) {
  return spawnSync(program, args, { stdio: 'ignore', windowsHide: true }).status === 0;
}

/** Compilers need up to half a gigabyte each. */
function jobs() {
  const wanted = Number(env.PTQ4VM_JOBS);
  if (Number.isInteger(wanted) && wanted > 0) return wanted;
  return Math.max(1, Math.min(os.availableParallelism(), Math.floor(os.freemem() / 2 ** 29)));
}

function resolveFrom(request) {
  try {
    return require.resolve(request, { paths: [root] });
  } catch {
    return '';
  }
}

// ---- Route 1: cmake-js.

/** What must not change between an old build tree and this run; else the tree is configured anew. */
function settings(route, cuda) {
  return JSON.stringify({ route, cuda, root, node: process.arch, path: route === 'cmake' ? env.CXX || '' : '' });
}

function lastSettings() {
  try {
    return fs.readFileSync(settingsPath, 'utf8');
  } catch {
    return '';
  }
}

/** Another route's or another place's build tree cannot be built further. Finished addons go too: they are stale. */
function clearTree() {
  fs.rmSync(buildDirectory, { recursive: true, force: true });
}

function cmakeRoute(cuda) {
  if (!runs('cmake', ['--version'])) return `cmake ${ABSENT} on PATH`;
  const bin = resolveFrom('cmake-js/bin/cmake-js');
  if (!bin) return `the npm package cmake-js ${ABSENT}`;
  const last = lastSettings();
  if (last && JSON.parse(last).route !== 'cmake') clearTree();
  const options = [
    '--directory', root,
    '--config', 'Release',
    '--CDCMAKE_BUILD_TYPE=Release',
    `--CDPTQ4VM_CUDA=${cuda}`,
    `--CDPTQ4VM_NODE=${process.execPath.replaceAll('\\', '/')}`,
    '--parallel', String(jobs()),
  ];
  const wanted = settings('cmake', cuda);
  if (last !== wanted || !fs.existsSync(path.join(buildDirectory, 'CMakeCache.txt'))) {
    // A cache that was made elsewhere or for another processor makes CMake refuse.
    if (last && JSON.parse(last).root !== root) clearTree();
    const failed = run('cmake (configuration)', process.execPath, [bin, 'configure', ...options]);
    if (failed) {
      clearTree();
      return `${failed}${firstError()}`;
    }
    fs.writeFileSync(settingsPath, wanted);
  }
  const failed = run('cmake (compilation)', process.execPath, [bin, 'build', ...options]);
  return failed ? `${failed}${firstError()}` : check();
}

// ---- Route 2: node-gyp, which every npm brings along.

function nodeGyp() {
  const besideNpm = (npm) => path.join(path.dirname(npm), '..', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js');
  const candidates = [env.npm_config_node_gyp, resolveFrom('node-gyp/bin/node-gyp.js')];
  if (env.npm_execpath) candidates.push(besideNpm(env.npm_execpath));
  for (const directory of (env.PATH || '').split(path.delimiter)) {
    const npm = path.join(directory, 'npm');
    if (fs.existsSync(npm)) candidates.push(besideNpm(fs.realpathSync(npm)));
  }
  candidates.push(path.join(path.dirname(process.execPath), 'node_modules', 'npm', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js'));
  return candidates.find((file) => file && fs.existsSync(file)) || '';
}

function gypRoute(cuda) {
  const bin = nodeGyp();
  if (!bin) return `node-gyp ${ABSENT} (npm normally brings it)`;
  const python = env.npm_config_python || env.PYTHON || (process.platform === 'win32' ? 'python' : 'python3');
  if (!runs(python, ['--version'])) return `${python} ${ABSENT}, which node-gyp needs`;
  const last = lastSettings();
  const wanted = settings('gyp', cuda);
  if (last !== wanted) clearTree();
  const args = ['--release', `--jobs=${jobs()}`];
  // Node's own headers, where they lie beside it, save a download.
  const prefix = path.resolve(path.dirname(process.execPath), '..');
  const given = env.npm_config_nodedir || env.npm_package_config_node_gyp_nodedir;
  if (!given && fs.existsSync(path.join(prefix, 'include', 'node', 'common.gypi'))) args.push(`--nodedir=${prefix}`);
  const gypEnv = { ...env, PTQ4VM_CUDA: cuda.toLowerCase() };
  const failed =
    run('node-gyp (configuration)', process.execPath, [bin, 'configure', ...args], { env: gypEnv }) ||
    run('node-gyp (compilation)', process.execPath, [bin, 'build', ...args], { env: gypEnv });
  if (failed) return `${failed}${firstError()}`;
  fs.writeFileSync(settingsPath, wanted);
  return check();
}

// ---- Both.

/** The first thing in the last program's output that looks like a compiler's, CMake's or gyp's complaint. */
function firstError() {
  const lines = log.slice(log.lastIndexOf('\n$ ')).split('\n');
  const complaints = [/error:|CMake Error|undefined symbol|not found|not available|No such file/i, /\bERR!.*Error|\*\*\*/];
  for (const complaint of complaints) {
    const at = lines.findIndex((line) => complaint.test(line) && !/^gyp (info|verb)|^-- /.test(line));
    if (at < 0) continue;
    const next = /CMake Error/.test(lines[at]) ? ` ${(lines[at + 1] || '').trim()}` : '';  // CMake explains on the next line
    return `: ${(lines[at].trim() + next).slice(0, 300)}`;
  }
  return '';
}

/** Loads the addon in another process; a crash there is a message here. */
function check() {
  if (!fs.existsSync(addonPath)) return `the build ended without ${path.relative(root, addonPath)}`;
  const failed = run('loading the addon', process.execPath, ['-e', `require(${JSON.stringify(addonPath)})`]);
  return failed ? `${failed}${firstError()}` : '';
}

function writeLog() {
  try {
    fs.mkdirSync(buildDirectory, { recursive: true });
    fs.writeFileSync(logPath, log.trimStart());
    return path.relative(process.cwd(), logPath);
  } catch {
    return '';
  }
}

function cudaSetting() {
  const value = (env.PTQ4VM_CUDA || 'auto').toUpperCase();
  if (!['AUTO', 'ON', 'OFF'].includes(value)) throw new Error(`Expected auto, on or off for PTQ4VM_CUDA but received '${env.PTQ4VM_CUDA}'`);
  return value;
}

function main() {
  if (env.PTQ4VM_SKIP_BUILD === '1') {
    console.log('ptq4vm-native: PTQ4VM_SKIP_BUILD=1, nothing built');
    return 0;
  }
  const cuda = cudaSetting();
  const forced = env.PTQ4VM_BUILD || '';
  if (!['', 'cmake', 'gyp'].includes(forced)) throw new Error(`Expected cmake or gyp for PTQ4VM_BUILD but received '${forced}'`);
  const hasCuda = cuda !== 'OFF' && require('./cuda.js').findNvcc() !== '';

  const routes = [];
  if (forced !== 'gyp') routes.push({ name: hasCuda ? 'cmake-js with CUDA' : 'cmake-js', build: () => cmakeRoute(cuda) });
  if (forced !== 'gyp' && hasCuda && cuda !== 'ON') routes.push({ name: 'cmake-js without CUDA', build: () => cmakeRoute('OFF') });
  if (forced !== 'cmake') routes.push({ name: 'node-gyp', build: () => gypRoute(cuda) });
  if (forced !== 'cmake' && hasCuda && cuda !== 'ON') routes.push({ name: 'node-gyp without CUDA', build: () => gypRoute('OFF') });

  const failures = [];
  for (const route of routes) {
    if (route.name.endsWith('without CUDA') && failures.at(-1).reason.includes(ABSENT)) continue;
    const started = Date.now();
    const reason = route.build();
    if (!reason) {
      writeLog();
      console.log(`ptq4vm-native: built by ${route.name} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
      if (hasCuda && route.name.endsWith('without CUDA')) {
        console.warn(`ptq4vm-native: built WITHOUT CUDA although nvcc is there; ${failures[0].reason}`);
      }
      return 0;
    }
    failures.push({ name: route.name, reason });
    log += `\n--- ${route.name}: ${reason}\n`;
  }

  const where = writeLog();
  const tail = log.trimEnd().split('\n').slice(-25).join('\n');
  console.error(
    [
      '',
      'ptq4vm-native: the native addon could not be built. Tried:',
      ...failures.map(({ name, reason }) => `  - ${name}: ${reason}`),
      '',
      'What to do:',
      ...remedies().map((line) => `  - ${line}`),
      ...(where ? ['', `Everything the tools said is in ${where}; the end of it:`, '', tail] : []),
      '',
    ].join('\n'),
  );
  return 1;
}

function remedies() {
  const install =
    process.platform === 'darwin'
      ? 'xcode-select --install && brew install cmake'
      : process.platform === 'win32'
        ? 'install "Desktop development with C++" of Visual Studio 2022, which brings CMake'
        : 'sudo apt install g++ make cmake   (Debian, Ubuntu)   or   sudo dnf install gcc-c++ make cmake   (Fedora)';
  return [
    `install a C++17 compiler and CMake 3.18 or later: ${install}`,
    'without CMake, Python 3 and make suffice: node-gyp is then used',
    'if only the CUDA part fails: PTQ4VM_CUDA=off npm install',
    'then: npm rebuild ptq4vm-native',
  ];
}

process.exitCode = main();
