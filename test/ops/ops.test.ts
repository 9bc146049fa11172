/**
 * Every op of the case table on every instruction set that runs here (ARCHITECTURE "Tests and evidence"):
 * `reference` against reference.ts, rounded once; the others against `reference`, within TOLERANCE of compare.ts. Bits do
 * not depend on threads, on the other images of a batch, on where operands lie, or on which outputs are wanted.
 */
import { backends } from '../../lib/device.js';
import type { SessionOptions } from '../../lib/native/addon-types.js';
import type { Values } from '../../lib/native/session.js';
import { type OpCall, prepareOp, runOp } from '../../lib/ops.js';
import type { Op } from '../../lib/program/ir.js';
import { CASES, caseTitle, KINDS } from './cases.js';
import { codesByDivision, codesOf, REFERENCE } from './reference.js';
import { codesTooFar, difference, expectedOf, firstNotRounded, firstOtherBits } from './compare.js';
import { Random, SEED } from './random.js';
import { runSliced } from './sliced.js';

const [REFERENCE_ISA, ...FAST_ISAS] = backends().cpu.isas;

/** Every message says how to see the failure again. */
function fail(isa: string, what: string): never {
  throw new Error(`${isa}: ${what} (SEED=${SEED})`);
}

function sameBits(isa: string, what: string, got: Values, wanted: Values): void {
  for (const [name, value] of Object.entries(got)) {
    const at = firstOtherBits(value, wanted[name]!);
    if (at >= 0) fail(isa, `${name}[${at}] is ${value[at]} ${what}, else ${wanted[name]![at]}`);
  }
}

/** The call with one image of its batch. */
function oneImage(call: OpCall, image: number): OpCall {
  const inputs = Object.entries(call.inputs).map(([key, v]) => {
    if (v === undefined) return [key, v];
    const size = v.rows * v.channels;
    return [key, { ...v, data: v.data.slice(image * size, (image + 1) * size) }];
  });
  return { ...call, images: 1, inputs: Object.fromEntries(inputs) };
}

/** The call with one of the outputs `y` and `q` alone. */
function only(call: OpCall, kept: 'y' | 'q'): OpCall {
  const { y, q, ...rest } = call.outputs;
  if (kept === 'q') return { ...call, outputs: { ...rest, q } };
  const constants = Object.entries(call.constants!).filter(([key]) => !['qActRscale', 'qActZero', 'qSmoothRscale'].includes(key));
  const attributes = Object.entries(call.attributes!).filter(([key]) => key !== 'qmax');
  return { ...call, outputs: { ...rest, y }, constants: Object.fromEntries(constants), attributes: Object.fromEntries(attributes) as OpCall['attributes'] };
}

async function checkThreads(call: OpCall, isa: string, counts: readonly number[], wanted: Values): Promise<void> {
  for (const threads of counts) {
    const op = prepareOp(call, { isa, threads });
    // Twice: the second run finds the first one's values in its memory.
    for (let run = 0; run < 2; run++) sameBits(isa, `with ${threads} threads`, await op.run(), wanted);
    await op.dispose();
  }
}

async function checkInvariance(call: OpCall, isa: string, wanted: Values): Promise<void> {
  const options: SessionOptions = { isa, threads: 1 };
  await checkThreads(call, isa, [1, 2, 3], wanted);
  sameBits(isa, 'between other channels', await runSliced(call, options), wanted);
  for (let image = 0; call.images > 1 && image < call.images; image++) {
    const alone = await runOp(oneImage(call, image), options);
    const part = Object.entries(wanted).map(([name, v]) => [name, v.slice((image * v.length) / call.images, ((image + 1) * v.length) / call.images)]);
    sameBits(isa, `for image ${image} alone`, alone, Object.fromEntries(part) as Values);
  }
  if (call.outputs.y === undefined || call.outputs.q === undefined) return;
  for (const kept of ['y', 'q'] as const) sameBits(isa, `with ${kept} alone`, await runOp(only(call, kept), options), wanted);
}

describe('ops', function () {
  this.timeout(60_000);

  before(() => {
    if (REFERENCE_ISA !== 'reference') throw new Error(`the weakest instruction set is ${REFERENCE_ISA}, not the reference`);
    console.log(`    seed ${SEED}; ${FAST_ISAS.join(', ')} against reference`);
  });

  for (const kind of KINDS) {
    describe(kind, () => {
      for (const testCase of CASES[kind]) {
        it(testCase.model === undefined ? testCase.name : `${testCase.model} ${testCase.name}`, async () => {
          const call = testCase.make(new Random(caseTitle(kind, testCase)));
          const expected = expectedOf(call);
          const reference = await runOp(call, { isa: 'reference', threads: 2 });
          for (const [name, e] of Object.entries(expected)) {
            if (call.outputs[name] === undefined) continue;
            const at = firstNotRounded(reference[name]!, e);
            if (at >= 0) fail('reference', `${name}[${at}] is ${reference[name]![at]}, wanted ${e.value[at]}`);
          }
          for (const isa of backends().cpu.isas) {
            const got = isa === 'reference' ? reference : await runOp(call, { isa, threads: 1 });
            const wrong = difference(call, got, reference, expected);
            if (wrong !== undefined) fail(isa, wrong);
            // Real shapes take the slow instruction sets too long to run ten times.
            if (testCase.model === undefined) await checkInvariance(call, isa, got);
            else if (isa === backends().cpu.isa) await checkThreads(call, isa, [2, 3], got);
          }
        });
      }
    });
  }

  it('the table covers every op that the engine knows', () => {
    const known: Record<Op['kind'], true> = {
      patchEmbed: true, assembleTokens: true, rope: true, addNorm: true, linear: true, linearI8: true, quantize: true, fakeQuantize: true, convSilu: true,
      selectiveScan: true, selectTokens: true, meanTokens: true,
    };
    for (const kind of Object.keys(known) as Op['kind'][]) {
      if (!(CASES[kind]?.length > 0)) throw new Error(`no case for ${kind}`);
      if (kind !== 'quantize' && REFERENCE[kind] === undefined) throw new Error(`no reference for ${kind}`);
    }
    const titles = KINDS.flatMap((kind) => CASES[kind].map((c) => caseTitle(kind, c)));
    const twice = titles.filter((t, i) => titles.indexOf(t) !== i);
    if (twice.length > 0) throw new Error(`two cases are named '${twice[0]}': they would share their numbers`);
  });

  it('codes by reciprocals are those of the definition, which divides (ARCHITECTURE "Mathematics")', () => {
    for (const testCase of CASES.quantize) {
      const call = testCase.make(new Random(caseTitle('quantize', testCase)));
      const x = call.inputs.x!.data as Float32Array;
      const wrong = codesTooFar(codesOf(x, call), codesByDivision(x, call));
      if (wrong !== undefined) fail(testCase.name, wrong);
    }
  });
});
