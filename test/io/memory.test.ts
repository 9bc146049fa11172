/** Opening and reading a 400 MB checkpoint: memory of the tensors and little more, measured in a process of its own. */
import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { scratchFolder } from './support.js';
import { dict, pickle, type Py, tensor, torchLegacy, zip } from './torch-writer.js';

const TENSORS = 100;
const ELEMENTS = 1 << 20;
const BYTES = TENSORS * ELEMENTS * 4;

/** Writes `parts` at their positions; holes stay zeros and take no disk. */
function sparse(file: string, size: number, parts: readonly (readonly [number, Uint8Array])[]): void {
  const handle = fs.openSync(file, 'w');
  for (const [at, bytes] of parts) fs.writeSync(handle, bytes, 0, bytes.length, at);
  fs.ftruncateSync(handle, size);
  fs.closeSync(handle);
}

function largeZip(file: string): void {
  const root = dict({ model: dict(Object.fromEntries(views())) });
  const small = zip([
    { name: 'm/data.pkl', data: pickle(root) },
    { name: 'm/data/0', data: new Uint8Array(0), size: BYTES },
  ]);
  const directory = small.readUInt32LE(small.length - 6);
  const tail = Buffer.from(small.subarray(directory));
  tail.writeUInt32LE(directory + BYTES, tail.length - 6);
  sparse(file, directory + BYTES + tail.length, [
    [0, small.subarray(0, directory)],
    [directory + BYTES, tail],
  ]);
}

function largeLegacy(file: string): void {
  const head = torchLegacy(dict(Object.fromEntries(views())), [['0', 4, new Uint8Array(0)]], { numel: { 0: TENSORS * ELEMENTS } });
  sparse(file, head.length + BYTES, [[0, head]]);
}

function largeSafetensors(file: string): void {
  const header = Object.fromEntries(
    Array.from({ length: TENSORS }, (_, i) => [
      `w${i}`,
      { dtype: 'F32', shape: [ELEMENTS], data_offsets: [4 * i * ELEMENTS, 4 * (i + 1) * ELEMENTS] },
    ]),
  );
  const json = Buffer.from(JSON.stringify(header));
  const head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(json.length));
  sparse(file, 8 + json.length + BYTES, [
    [0, head],
    [8, json],
  ]);
}

const views = (): [string, Py][] =>
  Array.from({ length: TENSORS }, (_, i) => [`w${i}`, tensor({ numel: TENSORS * ELEMENTS, shape: [1024, 1024], offset: i * ELEMENTS })]);

const SCRIPT = `
const { openCheckpoint } = require(process.argv[1]);
(async () => {
  await openCheckpoint(process.argv[3]).then((f) => f.close());
  const before = process.resourceUsage().maxRSS;
  const file = await openCheckpoint(process.argv[2]);
  const opened = process.resourceUsage().maxRSS;
  const kept = [];
  for (const name of file.entries.keys()) kept.push(await file.readFloat32(name));
  await file.close();
  let elements = 0;
  for (const t of kept) elements += t.length;
  console.log(JSON.stringify({ elements, open: (opened - before) * 1024, read: (process.resourceUsage().maxRSS - before) * 1024 }));
})();
`;

describe('memory of a 400 MB checkpoint', () => {
  const folder = scratchFolder();
  const tsx = `file://${require.resolve('tsx')}`;
  const library = path.resolve(__dirname, '../../lib/io/checkpoint.ts');

  for (const [format, write] of [
    ['zip', largeZip],
    ['legacy', largeLegacy],
    ['safetensors', largeSafetensors],
  ] as const) {
    it(`${format}: opening takes next to nothing, reading its size once`, () => {
      const file = path.join(folder(), `${format}.bin`);
      const warm = path.join(folder(), `${format}-warm.bin`);
      write(file);
      fs.writeFileSync(
        warm,
        zip([
          { name: 'm/data.pkl', data: pickle(dict({ w: tensor() })) },
          { name: 'm/data/0', data: new Uint8Array(8) },
        ]),
      );
      const run = spawnSync(process.execPath, ['--import', tsx, '-e', SCRIPT, library, file, warm], { encoding: 'utf8' });
      expect(run.status, run.stderr).to.equal(0);
      const { elements, open, read } = JSON.parse(run.stdout) as { elements: number; open: number; read: number };
      expect(elements).to.equal(TENSORS * ELEMENTS);
      expect(open, 'bytes to open').to.be.lessThan(30e6);
      expect(read, 'bytes to read all').to.be.lessThan(1.25 * BYTES);
      console.log(`      ${(BYTES / 1e6).toFixed(0)} MB: open +${(open / 1e6).toFixed(1)} MB, read all +${(read / 1e6).toFixed(1)} MB`);
      fs.rmSync(file);
    }).timeout(30_000);
  }
});
