// npm test: builds what is missing or old, runs the native tests, then mocha over test/.
// Its last line is `N passed, N failed, N skipped`, summed over everything.
//
//   npm test                       everything
//   npm test -- test/io 'golden'   only mocha files below these paths or matching these globs; no native tests
'use strict';
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { runNativeTests } = require('./native-tests.js');

const root = path.resolve(__dirname, '..');
const total = { passed: 0, failed: 0, skipped: 0 };
const skippedTitles = [];

function add(counts) {
  for (const key of Object.keys(total)) total[key] += counts[key] ?? 0;
}

function step(title, program, args) {
  console.log(`\n== ${title}`);
  const { status } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return true;
  console.log(`FAILED: ${title}`);
  total.failed++;
  return false;
}

/** A folder means the test files in it. */
function patterns(args) {
  if (args.length === 0) return ['test/**/*.test.ts'];
  const isFolder = (arg) => fs.statSync(path.resolve(root, arg), { throwIfNoEntry: false })?.isDirectory();
  return args.map((arg) => (isFolder(arg) ? `${arg}/**/*.test.ts` : arg));
}

/** Runs mocha to its end. A run that dies, or that ends but leaves the process hanging, is a failure. */
function runMocha(specs) {
  const countsFile = path.join(os.tmpdir(), `ptq4vm-test-counts-${process.pid}.json`);
  fs.rmSync(countsFile, { force: true });
  const args = [require.resolve('mocha/bin/mocha.js'), '--reporter', path.join(__dirname, 'mocha-reporter.js'), ...specs];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, PTQ4VM_TEST_COUNTS: countsFile },
    });
    let ended = 0;
    let hung = false;
    const watch = setInterval(() => {
      if (!fs.existsSync(countsFile)) return;
      ended ||= Date.now();
      if (Date.now() - ended < 30_000) return;
      hung = true;
      child.kill('SIGKILL');
    }, 1000);
    child.on('close', (code, signal) => {
      clearInterval(watch);
      let counts = { passed: 0, failed: 0, skipped: 0 };
      if (fs.existsSync(countsFile)) {
        counts = JSON.parse(fs.readFileSync(countsFile, 'utf8'));
        fs.rmSync(countsFile);
      } else {
        console.log(`FAILED: mocha ended (${signal ?? `exit code ${code}`}) before its tests did`);
        counts.failed++;
      }
      if (hung) {
        console.log('FAILED: mocha did not exit 30 s after the last test: something is still open (a model not disposed, a server)');
        counts.failed++;
      } else if (counts.failed === 0 && code !== 0) {
        console.log(`FAILED: mocha ended with ${signal ?? `exit code ${code}`} although no test failed`);
        counts.failed++;
      }
      skippedTitles.push(...(counts.skippedTitles ?? []));
      resolve(counts);
    });
  });
}

async function main() {
  const specs = process.argv.slice(2);
  const built = step('Native addon', process.execPath, [path.join(__dirname, 'install.js')]);
  fs.rmSync(path.join(root, 'dist'), { recursive: true, force: true }); // outputs of sources that are gone
  const tsc = path.join(path.dirname(require.resolve('typescript/package.json')), 'bin', 'tsc');
  const compiled = step('TypeScript', process.execPath, [tsc, '-p', 'tsconfig.json']);
  if (specs.length === 0) {
    console.log('\n== Native tests');
    add(runNativeTests());
    add(runNativeTests({ kind: 'arm64' }));
  }
  if (built && compiled) {
    console.log('\n== Tests');
    add(await runMocha(patterns(specs)));
  }
  for (const title of skippedTitles) console.log(`SKIPPED: ${title}`);
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  process.exitCode = total.failed > 0 ? 1 : 0;
}

main();
