/** Hostile Programs end in an error, never in a crash: a process of their own tries them, and a new one goes on where one died. */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { expect } from 'chai';
import { HOSTILE } from './hostile-programs.js';

interface Outcome {
  readonly code?: string;
  readonly message?: string;
}

describe('hostile Programs', function () {
  this.timeout(120_000);
  const outcomes: Outcome[] = [];

  before(() => {
    while (outcomes.length < HOSTILE.length) {
      const child = spawnSync(process.execPath, ['--import=tsx', path.join(__dirname, 'hostile-child.ts'), String(outcomes.length)], { encoding: 'utf8', timeout: 60_000 });
      const from = outcomes.length;
      for (const line of child.stdout.split('\n').filter(Boolean)) {
        const { index, ...outcome } = JSON.parse(line) as { index: number } & Outcome;
        outcomes[index] = outcome;
      }
      if (outcomes.length === from) throw new Error(`the child process does not start: ${child.stderr}`);
      const last = outcomes[outcomes.length - 1]!;
      if (last.code === undefined) outcomes[outcomes.length - 1] = { code: child.signal ?? `exit code ${child.status}`, message: child.stderr.slice(0, 500) };
    }
  });

  HOSTILE.forEach(({ name, code, message }, i) => {
    it(name, () => {
      expect(outcomes[i]!.code, outcomes[i]!.message).to.equal(code);
      expect(outcomes[i]!.message).to.match(message);
    });
  });
});
