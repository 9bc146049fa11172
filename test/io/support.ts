/** Common to the tests of lib/io: a scratch folder, shared data, and what a clear failure is. */
import { expect } from 'chai';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { Ptq4vmError } from '../../lib/errors.js';

/** `../shared` beside the repository, or null: then the tests that need it skip, and say so. */
export const shared: string | null = (() => {
  const folder = path.resolve(__dirname, '../../../shared');
  return fs.existsSync(path.join(folder, 'golden')) ? folder : null;
})();

/** A `describe` over shared data; one loud pending test where it is absent. */
export function describeShared(title: string, body: (folder: string) => void): void {
  describe(title, () => {
    if (shared === null) it('SKIPPED: ../shared is not there');
    else body(shared);
  });
}

/** A folder for the files of one test file, removed after it. */
export function scratchFolder(): () => string {
  let folder = '';
  before(() => {
    folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ptq4vm-io-'));
  });
  after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return () => folder;
}

/** The promise must fail with this code, a message that holds `fragment`, and nothing of the machinery behind it. */
export async function expectFailure(work: Promise<unknown>, code: string, fragment: string | RegExp): Promise<Ptq4vmError> {
  let error: unknown;
  try {
    await work;
  } catch (e) {
    error = e;
  }
  expect(error, 'it should have failed').to.be.instanceOf(Ptq4vmError);
  const failure = error as Ptq4vmError;
  expect(failure.message).to.match(typeof fragment === 'string' ? new RegExp(escape(fragment)) : fragment);
  expect(failure.code, failure.message).to.equal(code);
  expect(failure.message.length, 'a message is no page').to.be.lessThan(600);
  return failure;
}

const escape = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** A small generator with a printable seed (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
