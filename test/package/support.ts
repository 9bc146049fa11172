/** Running programs, and a package as users get it: packed, then installed into an empty project. */
import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export const root = path.resolve(__dirname, '../..');

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The environment of a user's own shell: without what `npm test` adds to its children. */
export function cleanEnvironment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const env: NodeJS.ProcessEnv = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(npm_package_|npm_lifecycle_|npm_config_local_prefix|INIT_CWD|PTQ4VM_|NODE_OPTIONS$)/.test(name)) continue;
    env[name] = value;
  }
  return { ...env, ...extra };
}

export interface Place {
  readonly cwd: string;
  readonly env?: NodeJS.ProcessEnv;
}

export function run(program: string, args: readonly string[], options: Place): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(
      program,
      [...args],
      { cwd: options.cwd, env: cleanEnvironment(options.env), maxBuffer: 1 << 26, encoding: 'utf8' },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : (error as { code?: unknown }).code;
        resolve({ status: typeof code === 'number' ? code : 1, stdout, stderr: `${stderr}${typeof code === 'string' ? code : ''}` });
      },
    );
    child.stdin?.end();
  });
}

/** As `run`, but a failure throws with everything the program said. */
export async function runWell(program: string, args: readonly string[], options: Place): Promise<string> {
  const { status, stdout, stderr } = await run(program, args, options);
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}\n${stdout}\n${stderr}`);
  return stdout;
}

export const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

/** True when a failed npm command failed for want of a network, which is no fault of the package. */
export function isOffline({ stderr }: Outcome): boolean {
  return /ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|ENETUNREACH|ENOTCACHED/.test(stderr);
}

export function temporaryFolder(name: string): string {
  return mkdtempSync(path.join(os.tmpdir(), `ptq4vm-${name}-`));
}

export function writeFiles(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(folder, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
}

/** A copy of what the build needs, with this checkout's dependencies: a place to build, and to fail, in peace. */
export function buildFolder(name: string): string {
  const folder = temporaryFolder(name);
  for (const part of ['CMakeLists.txt', 'binding.gyp', 'package.json', 'native', 'scripts']) {
    cpSync(path.join(root, part), path.join(folder, part), { recursive: true });
  }
  const modules = path.join(root, 'node_modules');
  if (existsSync(modules)) symlinkSync(modules, path.join(folder, 'node_modules'), 'junction');
  return folder;
}

export function skip(context: Mocha.Context, reason: string): never {
  console.warn(`      SKIPPED: ${reason}`);
  context.skip();
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}
