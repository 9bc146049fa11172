/** Tries HOSTILE from argument 2 on and prints a line of JSON before and after each: the last line names the culprit when this process dies. */
import { writeSync } from 'node:fs';
import { EngineSession, type Run } from '../../lib/native/session.js';
import type { Program } from '../../lib/program/ir.js';
import { HOSTILE, type Hostile } from './hostile-programs.js';

async function attempt({ program, run }: Hostile): Promise<{ code: string; message: string }> {
  try {
    const session = new EngineSession(program() as Program, { threads: 2 });
    try {
      if (run !== undefined) await session.run(run() as Run);
    } finally {
      await session.dispose();
    }
    return { code: 'none', message: 'was accepted' };
  } catch (error) {
    const { code, name, message } = error as Error & { code?: string };
    return { code: code?.startsWith('ERR_') ? code : name, message };
  }
}

async function main(): Promise<void> {
  for (let i = Number(process.argv[2]); i < HOSTILE.length; i++) {
    writeSync(1, `${JSON.stringify({ index: i })}\n`);
    writeSync(1, `${JSON.stringify({ index: i, ...(await attempt(HOSTILE[i]!)) })}\n`);
  }
}

void main();
