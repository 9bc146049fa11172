/** Times one case of the op table on several instruction sets: checked first, then in turns. */
'use strict';

const MIN_RUNS = 15;
const MAX_RUNS = 400;
const WARM_UP = 3;

/**
 * Medians of each instruction set for one call: `[{ isa, medianNs, p10Ns, p90Ns, runs }]`, or `{ isa, wrong }` for one whose
 * results are wrong: it is not timed. `table`: the modules of test/ops; `prepareOp`, `runOp`: of lib/ops.
 *
 * On one thread a time is that of the kernel alone. On several it is that of the whole call, with the way to the
 * threads and back, because kernel times summed over threads would hide threads that wait.
 */
async function measure(call, { isas, threads, milliseconds, table, prepareOp, runOp }) {
  const reference = await runOp(call, { isa: 'reference', threads: 0 });
  const expected = table.expectedOf(call);
  const contenders = [];
  const results = [];
  for (const isa of isas) {
    const op = prepareOp(call, { isa, threads });
    const wrong = table.difference(call, await op.run(), reference, expected);
    if (wrong !== undefined) {
      results.push({ isa, wrong });
      await op.dispose();
      continue;
    }
    contenders.push({ isa, op, times: [] });
  }

  const sample = async ({ op }) => {
    const before = performance.now();
    const nanoseconds = await op.time();
    return threads === 1 ? nanoseconds : (performance.now() - before) * 1e6;
  };
  for (const contender of contenders) {
    for (let i = 0; i < WARM_UP; i++) await sample(contender);
  }
  const started = performance.now();
  for (let round = 0; round < MAX_RUNS; round++) {
    if (round >= MIN_RUNS && performance.now() - started > milliseconds * contenders.length) break;
    // Another order each round: nobody always follows the same neighbour.
    for (let i = 0; i < contenders.length; i++) {
      const contender = contenders[(i + round) % contenders.length];
      contender.times.push(await sample(contender));
    }
  }
  for (const { isa, op, times } of contenders) {
    await op.dispose();
    times.sort((a, b) => a - b);
    const at = (share) => times[Math.round(share * (times.length - 1))];
    results.push({ isa, medianNs: at(0.5), p10Ns: at(0.1), p90Ns: at(0.9), runs: times.length });
  }
  return results.sort((a, b) => isas.indexOf(a.isa) - isas.indexOf(b.isa));
}

const size = ({ rows, channels }) => rows * channels;

/** What an op does in a run, in the unit that its speed is given in: `{ unit, of(nanoseconds) }`. */
function rate(call) {
  const { kind, images, inputs, outputs, attributes } = call;
  if (kind === 'linear' || kind === 'linearI8') {
    const operations = 2 * images * size(inputs.x) * outputs.y.channels;
    return { unit: 'GOP/s', of: (ns) => operations / ns };
  }
  if (kind === 'patchEmbed') {
    const operations = 2 * images * size(outputs.y) * inputs.x.rows * attributes.patch ** 2;
    return { unit: 'GOP/s', of: (ns) => operations / ns };
  }
  if (kind === 'selectiveScan') {
    const steps = images * size(inputs.u0) * attributes.directions;
    return { unit: 'ns/(token·channel·direction)', of: (ns) => ns / steps };
  }
  // Bound by memory: operands read and written once each. Weights of some kB are not counted.
  let bytes = 0;
  for (const operand of [...Object.values(inputs), ...Object.values(outputs)]) {
    if (operand === undefined) continue;
    const isCodes = operand.dtype === 'u8' || operand.data instanceof Uint8Array;
    bytes += images * size(operand) * (isCodes ? 1 : 4);
  }
  if (kind === 'selectTokens') bytes = 2 * 4 * images * size(outputs.y); // only the chosen rows are read
  return { unit: 'GB/s', of: (ns) => bytes / ns };
}

/** e.g. `197×384 → 1536`. */
function shape({ kind, images, inputs, outputs, attributes }) {
  const from = inputs.x ?? inputs.u0;
  const to = outputs.y ?? outputs.q;
  const text = kind === 'patchEmbed' ? `${inputs.x.rows}×${attributes.height}×${attributes.width} → ${to.rows}×${to.channels}`
    : from.rows !== to.rows ? `${from.rows}×${from.channels} → ${to.rows}×${to.channels}`
    : from.channels !== to.channels ? `${from.rows}×${from.channels} → ${to.channels}`
    : `${from.rows}×${from.channels}`;
  return images === 1 ? text : `${images} × ${text}`;
}

module.exports = { measure, rate, shape };
