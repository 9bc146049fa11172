/** The one way to change a Program: replace ops one by one; blocks follow. */
import type { Op, Program, Ref, TensorSpec } from './ir.js';

/**
 * A Program whose op i is replaced by `replace(op, i)` (any number of ops, in order), with `added`
 * tensors appended. Tensors that nothing touches any more are dropped.
 */
export function rewriteOps(
  program: Program,
  replace: (op: Op, index: number) => readonly Op[],
  added: readonly TensorSpec[] = [],
): Program {
  const ops: Op[] = [];
  const position: number[] = []; // new index of old op i
  program.ops.forEach((op, i) => {
    position.push(ops.length);
    ops.push(...replace(op, i));
  });
  position.push(ops.length);
  const blocks = program.blocks.map((b) => ({ ...b, first: position[b.first]!, end: position[b.end]! }));
  const touched = new Set<string>([program.input, program.output]);
  for (const op of ops) for (const ref of [...reads(op), ...writes(op)]) touched.add(ref.tensor);
  const tensors = [...program.tensors, ...added].filter((t) => touched.has(t.name));
  return { ...program, tensors, ops, blocks };
}

export function reads(op: Op): Ref[] {
  return Object.values(op.inputs).filter((r): r is Ref => r !== undefined);
}

export function writes(op: Op): Ref[] {
  return Object.values(op.outputs).filter((r): r is Ref => r !== undefined);
}

export function tensorSpec(program: Program, name: string): TensorSpec {
  const spec = program.tensors.find((t) => t.name === name);
  if (spec === undefined) throw new Error(`Program: no tensor is named '${name}'`);
  return spec;
}

/** Channels that a reference covers. */
export function refChannels(program: Program, ref: Ref): number {
  return ref.channels ?? tensorSpec(program, ref.tensor).channels - (ref.from ?? 0);
}
