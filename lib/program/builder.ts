/** Collects the tensors and ops of a Program while a model is written down. */
import type { Block, LinearInfo, Op, Program, Ref, TensorSpec } from './ir.js';

export class ProgramBuilder {
  private readonly tensors: TensorSpec[] = [];
  private readonly ops: Op[] = [];
  private readonly blocks: Block[] = [];
  private readonly linears: LinearInfo[] = [];

  /** Declares an activation tensor [rows, channels] and returns a reference to all of it. */
  tensor(name: string, rows: number, channels: number, dtype: TensorSpec['dtype'] = 'f32'): Ref {
    this.tensors.push({ name, dtype, rows, channels });
    return { tensor: name };
  }

  op(op: Op): void {
    this.ops.push(op);
  }

  /** Registers the linear that was just added as quantizable. */
  linear(info: LinearInfo): void {
    this.linears.push(info);
  }

  /** Ops added by `body` become one block. */
  block(name: string, inputs: readonly Ref[], body: () => Ref): Ref {
    const first = this.ops.length;
    const loss = body();
    this.blocks.push({ name, first, end: this.ops.length, inputs: inputs.map((r) => r.tensor), lossTensor: loss.tensor });
    return loss;
  }

  build(input: Ref, output: Ref): Program {
    const { tensors, ops, blocks, linears } = this;
    return { tensors, ops, blocks, linears, input: input.tensor, output: output.tensor };
  }
}
