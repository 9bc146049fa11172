/** What the engine refuses about one op: ERR_ENGINE, naming the op and what is wrong with it, before anything runs. */
import { expect } from 'chai';
import { backends } from '../../lib/device.js';
import { Ptq4vmError } from '../../lib/errors.js';
import { type OpCall, type Operand, type OutputSpec, prepareOp, runOp } from '../../lib/ops.js';
import type { Op } from '../../lib/program/ir.js';

/** A call that cannot be typed: the point is that it is wrong. */
interface AnyCall {
  readonly inputs: Readonly<Record<string, Operand | undefined>>;
  readonly outputs: Readonly<Record<string, OutputSpec | undefined>>;
  readonly constants: Readonly<Record<string, unknown>>;
  readonly attributes: Readonly<Record<string, unknown>>;
}

const f32 = (rows: number, channels: number): Operand => ({ rows, channels, data: new Float32Array(rows * channels) });
const u8 = (rows: number, channels: number): Operand => ({ rows, channels, data: new Uint8Array(rows * channels) });
const floats = (count: number) => new Float32Array(count);
const ints = (...values: number[]) => Int32Array.from(values);
const codes = { qActRscale: floats(3), qActZero: ints(0, 0, 0) };
const y = (rows: number, channels: number) => ({ y: { rows, channels } });
const q = (rows: number, channels: number) => ({ q: { rows, channels, dtype: 'u8' as const } });

/** A call of each kind that is right; every malformed one changes one thing about it. */
const RIGHT: Readonly<Record<Op['kind'], AnyCall>> = {
  patchEmbed: { inputs: { x: f32(3, 8 * 6) }, outputs: y(12, 5), constants: { weight: floats(5 * 12), bias: floats(5) }, attributes: { height: 8, width: 6, patch: 2, stride: 2 } },
  assembleTokens: { inputs: { x: f32(2, 5) }, outputs: y(3, 5), constants: { source: ints(0, -1, 1), cls: floats(5), pos: floats(15) }, attributes: {} },
  rope: { inputs: { x: f32(3, 4) }, outputs: y(3, 4), constants: { cos: floats(8), sin: floats(8) }, attributes: { firstToken: 1 } },
  addNorm: {
    inputs: { x: f32(3, 4), residual: f32(3, 4) }, outputs: { residual: { rows: 3, channels: 4 }, ...y(3, 4), ...q(3, 4) },
    constants: { weight: floats(4), bias: floats(4), ...codes }, attributes: { norm: 0, epsilon: 1e-5, qmax: 255 },
  },
  linear: { inputs: { x: f32(3, 4) }, outputs: y(3, 5), constants: { weight: floats(20), bias: floats(5) }, attributes: {} },
  linearI8: {
    inputs: { x: u8(3, 4) }, outputs: y(3, 5),
    constants: { weight: new Int8Array(20), weightScale: floats(5), actScale: floats(3), actZero: ints(0, 128, 255), bias: floats(5) }, attributes: { bits: 8 },
  },
  quantize: { inputs: { x: f32(3, 4) }, outputs: q(3, 4), constants: { ...codes, qSmoothRscale: floats(4) }, attributes: { qmax: 255 } },
  fakeQuantize: { inputs: { x: f32(3, 4) }, outputs: y(3, 4), constants: { actScale: floats(3), actZero: ints(0, 0, 0), smooth: floats(4) }, attributes: { qmax: 255 } },
  convSilu: {
    inputs: { x: f32(3, 4) }, outputs: { ...y(3, 4), ...q(3, 4) }, constants: { weight: floats(8), bias: floats(4), table: ints(2, -1, 0), ...codes },
    attributes: { width: 2, qmax: 255 },
  },
  selectiveScan: {
    inputs: { u0: f32(3, 4), delta0: f32(3, 4), b0: f32(3, 2), c0: f32(3, 2), z: f32(3, 4) }, outputs: y(3, 4),
    constants: { a0: floats(8), d0: floats(4), table0: ints(2, 1, 0) }, attributes: { directions: 1, dState: 2, outScale: 1 },
  },
  selectTokens: { inputs: { x: f32(3, 4) }, outputs: y(2, 4), constants: { indices: ints(2, 0) }, attributes: {} },
  meanTokens: { inputs: { x: f32(3, 4) }, outputs: y(1, 4), constants: {}, attributes: {} },
};

type Change = { [Part in keyof AnyCall]?: AnyCall[Part] };

/** What is changed (undefined takes a thing away), and what the message must say. */
const WRONG: Readonly<Record<Op['kind'], readonly (readonly [Change, RegExp])[]>> = {
  patchEmbed: [
    [{ inputs: { x: f32(3, 47) } }, /'x' must have 48 channels/],
    [{ inputs: { x: f32(2, 48) } }, /'weight' must have 40 elements but has 60/],
    [{ outputs: y(11, 5) }, /'y' must have 12 rows/],
    [{ attributes: { patch: 7 } }, /'patch' exceeds the picture/],
    [{ attributes: { patch: 0 } }, /'patch' must be an integer in 1…/],
    [{ attributes: { stride: 0 } }, /'stride' must be an integer/],
    [{ attributes: { stride: 1.5 } }, /'stride' must be an integer/],
    [{ attributes: { height: 1e9 } }, /'height' must be an integer/],
    [{ attributes: { width: undefined } }, /'width' is missing/],
    [{ constants: { bias: floats(4) } }, /'bias' must have 5 elements but has 4/],
  ],
  assembleTokens: [
    [{ constants: { source: ints(0, -1, 2) } }, /'source' points outside/],
    [{ constants: { source: ints(0, -2, 1) } }, /'source' points outside/],
    [{ constants: { source: ints(0, -(2 ** 31), 1) } }, /'source' points outside/],
    [{ constants: { cls: undefined } }, /'source' points outside/],
    [{ constants: { source: ints(0, 1) } }, /'source' must have 3 elements but has 2/],
    [{ constants: { cls: floats(6) } }, /'cls' must be \[k, channels\]/],
    [{ constants: { pos: floats(14) } }, /'pos' must have 15 elements/],
    [{ outputs: y(3, 4) }, /'y' must have 5 channels/],
  ],
  rope: [
    [{ inputs: { x: f32(3, 3) }, outputs: y(3, 3) }, /channels must be even/],
    [{ attributes: { firstToken: 4 } }, /'firstToken' must be an integer in 0…3/],
    [{ attributes: { firstToken: -1 } }, /'firstToken' must be an integer/],
    [{ constants: { cos: floats(7) } }, /'cos' must have 8 elements/],
    [{ constants: { sin: undefined } }, /'sin' is missing/],
    [{ outputs: y(2, 4) }, /'y' must have 3 rows/],
  ],
  addNorm: [
    [{ attributes: { norm: 2 } }, /'norm' must be an integer in 0…1/],
    [{ attributes: { epsilon: NaN } }, /'epsilon' is missing or not a number/],
    [{ attributes: { qmax: undefined } }, /'qmax' is missing/],
    [{ inputs: { residual: f32(2, 4) } }, /'residual' must have 3 rows/],
    [{ outputs: { residual: { rows: 3, channels: 5 } } }, /'residual' must have 4 channels/],
    [{ outputs: { y: undefined, q: undefined } }, /needs an output 'y' or 'q'/],
    [{ outputs: { q: undefined } }, /unknown (constant|attribute) '(q\w+)'/],
    [{ outputs: { q: { rows: 3, channels: 4, dtype: 'f32' } } }, /'q' must be u8 but is/],
    [{ constants: { weight: floats(3) } }, /'weight' must have 4 elements but has 3/],
  ],
  linear: [
    [{ constants: { weight: floats(19) } }, /'weight' must have 20 elements but has 19/],
    [{ constants: { weight: new Int8Array(20) } }, /'weight' must be Float32Array but is Int8Array/],
    [{ constants: { weight: undefined } }, /'weight' is missing/],
    [{ constants: { extra: floats(1) } }, /unknown constant 'extra'/],
    [{ attributes: { extra: 1 } }, /unknown attribute 'extra'/],
    [{ inputs: { extra: f32(3, 4) } }, /unknown operand 'extra'/],
    [{ outputs: { extra: { rows: 3, channels: 5 } } }, /unknown operand 'extra'/],
    [{ inputs: { x: u8(3, 4) } }, /'x' must be f32 but is 'in:x' u8 \[3, 4\]/],
    [{ inputs: { x: undefined } }, /'x' is missing/],
    [{ outputs: { y: undefined } }, /'y' is missing/],
    [{ outputs: y(4, 5) }, /'y' must have 3 rows/],
  ],
  linearI8: [
    [{ inputs: { x: f32(3, 4) } }, /'x' must be u8/],
    [{ inputs: { x: u8(3, 32769) }, outputs: y(3, 1), constants: { weight: new Int8Array(32769) } }, /32768 input channels/],
    [{ constants: { weight: floats(20) } }, /'weight' must be Int8Array but is Float32Array/],
    [{ constants: { weightScale: floats(4) } }, /'weightScale' must have 5 elements/],
    [{ constants: { actScale: floats(2) } }, /'actScale' must have 1 or 3 elements/],
    [{ constants: { actScale: floats(0) } }, /'actScale' must have 1 or 3 elements/],
    [{ constants: { actZero: ints(0) } }, /'actZero' must have 3 elements but has 1/],
    [{ constants: { actZero: ints(0, 256, 0) } }, /'actZero' must lie in 0…qmax/],
    [{ constants: { actZero: ints(0, -1, 0) } }, /'actZero' must lie in 0…qmax/],
    [{ attributes: { bits: 9 } }, /'bits' must be an integer in 2…8/],
    [{ attributes: { bits: undefined } }, /'bits' is missing/],
  ],
  quantize: [
    [{ attributes: { qmax: 0 } }, /'qmax' must be an integer in 1…255/],
    [{ attributes: { qmax: 256 } }, /'qmax' must be an integer/],
    [{ attributes: { qmax: 15 }, constants: { qActZero: ints(0, 16, 0) } }, /'qActZero' must lie in 0…qmax/],
    [{ constants: { qActZero: ints(0, 0) } }, /'qActZero' must have 3 elements but has 2/],
    [{ constants: { qActRscale: floats(4) } }, /'qActRscale' must have 1 or 3 elements/],
    [{ constants: { qActRscale: undefined } }, /'qActRscale' must have 1 or 3 elements/],
    [{ constants: { qSmoothRscale: floats(3) } }, /'qSmoothRscale' must have 4 elements/],
    [{ outputs: { q: undefined } }, /'q' is missing/],
    [{ outputs: q(3, 3) }, /'q' must have 4 channels/],
  ],
  fakeQuantize: [
    [{ attributes: { qmax: Infinity } }, /'qmax' is missing or not a number/],
    [{ attributes: { qmax: 7 }, constants: { actZero: ints(8, 0, 0) } }, /'actZero' must lie in 0…qmax/],
    [{ constants: { actScale: floats(2) } }, /'actScale' must have 1 or 3 elements/],
    [{ constants: { smooth: floats(5) } }, /'smooth' must have 4 elements/],
  ],
  convSilu: [
    [{ attributes: { width: 0 } }, /'width' must be an integer in 1…8/],
    [{ attributes: { width: 9 } }, /'width' must be an integer in 1…8/],
    [{ constants: { weight: floats(12) } }, /'weight' must have 8 elements but has 12/],
    [{ constants: { table: ints(0, 0, 1) } }, /'table' is not a permutation/],
    [{ constants: { table: ints(0, 1, 3) } }, /'table' is not a permutation/],
    [{ constants: { table: ints(0, 1, -2) } }, /'table' is not a permutation/],
    [{ constants: { table: ints(0, 1) } }, /'table' must have 3 elements but has 2/],
    [{ constants: { table: floats(3) } }, /'table' must be Int32Array/],
    [{ outputs: { y: undefined, q: undefined } }, /needs an output 'y' or 'q'/],
  ],
  selectiveScan: [
    [{ attributes: { directions: 0 } }, /'directions' must be an integer in 1…4/],
    [{ attributes: { directions: 5 } }, /'directions' must be an integer in 1…4/],
    [{ attributes: { directions: 2 } }, /'u1' is missing/],
    [{ attributes: { dState: 0 } }, /'dState' must be an integer in 1…256/],
    [{ attributes: { dState: 257 } }, /'dState' must be an integer in 1…256/],
    [{ attributes: { outScale: undefined } }, /'outScale' is missing/],
    [{ inputs: { delta0: f32(2, 4) } }, /'delta0' must have 3 rows/],
    [{ inputs: { b0: f32(3, 3) } }, /'b0' must have 2 channels/],
    [{ inputs: { z: f32(3, 5) } }, /'z' must have 4 channels/],
    [{ constants: { a0: floats(4) } }, /'a0' must have 8 elements but has 4/],
    [{ constants: { d0: floats(3) } }, /'d0' must have 4 elements/],
    [{ constants: { table0: ints(1, 1, 0) } }, /'table0' is not a permutation/],
    [{ constants: { table1: ints(0, 1, 2) } }, /unknown constant 'table1'/],
    [{ inputs: { u1: f32(3, 4) } }, /unknown operand 'u1'/],
  ],
  selectTokens: [
    [{ constants: { indices: ints(3, 0) } }, /'indices' points outside/],
    [{ constants: { indices: ints(-1, 0) } }, /'indices' points outside/],
    [{ constants: { indices: ints(0) } }, /'indices' must have 2 elements/],
    [{ outputs: y(2, 3) }, /'y' must have 4 channels/],
  ],
  meanTokens: [
    [{ outputs: y(2, 4) }, /'y' must have 1 rows/],
    [{ constants: { weight: floats(4) } }, /unknown constant 'weight'/],
  ],
};

function changed(kind: Op['kind'], change: Change): OpCall {
  const right = RIGHT[kind];
  return {
    kind, images: 1,
    inputs: { ...right.inputs, ...change.inputs },
    outputs: { ...right.outputs, ...change.outputs },
    constants: { ...right.constants, ...change.constants },
    attributes: { ...right.attributes, ...change.attributes },
  } as unknown as OpCall;
}

describe('what the engine refuses about an op', () => {
  for (const kind of Object.keys(WRONG) as Op['kind'][]) {
    it(`${kind}: ${WRONG[kind].length} malformed calls`, async () => {
      for (const isa of backends().cpu.isas) await runOp(changed(kind, {}), { isa, threads: 1 });
      for (const [change, wanted] of WRONG[kind]) {
        let caught: unknown;
        try {
          await prepareOp(changed(kind, change)).dispose();
        } catch (error) {
          caught = error;
        }
        expect(caught, `nothing was said about ${wanted}`).to.be.instanceOf(Ptq4vmError);
        const { code, message } = caught as Ptq4vmError;
        expect(code, message).to.equal('ERR_ENGINE');
        expect(message).to.match(new RegExp(`^op '${kind}' \\(${kind}\\): `)).and.to.match(wanted);
      }
    });
  }

  it('an op of unknown kind', () => {
    expect(() => prepareOp({ ...changed('linear', {}), kind: 'toString' as Op['kind'] })).to.throw(Ptq4vmError, "op 'toString': unknown kind 'toString'");
  });

  it('values of the wrong kind are the caller\'s mistake', () => {
    expect(() => prepareOp(changed('linear', { constants: { weight: new Float64Array(20) } }))).to.throw(TypeError, "for constant 'weight'");
    expect(() => prepareOp(changed('linear', { constants: { weight: [1, 2, 3] } }))).to.throw(TypeError, "for constant 'weight'");
    expect(() => prepareOp(changed('rope', { attributes: { firstToken: '1' } }))).to.throw(TypeError, "attribute 'firstToken'");
    for (const images of [0, -1, 1.5, NaN]) expect(() => prepareOp({ ...changed('linear', {}), images })).to.throw(RangeError, 'images');
  });

  it('an instruction set that is not there, and thread counts out of range', () => {
    expect(() => prepareOp(changed('linear', {}), { isa: 'mmx' })).to.throw(Ptq4vmError, 'mmx').with.property('code', 'ERR_DEVICE');
    expect(() => prepareOp(changed('linear', {}), { threads: 257 })).to.throw(RangeError, 'threads');
    expect(() => prepareOp(changed('linear', {}), { threads: -1 })).to.throw(RangeError, 'threads');
  });

  it('operands of another length than their shape', async () => {
    for (const length of [11, 13, 0]) {
      const short = prepareOp(changed('linear', { inputs: { x: { rows: 3, channels: 4, data: floats(length) } } }));
      const error = await short.run().then(() => undefined, (e: unknown) => e);
      expect(error, `${length} elements`).to.be.instanceOf(RangeError);
      expect((error as Error).message).to.match(/Expected 12 elements for feed 'in:x' but received/);
      await short.dispose();
    }
  });
});
