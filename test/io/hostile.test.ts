/** Broken, foreign and hostile checkpoint files: each must give its own clear error, never a crash, a hang or a huge allocation. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { CASES, floats, FORMAT, goodLegacy, goodZip, text } from './hostile-cases.js';
import { expectFailure, scratchFolder } from './support.js';
import { code, dict, orderedDict, raw, tensor, torchZip, tuple } from './torch-writer.js';

describe('hostile and broken checkpoint files', () => {
  const folder = scratchFolder();
  const before = process.memoryUsage().rss;

  it('has the good files that the broken ones are made from', async () => {
    for (const bytes of [goodZip, goodLegacy]) {
      const full = path.join(folder(), 'good');
      fs.writeFileSync(full, bytes);
      const file = await openCheckpoint(full);
      expect(Array.from(await file.readFloat32('w'))).to.deep.equal([1, 1]);
      await file.close();
    }
  });

  CASES.forEach(([title, bytes, errorCode, fragment], i) => {
    it(title, async () => {
      const full = path.join(folder(), `case-${i}.pth`);
      fs.writeFileSync(full, bytes);
      const open = openDescriptors();
      const failure = await expectFailure(
        openCheckpoint(full).then(async (file) => {
          // Some damage lies in the data and shows when it is read.
          try {
            for (const name of file.entries.keys()) await file.read(name);
          } finally {
            await file.close();
          }
        }),
        errorCode,
        fragment,
      );
      expect(failure.message, 'the message names the file').to.include(full);
      expect(openDescriptors(), 'no descriptor is left open').to.equal(open);
    });
  });

  it('a path that is absent, a folder, a device, a pipe, or no path', async () => {
    await expectFailure(openCheckpoint(path.join(folder(), 'absent.pth')), 'ERR_FILE_NOT_FOUND', 'ENOENT');
    await expectFailure(openCheckpoint(folder()), 'ERR_FILE_NOT_FOUND', 'it is a folder');
    await expectFailure(openCheckpoint('a\0b'), 'ERR_FILE_NOT_FOUND', 'NUL');
    if (process.platform !== 'win32') await expectFailure(openCheckpoint('/dev/zero'), 'ERR_FILE_NOT_FOUND', 'not a regular file');
    for (const bad of [undefined, null, 7, '', {}]) {
      let error: unknown;
      await openCheckpoint(bad as string).catch((e: unknown) => (error = e));
      expect(error)
        .to.be.instanceOf(TypeError)
        .with.property('message')
        .that.matches(/Expected a file path for path but received/);
    }
  });

  it('a truncation at every byte of a small zip and a small legacy file', async () => {
    for (const bytes of [goodZip, goodLegacy, torchZip(orderedDict({ w: tensor() }), { 0: floats(2) }, [], { align: 1 })]) {
      for (let length = 0; length < bytes.length; length++) {
        const full = path.join(folder(), 'cut.pth');
        fs.writeFileSync(full, bytes.subarray(0, length));
        await expectFailure(openCheckpoint(full), FORMAT, /./);
      }
    }
  }).timeout(20_000);

  it('took no more memory than files of this size warrant', () => {
    // Cases above declare up to 2^62 bytes.
    expect(process.memoryUsage().rss - before).to.be.lessThan(400e6);
  });

  it('reads other tensors of a file although one storage is damaged', async () => {
    const root = dict({ good: tensor({ storage: '1' }), bad: tensor({ storage: '0' }) });
    const full = path.join(folder(), 'part.pth');
    fs.writeFileSync(full, torchZip(root, { 1: floats(2) }, [{ name: 'archive/data/0', data: text('\xff\xff'), method: 8, size: 8 }]));
    const file = await openCheckpoint(full);
    await expectFailure(file.read('bad'), FORMAT, 'damaged zip entry');
    expect(Array.from(await file.readFloat32('good'))).to.deep.equal([1, 1]);
    await file.close();
  });

  it('builds nothing from a pickle bomb within a second', async () => {
    // A list of 10 000 numbers made into an OrderedDict … 100 000 times, by memo.
    const list = raw(
      ']q\0(',
      ...Array.from({ length: 10_000 }, () => code(tuple(1, 2))),
      'e0',
      'ccollections\nOrderedDict\nq\x010',
      'h\x01h\0\x85R0'.repeat(100_000),
      '}',
    );
    const full = path.join(folder(), 'bomb.pth');
    fs.writeFileSync(full, torchZip(list, {}));
    const start = Date.now();
    await expectFailure(openCheckpoint(full), FORMAT, 'far more data than its length warrants');
    expect(Date.now() - start).to.be.lessThan(5000);
  }).timeout(20_000);
});

function openDescriptors(): number {
  try {
    return fs.readdirSync('/proc/self/fd').length;
  } catch {
    return 0;
  }
}
