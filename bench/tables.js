/**
 * Writes the tables of docs/*.md from the files under bench/results: `node bench/tables.js [--check]`.
 *
 * A table stands between `<!-- table NAME -->` and `<!-- end NAME -->`, where NAME is a result file without `.json`.
 * `--check` changes nothing and fails when a table is out of date.
 */
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const ROOT = path.resolve(__dirname, '..');
const percent = (x) => (100 * x).toFixed(1);

/** Markdown by prefix of the result's name. */
const RENDERERS = {
  'accuracy-': (result) => {
    const bits = [...new Set(result.rows.filter((r) => r.weights < 32).map((r) => `W${r.weights}A${r.activations}`))];
    const float = result.rows.find((r) => r.method === 'float');
    const table = (title, cell) => {
      const lines = [`| ${title} | ${bits.join(' | ')} |`, `|---|${bits.map(() => '---:').join('|')}|`];
      for (const method of new Set(result.rows.filter((r) => r.weights < 32).map((r) => r.method))) {
        const row = bits.map((b) => cell(result.rows.find((r) => r.method === method && `W${r.weights}A${r.activations}` === b)));
        lines.push(`| ${method} | ${row.join(' | ')} |`);
      }
      return lines.join('\n');
    };
    return [
      table(`top-1 % (float ${percent(float.top1)})`, (r) => percent(r.top1)),
      table('same class as float, %', (r) => percent(r.agreement)),
      table('KL(float ‖ quantized)', (r) => r.kl.toFixed(4)),
      `${result.images.toLocaleString('en')} pictures, ${result.calibrationImages} for calibration; ${provenance(result)}.`,
    ].join('\n\n');
  },
  'calibration-': (result) => {
    const lines = ['| model | calibration pictures | linears | seconds | peak memory, GB |', '|---|---:|---:|---:|---:|'];
    for (const r of result.rows) lines.push(`| ${r.model} W${r.weights}A${r.activations} | ${r.images} | ${r.linears} | ${r.seconds} | ${r.peakMemoryGB.toFixed(1)} |`);
    return `${lines.join('\n')}\n\n${provenance(result)}.`;
  },
  'demo-': (result) => {
    const lines = ['| model | top-1 % | same class as float, % | logit error | file, kB | images/s |', '|---|---:|---:|---:|---:|---:|'];
    for (const r of result.rows) {
      lines.push(`| ${r.model} | ${percent(r.top1)} | ${percent(r.agreement)} | ${r.logitError.toFixed(3)} | ${Math.round(r.bytes / 1000)} | ${Math.round(r.imagesPerSecond)} |`);
    }
    return `${lines.join('\n')}\n\n${result.images.toLocaleString('en')} pictures; ${provenance(result)}.`;
  },
};

function provenance({ command, commit, date, machine }) {
  return `\`${command}\`, commit ${commit}, ${date}, ${machine.cpu} (${machine.isa}), ${machine.physicalCores} cores, Node ${machine.node}`;
}

function render(name) {
  const prefix = Object.keys(RENDERERS).find((p) => name.startsWith(p));
  if (prefix === undefined) throw new Error(`no table is known for '${name}'`);
  return RENDERERS[prefix](JSON.parse(fs.readFileSync(path.join(ROOT, 'bench/results', `${name}.json`), 'utf8')));
}

const stale = [];
const files = [...fs.readdirSync(path.join(ROOT, 'docs')).map((f) => path.join('docs', f)), 'README.md'].filter((f) => f.endsWith('.md'));
for (const file of files) {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  const filled = text.replace(/<!-- table (\S+) -->[\s\S]*?<!-- end \1 -->/g, (_, name) => `<!-- table ${name} -->\n${render(name)}\n<!-- end ${name} -->`);
  if (filled === text) continue;
  stale.push(file);
  if (!process.argv.includes('--check')) fs.writeFileSync(path.join(ROOT, file), filled);
}
if (stale.length > 0) console.log(`${process.argv.includes('--check') ? 'out of date' : 'updated'}: ${stale.join(', ')}`);
if (stale.length > 0 && process.argv.includes('--check')) process.exitCode = 1;
