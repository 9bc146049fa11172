/**
 * Speed of the ops, one by one, on the shapes of the published models:
 *   node bench/ops.js [--isa avx512,avx2] [--op linear,linearI8,…] [--threads 1] [--seconds 0.2] [--json]
 *
 * Cases are those of test/ops with a model's name. Instruction sets take turns in one process; each is checked against the
 * reference before it is timed, and one that fails is named, not timed, and makes the exit status 1. Operands lie in the
 * caches as far as they fit, as they do within a model. `--seconds` is the time for each case and instruction set.
 *
 * Writes bench/results/ops-CPU.json, unless --op or --isa left something out, and prints a table (--json: the result).
 */
'use strict';
require('tsx/cjs');
const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { machine, commit, command, ROOT } = require('./support/machine.js');
const { measure, rate, shape } = require('./support/ops-measure.js');
const { backends, ops } = require('../dist/index.js');
const { CASES, KINDS, caseTitle } = require('../test/ops/cases.ts');
const compare = require('../test/ops/compare.ts');
const { Random } = require('../test/ops/random.ts');

/** Numbers do not matter here, that they are always the same does. */
const SEED = 1;

async function main() {
  const { values } = parseArgs({
    options: {
      isa: { type: 'string' }, op: { type: 'string' }, threads: { type: 'string', default: '1' }, seconds: { type: 'string', default: '0.2' }, json: { type: 'boolean', default: false },
    },
  });
  const isas = choose('--isa', values.isa, backends().cpu.isas, backends().cpu.isas.filter((isa) => isa !== 'reference').reverse());
  const kinds = choose('--op', values.op, KINDS, KINDS);
  const threads = number('--threads', values.threads, 1);
  const milliseconds = 1000 * number('--seconds', values.seconds, 0);

  const rows = [];
  const wrong = [];
  for (const kind of kinds) {
    for (const testCase of CASES[kind].filter((c) => c.model !== undefined)) {
      const call = testCase.make(new Random(caseTitle(kind, testCase), SEED));
      if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${caseTitle(kind, testCase)}`);
      const { unit, of } = rate(call);
      for (const r of await measure(call, { isas, threads, milliseconds, table: compare, ...ops })) {
        if (r.wrong !== undefined) {
          wrong.push(`${caseTitle(kind, testCase)} on ${r.isa}: ${r.wrong}`);
          continue;
        }
        const { isa, medianNs, p10Ns, p90Ns, runs } = r;
        rows.push({ op: kind, model: testCase.model, name: testCase.name, shape: shape(call), isa, threads, medianNs, p10Ns, p90Ns, runs, rate: Number(of(medianNs).toPrecision(4)), unit });
      }
    }
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');

  const { cpu } = backends();
  const name = `ops-${cpu.model.toLowerCase().replace(/\((r|tm)\)/g, '').replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '')}`;
  const result = { name, command: command(), commit: commit(), date: new Date().toISOString().slice(0, 10), machine: machine(), timed: threads === 1 ? 'kernel' : 'call', rows };
  if (values.json) console.log(JSON.stringify(result, null, 1));
  else printTable(rows);
  for (const line of wrong) console.error(`WRONG, not timed: ${line}`);
  if (wrong.length > 0) {
    process.exitCode = 1;
  } else if (values.op === undefined && values.isa === undefined) {
    const file = path.join(ROOT, 'bench/results', `${name}.json`);
    fs.writeFileSync(file, `${JSON.stringify(result, null, 1)}\n`);
    console.error(`wrote ${path.relative(ROOT, file)}`);
  } else {
    console.error('not written to bench/results: only part of the table');
  }
}

function choose(option, text, all, otherwise) {
  if (text === undefined) return otherwise;
  const chosen = text.split(',');
  const unknown = chosen.find((c) => !all.includes(c));
  if (unknown !== undefined) throw new RangeError(`Expected some of ${all.join(', ')} for ${option} but received '${unknown}'`);
  return chosen;
}

function number(option, text, least) {
  const value = Number(text);
  if (!(value >= least)) throw new RangeError(`Expected a number of at least ${least} for ${option} but received '${text}'`);
  return value;
}

const microseconds = (ns) => (ns / 1000).toFixed(ns < 1e5 ? 2 : 1);

function printTable(rows) {
  const head = ['op', 'case', 'shape', 'isa', 'median µs', 'p10', 'p90', 'speed', ''];
  const numeric = [false, false, false, false, true, true, true, true, false];
  const cells = rows.map((r) => [
    r.op, `${r.model} ${r.name}`, r.shape, r.isa, microseconds(r.medianNs), microseconds(r.p10Ns), microseconds(r.p90Ns), r.rate.toPrecision(3), r.unit,
  ]);
  const width = head.map((h, i) => Math.max(h.length, ...cells.map((c) => c[i].length)));
  for (const line of [head, ...cells]) {
    console.log(line.map((c, i) => (numeric[i] ? c.padStart(width[i]) : c.padEnd(width[i]))).join('  ').trimEnd());
  }
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = error instanceof RangeError ? 2 : 1;
});
