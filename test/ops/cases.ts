/** The case table: every op of the Program, for the tests of every backend and instruction set and for bench/ops.js (ARCHITECTURE "Tests and evidence"). */
import type { Op } from '../../lib/program/ir.js';
import { addNormCases } from './addNorm.cases.js';
import { assembleTokensCases } from './assembleTokens.cases.js';
import type { OpCase } from './case.js';
import { convSiluCases } from './convSilu.cases.js';
import { fakeQuantizeCases } from './fakeQuantize.cases.js';
import { linearCases } from './linear.cases.js';
import { linearI8Cases } from './linearI8.cases.js';
import { meanTokensCases } from './meanTokens.cases.js';
import { patchEmbedCases } from './patchEmbed.cases.js';
import { quantizeCases } from './quantize.cases.js';
import { ropeCases } from './rope.cases.js';
import { selectiveScanCases } from './selectiveScan.cases.js';
import { selectTokensCases } from './selectTokens.cases.js';

export const CASES: Readonly<Record<Op['kind'], readonly OpCase[]>> = {
  patchEmbed: patchEmbedCases,
  assembleTokens: assembleTokensCases,
  rope: ropeCases,
  addNorm: addNormCases,
  linear: linearCases,
  linearI8: linearI8Cases,
  quantize: quantizeCases,
  fakeQuantize: fakeQuantizeCases,
  convSilu: convSiluCases,
  selectiveScan: selectiveScanCases,
  selectTokens: selectTokensCases,
  meanTokens: meanTokensCases,
};

export const KINDS = Object.keys(CASES) as Op['kind'][];

/** Stream of random numbers of a case, and what messages call it. */
export function caseTitle(kind: Op['kind'], { name, model }: OpCase): string {
  return `${kind}: ${model === undefined ? name : `${model} ${name}`}`;
}
