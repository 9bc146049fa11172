/**
 * The quantization pass: float linears → what the quantized file computes.
 *
 * `int` executes integers (u8 × s8 → s32, ARCHITECTURE "Mathematics"); `fake` computes the same
 * function in float32 by the definition. Both come from one set of parameters, so that each checks the other.
 */
import type { LinearOp, Op, Program, TensorSpec } from './ir.js';
import { actQmax, type QuantizedLinear } from '../quantizer.js';
import { refChannels, rewriteOps, tensorSpec } from './rewrite.js';

/** Replaces every linear that `layers` names. Linears without parameters stay float. */
export function quantizeProgram(program: Program, layers: ReadonlyMap<string, QuantizedLinear>, mode: 'int' | 'fake'): Program {
  const added: TensorSpec[] = [];
  const replace = mode === 'int' ? integerLinear : fakeLinear;
  const tables = new Map(program.linears.map((l) => [l.name, l.table]));
  return rewriteOps(
    program,
    (op) => {
      const layer = op.kind === 'linear' ? layers.get(op.name) : undefined;
      if (op.kind !== 'linear' || layer === undefined) return [op];
      const rows = tensorSpec(program, op.inputs.x.tensor).rows;
      const spec = { rows, channels: refChannels(program, op.inputs.x) };
      const steps = inRowOrder(layer, tables.get(op.name));
      return replace(op, layer, steps, (name, dtype) => added.push({ name, dtype, ...spec }));
    },
    added,
  );
}

interface RowSteps {
  readonly actScale: Float32Array;
  readonly actZero: Int32Array;
}

/** Steps by memory row: position t of the scan is row table[t]. */
function inRowOrder(layer: QuantizedLinear, table: Int32Array | undefined): RowSteps {
  const { actScale, actZero } = layer;
  if (table === undefined || actScale.length === 1) return { actScale, actZero: Int32Array.from(actZero) };
  const scale = new Float32Array(actScale.length);
  const zero = new Int32Array(actScale.length);
  table.forEach((row, t) => {
    scale[row] = actScale[t]!;
    zero[row] = actZero[t]!;
  });
  return { actScale: scale, actZero: zero };
}

type AddTensor = (name: string, dtype: TensorSpec['dtype']) => void;

function integerLinear(op: LinearOp, layer: QuantizedLinear, steps: RowSteps, add: AddTensor): Op[] {
  const q = { tensor: `${op.name}.q` };
  add(q.tensor, 'u8');
  return [
    {
      kind: 'quantize',
      name: q.tensor,
      inputs: { x: op.inputs.x },
      outputs: { q },
      constants: {
        qSmoothRscale: layer.smooth?.map((s) => 1 / s),
        qActRscale: steps.actScale.map((s) => 1 / s),
        qActZero: steps.actZero,
      },
      attributes: { qmax: actQmax(layer.actBits) },
      independent: ['batch', 'token', 'channel'],
    },
    {
      kind: 'linearI8',
      name: op.name,
      inputs: { x: q },
      outputs: op.outputs,
      constants: { weight: layer.weight, weightScale: layer.weightScale, ...steps, bias: op.constants.bias },
      attributes: { bits: layer.weightBits },
      independent: op.independent,
    },
  ];
}

function fakeLinear(op: LinearOp, layer: QuantizedLinear, steps: RowSteps, add: AddTensor): Op[] {
  const y = { tensor: `${op.name}.fake` };
  add(y.tensor, 'f32');
  return [
    {
      kind: 'fakeQuantize',
      name: y.tensor,
      inputs: { x: op.inputs.x },
      outputs: { y },
      constants: { ...steps, smooth: layer.smooth },
      attributes: { qmax: actQmax(layer.actBits) },
      independent: ['batch', 'token', 'channel'],
    },
    { ...op, inputs: { x: y }, constants: { weight: dequantizeWeight(layer), bias: op.constants.bias } },
  ];
}

/** weightScale[o]·qw[o,k], what the quantizer keeps of W·smooth. */
export function dequantizeWeight(layer: QuantizedLinear): Float32Array {
  const { weight, weightScale } = layer;
  const columns = weight.length / weightScale.length;
  const out = new Float32Array(weight.length);
  for (let o = 0, i = 0; o < weightScale.length; o++) {
    const scale = weightScale[o]!;
    for (let k = 0; k < columns; k++, i++) out[i] = weight[i]! * scale;
  }
  return out;
}
