/**
 * Fuzzing of the file readers: valid small files, damaged at random. Whatever comes, a reader succeeds or throws a
 * Ptq4vmError with a file's code; it never throws anything else, never hangs, never leaves a promise to fail on its own.
 *
 * FUZZ_ITERATIONS sets the number of damaged files (default 4000), FUZZ_SEED repeats a run. A failure prints its seed and
 * keeps the file.
 */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { Ptq4vmError } from '../../lib/errors.js';
import { openCheckpointSource } from '../../lib/io/checkpoint.js';
import { type ByteSource, memorySource } from '../../lib/io/files.js';
import { openNpySource, readNpyIntegersSource, readNpySource } from '../../lib/io/npy.js';
import { unpickle } from '../../lib/io/pickle.js';
import { PlainConverter } from '../../lib/io/plain.js';
import { openSafetensorsSource } from '../../lib/io/safetensors.js';
import { random } from '../io/support.js';
import {
  build,
  bytesOf,
  call,
  dict,
  global,
  newObject,
  orderedDict,
  pickle,
  type Py,
  tensor,
  torchLegacy,
  torchZip,
  tuple,
  zip,
} from '../io/torch-writer.js';

const ITERATIONS = Number(process.env.FUZZ_ITERATIONS ?? 4000);
const SEED = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 32));
/** A damaged file of a few kilobytes takes under a millisecond; this much is a hang, with room for a busy machine. */
const MAX_MS = 2000;
const CODES = new Set(['ERR_FILE_FORMAT', 'ERR_UNSUPPORTED', 'ERR_DATA']);

type Reader = (source: ByteSource) => Promise<void>;

const readCheckpoint =
  (open: typeof openCheckpointSource): Reader =>
  async (source) => {
    const file = await open(source);
    JSON.stringify(file.metadata);
    for (const name of file.entries.keys()) await file.readFloat32(name);
    await file.close();
  };

const READERS: Record<string, Reader> = {
  checkpoint: readCheckpoint(openCheckpointSource),
  safetensors: readCheckpoint(openSafetensorsSource),
  pickle: async (source) => {
    const { value } = unpickle(await source.read(0, source.size, 'all'), { label: 'fuzz', persistentLoad: (id) => id });
    JSON.stringify(new PlainConverter().convert(value));
  },
  /** The damaged bytes are the pickle of a file that is sound otherwise. */
  wrapped: async (source) => {
    const bytes = await source.read(0, source.size, 'all');
    const storages = STORAGES.map(([key, , data]) => ({ name: `x/data/${key}`, data }));
    await READERS.checkpoint!(memorySource(zip([{ name: 'x/data.pkl', data: bytes }, ...storages], { align: 1 })));
  },
  npy: async (source) => {
    (await readNpySource(source)).toFloat32();
  },
  npyRows: async (source) => {
    const file = await openNpySource(source);
    await file.readRows(0, Math.min(2, file.rows));
    await file.close();
  },
  npyIntegers: async (source) => {
    await readNpyIntegersSource(source);
  },
};

function root(): Map<Py, Py> {
  return dict({
    model: orderedDict({
      'a.weight': tensor({ storage: '0', numel: 24, shape: [2, 3, 4] }),
      'a.bias': tensor({ storage: '0', numel: 24, shape: [4, 3], strides: [1, 4], offset: 5 }),
      'b.half': tensor({ storage: '1', type: 'HalfStorage', shape: [3] }),
      'b.count': tensor({ storage: '2', type: 'LongStorage', shape: [] }),
      'b.parameter': call(global('torch._utils', '_rebuild_parameter'), tensor({ storage: '0', numel: 24, shape: [2] }), true, null),
    }),
    epoch: 7,
    lr: 0.125,
    big: -(2n ** 70n),
    args: build(
      newObject(global('argparse', 'Namespace')),
      dict({ lr: 5e-4, tags: ['a', 'b'], size: call(global('torch', 'Size'), tuple(2, 3)) }),
    ),
  });
}
const STORAGES: [string, number, Uint8Array][] = [
  [
    '0',
    4,
    bytesOf(
      'f32',
      Array.from({ length: 24 }, (_, i) => i / 8),
    ),
  ],
  ['1', 2, bytesOf('f16', [1, 2, 3])],
  ['2', 8, bytesOf('i64', [9])],
];

function safetensors(): Buffer {
  const json = Buffer.from(
    JSON.stringify({
      __metadata__: { format: 'pt', note: 'é"\\' },
      a: { dtype: 'F32', shape: [2, 2], data_offsets: [0, 16] },
      b: { dtype: 'BF16', shape: [3], data_offsets: [16, 22] },
      c: { dtype: 'I64', shape: [], data_offsets: [22, 30] },
    }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, Buffer.alloc(30, 7)]);
}

function npy(descr: string, fortran: boolean, shape: string, data: Uint8Array, version: number): Buffer {
  const text = Buffer.from(`{'descr': '${descr}', 'fortran_order': ${fortran ? 'True' : 'False'}, 'shape': ${shape}, }\n`);
  const head = Buffer.alloc(version === 1 ? 10 : 12);
  head.write('\x93NUMPY', 'latin1');
  head[6] = version;
  if (version === 1) head.writeUInt16LE(text.length, 8);
  else head.writeUInt32LE(text.length, 8);
  return Buffer.concat([head, text, data]);
}

/** reader, valid file */
const CORPUS: readonly (readonly [keyof typeof READERS, Buffer])[] = [
  ['checkpoint', torchZip(root(), Object.fromEntries(STORAGES.map(([k, , d]) => [k, d])), [], { align: 1 })],
  [
    'checkpoint',
    torchZip(root(), Object.fromEntries(STORAGES.map(([k, , d]) => [k, d])), [{ name: 'archive/byteorder', data: Buffer.from('big') }]),
  ],
  [
    'checkpoint',
    zip(
      [
        { name: 'x/data.pkl', data: deflateRawSync(pickle(root())), method: 8, size: pickle(root()).length },
        ...STORAGES.map(([key, , data]) => ({ name: `x/data/${key}`, data: deflateRawSync(data), method: 8, size: data.length })),
      ],
      { align: 1 },
    ),
  ],
  ['checkpoint', torchLegacy(root(), STORAGES)],
  ['checkpoint', safetensors()],
  ['safetensors', safetensors()],
  ['pickle', pickle(root())],
  ['wrapped', pickle(root())],
  ['wrapped', pickle(root())],
  ...(JSON.parse(fs.readFileSync(path.join(__dirname, '../io/data/pickles.json'), 'utf8')) as string[]).map(
    (base64) => ['pickle', Buffer.from(base64, 'base64')] as const,
  ),
  ['npy', npy('<f4', false, '(2, 3)', bytesOf('f32', [1, 2, 3, 4, 5, 6]), 1)],
  ['npy', npy('>f8', true, '(2, 3)', bytesOf('f64', [1, 2, 3, 4, 5, 6]), 2)],
  ['npyRows', npy('<f2', true, '(2, 3)', bytesOf('f16', [1, 2, 3, 4, 5, 6]), 3)],
  ['npyRows', npy('|u1', false, '(2, 3)', bytesOf('u8', [1, 2, 3, 4, 5, 6]), 1)],
  ['npyIntegers', npy('<i8', false, '(3,)', bytesOf('i64', [1, 2, 3]), 1)],
];

const EXTREMES = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff];
const WIDE = [0n, 1n, 0x7fn, 0xffn, 0xffffn, 0x7fffffffn, 0x80000000n, 0xffffffffn, 2n ** 53n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n];

/** One to four damages: bits, bytes, numbers, cuts, copies, pieces of other files. */
function damage(bytes: Buffer, next: () => number): Buffer {
  const below = (n: number): number => Math.floor(next() * n);
  let out = Buffer.from(bytes);
  for (let rounds = next() < 0.6 ? 1 : 2 + below(3); rounds > 0; rounds--) {
    const at = below(out.length + 1);
    const length = 1 + below(next() < 0.8 ? 16 : out.length + 1);
    switch (below(9)) {
      case 0:
      case 1:
        if (at < out.length) out[at]! ^= 1 << below(8);
        break;
      case 2:
        if (at < out.length) out[at] = EXTREMES[below(EXTREMES.length)]!;
        break;
      case 3:
        if (at < out.length) out[at] = below(256);
        break;
      case 4: {
        const number = Buffer.alloc(8);
        number.writeBigUInt64LE(WIDE[below(WIDE.length)]!);
        number.copy(out, at, 0, [2, 4, 8][below(3)]!);
        break;
      }
      case 5:
        if (next() < 0.3) out = out.subarray(0, at);
        break;
      case 6:
        out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(out.length, at + length))]);
        break;
      case 7: {
        const from = below(out.length + 1);
        out = Buffer.concat([out.subarray(0, at), out.subarray(from, from + length), out.subarray(at)]);
        break;
      }
      default: {
        const [, other] = CORPUS[below(CORPUS.length)]!;
        const from = below(other.length);
        out = Buffer.concat([out.subarray(0, at), other.subarray(from, from + length), out.subarray(Math.min(out.length, at + length))]);
      }
    }
  }
  return out;
}

/** What became of one file; throws when it is neither success nor a clear error. */
async function judge(reader: Reader, bytes: Buffer): Promise<'read' | 'refused'> {
  const start = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('never finished')), 10 * MAX_MS);
  });
  let outcome: 'read' | 'refused' = 'read';
  try {
    await Promise.race([reader(memorySource(bytes, 'fuzz')), late]);
  } catch (error) {
    if (!(error instanceof Ptq4vmError) || !CODES.has(error.code)) throw error;
    expect(error.message.length, error.message.slice(0, 600)).to.be.lessThan(1000);
    outcome = 'refused';
  } finally {
    clearTimeout(timer);
  }
  expect(performance.now() - start, 'milliseconds').to.be.lessThan(MAX_MS);
  return outcome;
}

describe('fuzzing the readers', () => {
  it('has a valid file for every reader to begin with', async () => {
    for (const [name, bytes] of CORPUS) expect(await judge(READERS[name]!, bytes), name).to.equal('read');
  });

  it(`reads or refuses ${ITERATIONS} damaged files (FUZZ_SEED=${SEED})`, async function () {
    this.timeout(10_000 + 20 * ITERATIONS);
    const strays: unknown[] = [];
    const onStray = (error: unknown): void => void strays.push(error);
    process.on('unhandledRejection', onStray);
    const before = process.memoryUsage().rss;
    const tally = { read: 0, refused: 0 };
    try {
      for (let i = 0; i < ITERATIONS; i++) {
        const next = random(SEED + i);
        const [name, bytes] = CORPUS[Math.floor(next() * CORPUS.length)]!;
        const damaged = damage(bytes, next);
        try {
          tally[await judge(READERS[name]!, damaged)]++;
          if (strays.length > 0) throw strays[0];
        } catch (error) {
          const kept = path.join(os.tmpdir(), `ptq4vm-fuzz-${name}-${SEED + i}.bin`);
          fs.writeFileSync(kept, damaged);
          throw new Error(`FUZZ_SEED=${SEED} iteration ${i}, reader ${name}, file kept as ${kept}: ${String(error)}`, { cause: error });
        }
      }
    } finally {
      process.off('unhandledRejection', onStray);
    }
    console.log(`      seed ${SEED}: ${tally.read} still readable, ${tally.refused} refused`);
    expect(tally.refused, 'the damage must bite').to.be.greaterThan(ITERATIONS / 10);
    expect(process.memoryUsage().rss - before, 'bytes of memory').to.be.lessThan(600e6);
  });
});
