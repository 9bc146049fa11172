import { expect } from 'chai';
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { memorySource, openSource, writeFileAtomically } from '../../lib/io/files.js';
import { expectFailure, scratchFolder } from './support.js';

describe('files', () => {
  const folder = scratchFolder();
  const at = (name: string): string => path.join(folder(), name);

  for (const kind of ['file', 'memory'] as const) {
    it(`reads exactly what is there, from a ${kind}`, async () => {
      const bytes = Uint8Array.from({ length: 100 }, (_, i) => i);
      fs.writeFileSync(at('bytes'), bytes);
      const source = kind === 'file' ? await openSource(at('bytes')) : memorySource(bytes, 'name');
      expect(source.size).to.equal(100);
      expect([...(await source.read(10, 3, 'x'))]).to.deep.equal([10, 11, 12]);
      expect((await source.read(100, 0, 'x')).length).to.equal(0);
      const own = await source.read(0, 4, 'x');
      expect(own.constructor, 'a Buffer would slice without copying').to.equal(Uint8Array);
      expect(own.byteOffset).to.equal(0);
      own.fill(9);
      expect([...(await source.read(0, 4, 'x'))]).to.deep.equal([0, 1, 2, 3]);
      for (const [position, length] of [
        [98, 3],
        [101, 0],
        [-1, 1],
        [0, -1],
        [0, 2 ** 40],
        [2 ** 60, 1],
        [0.5, 1],
        [Number.NaN, 1],
        [0, Number.POSITIVE_INFINITY],
      ] as const) {
        await expectFailure(source.read(position, length, 'the thing'), 'ERR_FILE_FORMAT', 'the thing needs');
      }
      await source.close();
      await source.close();
      await expectFailure(source.read(0, 1, 'x'), 'ERR_DISPOSED', 'is closed');
    });
  }

  it('notices that a file shrank while it was open', async () => {
    fs.writeFileSync(at('shrinks'), Buffer.alloc(100));
    const source = await openSource(at('shrinks'));
    fs.truncateSync(at('shrinks'), 50);
    await expectFailure(source.read(0, 100, 'all'), 'ERR_FILE_FORMAT', 'truncated while it was read');
    await source.close();
  });

  it('writes whole files, keeps mode and symbolic link of the target', async () => {
    fs.writeFileSync(at('target'), 'old', { mode: 0o600 });
    fs.symlinkSync(at('target'), at('link'));
    await writeFileAtomically(at('link'), async (write) => {
      await write(Buffer.from('new '));
      await write(new Uint8Array(0));
      await write(Buffer.alloc(20 << 20, 'x'));
    });
    expect(fs.lstatSync(at('link')).isSymbolicLink()).to.equal(true);
    const stat = fs.statSync(at('target'));
    expect([stat.size, stat.mode & 0o777]).to.deep.equal([4 + (20 << 20), 0o600]);
    expect(fs.readdirSync(folder()).filter((n) => n.endsWith('.tmp'))).to.deep.equal([]);
  });

  it('explains a target that cannot be written', async () => {
    const write = (target: string): Promise<void> => writeFileAtomically(target, (w) => w(Buffer.from('x')));
    const absent = await expectFailure(write(at('no/such/folder/file')), 'ERR_FILE_WRITE', 'ENOENT');
    expect((absent.cause as NodeJS.ErrnoException).code).to.equal('ENOENT');
    await expectFailure(write(folder()), 'ERR_FILE_WRITE', 'it is a folder');
    if (process.platform !== 'win32') {
      await expectFailure(write('/dev/null'), 'ERR_FILE_WRITE', 'not a regular file');
      expect(fs.statSync('/dev/null').isCharacterDevice()).to.equal(true);
    }
    await expectFailure(write(at('x'.repeat(300))), 'ERR_FILE_WRITE', 'ENAMETOOLONG');
  });

  it('reports a full disk and leaves nothing behind', function () {
    if (process.platform === 'win32') this.skip();
    // A full disk needs a file system of one's own; a limit on the size of files (2048 blocks, 1 or 2 MB) fails in the same place.
    const script = `
      const { writeFileAtomically } = require(${JSON.stringify(path.resolve(__dirname, '../../lib/io/files.ts'))});
      process.on('SIGXFSZ', () => {});
      writeFileAtomically(process.argv[1], async (write) => { for (let i = 0; i < 64; i++) await write(Buffer.alloc(1 << 20)); })
        .then(() => console.log('written'), (e) => console.log(e.code, e.cause && e.cause.code));
    `;
    const tsx = require.resolve('tsx');
    const command = `ulimit -f 2048; exec ${JSON.stringify(process.execPath)} --import ${JSON.stringify(`file://${tsx}`)} -e "$1" "$2"`;
    fs.writeFileSync(at('limited'), 'old');
    const run = spawnSync('sh', ['-c', command, 'sh', script, at('limited')], { encoding: 'utf8' });
    expect(run.stdout.trim(), run.stderr).to.equal('ERR_FILE_WRITE EFBIG');
    expect(fs.readFileSync(at('limited'), 'utf8')).to.equal('old');
    expect(fs.readdirSync(folder()).filter((n) => n.endsWith('.tmp'))).to.deep.equal([]);
  }).timeout(20_000);

  it('writes nothing once aborted', async () => {
    const controller = new AbortController();
    const reason = new Error('stop');
    let error: unknown;
    await writeFileAtomically(
      at('aborted'),
      async (write) => {
        await write(Buffer.from('x'));
        controller.abort(reason);
      },
      { signal: controller.signal },
    ).catch((e: unknown) => (error = e));
    expect(error).to.equal(reason);
    expect(fs.existsSync(at('aborted'))).to.equal(false);
    expect(fs.readdirSync(folder()).filter((n) => n.endsWith('.tmp'))).to.deep.equal([]);
  });
});
