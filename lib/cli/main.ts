#!/usr/bin/env node
/** `ptq4vm`: ties the command line to this process. */
import { Interrupted, packageApi } from './environment.js';
import { runCommand } from './run.js';

const STATUS = { SIGINT: 130, SIGTERM: 143 } as const;
const controller = new AbortController();

for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    // The first one lets the work end in good order and remove what it began; a second one does not wait for that.
    if (controller.signal.aborted) process.exit(STATUS[name]);
    controller.abort(new Interrupted(STATUS[name]));
  });
}

// A reader that has seen enough (`ptq4vm inspect … | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});
process.stderr.on('error', () => undefined);

void runCommand(process.argv.slice(2), { stdout: process.stdout, stderr: process.stderr, signal: controller.signal, api: packageApi }).then((status) => {
  // Not process.exit: what was written must reach a slow reader.
  process.exitCode = status;
});
