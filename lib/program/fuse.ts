/**
 * Fusion: the producer of a tensor quantizes on the way out.
 *
 * `quantize` ops that read a whole tensor made by addNorm, convSilu or selectiveScan disappear into
 * that op; the float tensor disappears too when nothing else reads it. The arithmetic is the same
 * (arith.h quantize_code on the same float), so fused and unfused Programs give equal bits.
 */
import type { Op, Program, QuantizeOp } from './ir.js';
import { reads, rewriteOps } from './rewrite.js';

type Producer = Extract<Op, { kind: 'addNorm' | 'convSilu' | 'selectiveScan' }>;

export function fuseProgram(program: Program): Program {
  const producers = new Map<string, Producer>(); // by the float tensor they make
  const readers = new Map<string, number>();
  for (const op of program.ops) {
    if ((op.kind === 'addNorm' || op.kind === 'convSilu' || op.kind === 'selectiveScan') && op.outputs.y && !op.outputs.q) {
      if (op.outputs.y.from === undefined) producers.set(op.outputs.y.tensor, op);
    }
    for (const ref of reads(op)) readers.set(ref.tensor, (readers.get(ref.tensor) ?? 0) + 1);
  }

  const absorbed = new Map<Producer, QuantizeOp>();
  for (const op of program.ops) {
    if (op.kind !== 'quantize' || op.inputs.x.from !== undefined) continue;
    const producer = producers.get(op.inputs.x.tensor);
    if (producer !== undefined && !absorbed.has(producer)) absorbed.set(producer, op);
  }

  const gone = new Set<Op>(absorbed.values());
  const kept = new Set([program.output, ...program.blocks.flatMap((b) => b.inputs)]);
  return rewriteOps(program, (op) => {
    if (gone.has(op)) return [];
    const quantize = absorbed.get(op as Producer);
    if (quantize === undefined) return [op];
    const producer = op as Producer;
    const y = producer.outputs.y!;
    const needed = readers.get(y.tensor)! > 1 || kept.has(y.tensor);
    return [
      {
        ...producer,
        outputs: { ...producer.outputs, y: needed ? y : undefined, q: quantize.outputs.q },
        constants: { ...producer.constants, ...quantize.constants },
        attributes: { ...producer.attributes, qmax: quantize.attributes.qmax },
      } as Op,
    ];
  });
}
