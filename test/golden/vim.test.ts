/**
 * Vim in float32 against the official code, block by block (golden README section A). Tolerance: 1e-4 absolute on
 * logits, as the README proposes; blocks 1e-4 of their largest value.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { packageApi } from '../../lib/cli/environment.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import type { Weight } from '../../lib/tensor.js';
import { defineModel } from '../../lib/models/registry.js';
import { backends } from '../../lib/device.js';
import { load } from '../../lib/model.js';
import { EngineSession } from '../../lib/native/session.js';
import { cli } from '../cli/support.js';
import { floats, json, maxDifference, shared } from '../support/shared.js';

const CASES = [
  'A_vim_double_cls', 'A_vim_headcls_nodiv', 'A_vim_micro', 'A_vim_nocls_meanpool', 'A_vim_odd', 'A_vim_rope', 'A_vim_rope_midcls',
  'A_vim_tiny_depth2',
];

async function vim(dir: string) {
  const file = await openCheckpoint(path.join(dir, 'model.pth'));
  try {
    const shapes = new Map([...file.entries].map(([name, e]) => [name, e.shape]));
    const definition = defineModel(shapes, { config: json(path.join(dir, 'config.json')) as Record<string, unknown> });
    const weights = new Map<string, Weight>();
    for (const [name, e] of file.entries) weights.set(name, { shape: e.shape, dtype: e.dtype, data: await file.readFloat32(name) });
    return { definition, program: definition.buildProgram(weights) };
  } finally {
    await file.close();
  }
}

describe('golden: Vim in float32', () => {
  for (const name of CASES) {
    it(`${name}: every block and the logits, on every instruction set`, async function () {
      const dir = shared(this, 'golden', name);
      const { definition, program } = await vim(dir);
      const input = await floats(dir, 'input.npy');
      const images = input.length / definition.inputShape.reduce((a, b) => a * b, 1);
      // The official code rotates the tokens before it hands them to block 0; here that is the block's first op.
      const tokens = program.tensors.some((t) => t.name === 'layers.0.rope') ? 'layers.0.rope' : 'tokens';
      const wanted = new Map<string, string>([['tokens_in.npy', tokens], ['logits.npy', 'logits'], ['features.npy', 'features']]);
      if (name !== 'A_vim_tiny_depth2') wanted.set('patch_embed_out.npy', 'patches');
      program.blocks.forEach((block, i) => {
        wanted.set(`block_${i}_hidden.npy`, block.lossTensor);
        // The large case stores no residual after its last block.
        if (name !== 'A_vim_tiny_depth2' || i === 0) wanted.set(`block_${i}_residual.npy`, `${block.name}.residual`);
      });
      for (const isa of backends().cpu.isas) {
        const session = new EngineSession(program, { isa, threads: 2 });
        const values = await session.run({ images, feeds: { image: input }, fetches: [...wanted.values()] });
        await session.dispose();
        for (const [file, tensor] of wanted) {
          const expected = await floats(dir, file);
          const bound = tensor === 'logits' ? 1e-4 : 1e-4 * Math.max(1, ...expected.map(Math.abs));
          expect(maxDifference(values[tensor]!, expected), `${isa}: ${tensor}`).to.be.below(bound);
        }
      }
    });
  }

  for (const name of CASES) {
    it(`${name}: \`ptq4vm predict\` on .npy gives the official logits`, async function () {
      const dir = shared(this, 'golden', name);
      const output = path.join(await mkdtemp(path.join(tmpdir(), 'ptq4vm-golden-')), 'logits.npy');
      try {
        const args = ['predict', path.join(dir, 'model.pth'), path.join(dir, 'input.npy'), '--config', path.join(dir, 'config.json'), '--output', output];
        const answer = await cli(args, await packageApi());
        expect(answer.status, answer.stderr).to.equal(0);
        expect(maxDifference(await floats(output), await floats(dir, 'logits.npy'))).to.be.below(1e-4);
      } finally {
        await rm(path.dirname(output), { recursive: true, force: true });
      }
    });
  }

  it('A_vim_micro: everything inside block 0', async function () {
    const dir = shared(this, 'golden', 'A_vim_micro');
    const { program } = await vim(dir);
    const input = await floats(dir, 'input.npy');
    const m = 'layers.0.mixer';
    const rows = 17;
    // File, tensor, channels [from, count), and whether the file is in the backward direction's own (flipped) order.
    const wanted: [string, string, number?, number?, boolean?][] = [
      ['block0_norm_out', 'layers.0.norm'],
      ['block0_in_proj_out', `${m}.xz`],
      ['block0_conv_fwd', `${m}.conv1d`],
      ['block0_conv_bwd', `${m}.conv1d_b`, 0, 128, true],
      ['block0_x_proj_fwd', `${m}.x_dbl`],
      ['block0_x_proj_bwd', `${m}.x_dbl_b`, 0, 36, true],
      ['block0_out_proj_in', `${m}.scan`],
    ];
    const session = new EngineSession(program);
    const values = await session.run({ images: 3, feeds: { image: input }, fetches: wanted.map(([, tensor]) => tensor) });
    await session.dispose();
    for (const [file, tensor, , , flipped] of wanted) {
      const expected = await floats(dir, `${file}.npy`);
      const width = expected.length / rows;
      const got = (values[tensor] as Float32Array).slice(0, rows * width);
      expect(maxDifference(flipped ? flipRows(got, width) : got, expected), tensor).to.be.below(1e-4);
    }
  });

  it('load() and forward() give the same logits from a path', async function () {
    const dir = shared(this, 'golden', 'A_vim_micro');
    const model = await load(path.join(dir, 'model.pth'), { config: path.join(dir, 'config.json') });
    const logits = await model.forward({ dims: [3, 3, 32, 32], data: await floats(dir, 'input.npy') });
    expect(logits.dims).to.deep.equal([3, 10]);
    expect(maxDifference(logits.data, await floats(dir, 'logits.npy'))).to.be.below(1e-4);
    await model.dispose();
  });
});

function flipRows(values: Float32Array, width: number): Float32Array {
  const rows = values.length / width;
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) out.set(values.subarray(r * width, (r + 1) * width), (rows - 1 - r) * width);
  return out;
}
