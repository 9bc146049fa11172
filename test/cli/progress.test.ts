import { Writable } from 'node:stream';
import { expect } from 'chai';
import type { Environment } from '../../lib/cli/environment.js';
import { Progress } from '../../lib/cli/progress.js';

class Terminal extends Writable {
  text = '';
  readonly columns = 100;
  constructor(readonly isTTY: boolean) {
    super();
  }
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk.toString();
    done();
  }
}

async function progress(isTTY: boolean, quiet: boolean): Promise<{ progress: Progress; stderr: Terminal }> {
  const stderr = new Terminal(isTTY);
  const env = { stdout: new Terminal(false), stderr, signal: new AbortController().signal, api: undefined } as unknown as Environment;
  return { progress: await Progress.start(env, quiet), stderr };
}

describe('command line: progress', () => {
  it('without a terminal writes a line every few seconds at most', async () => {
    const { progress: p, stderr } = await progress(false, false);
    const now = performance.now;
    const start = now.call(performance);
    try {
      for (let done = 0; done <= 100; done++) {
        performance.now = () => start + done * 170; // 17 s in 101 events
        p.onProgress({ stage: 'calibrate', done, total: 100, detail: 'layers.3' });
      }
    } finally {
      performance.now = now;
    }
    const lines = stderr.text.trimEnd().split('\n');
    expect(lines).to.have.length(3);
    expect(lines[0]).to.equal('calibrate 30/100  layers.3');
    p.note('something to know');
    expect(stderr.text).to.match(/ptq4vm: something to know\n$/);
  });

  it('on a terminal draws a bar and takes it away before a note', async () => {
    const { progress: p, stderr } = await progress(true, false);
    p.onProgress({ stage: 'evaluate', done: 0, total: 10 });
    p.onProgress({ stage: 'evaluate', done: 5, total: 10, detail: 'top-1 50.0 %' });
    p.stop();
    expect(stderr.text).to.match(/evaluate +\[[=-]+\] 0\/10/).and.to.match(/5\/10 .*top-1 50\.0 %/);
    const drawn = stderr.text.length;
    p.note('done');
    expect(stderr.text.slice(drawn)).to.equal('ptq4vm: done\n');
  });

  it('is silent when quiet', async () => {
    for (const isTTY of [true, false]) {
      const { progress: p, stderr } = await progress(isTTY, true);
      p.onProgress({ stage: 'evaluate', done: 1, total: 1 });
      p.note('a note');
      p.stop();
      expect(stderr.text).to.equal('');
    }
  });
});
