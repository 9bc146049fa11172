/** `--config FILE.json` or a configuration object, as the caller gave it. */
import { readFile } from 'node:fs/promises';
import { Ptq4vmError, typeError } from '../errors.js';
import type { UserConfig } from './definition.js';

export async function readConfig(config: string | UserConfig | undefined): Promise<UserConfig | undefined> {
  if (config === undefined) return undefined;
  if (typeof config === 'string') return parseConfig(await readText(config), config);
  if (typeof config !== 'object' || config === null || Array.isArray(config)) throw typeError('an object or the path of a JSON file', 'config', config);
  return config;
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new Ptq4vmError('ERR_FILE_NOT_FOUND', `Cannot read the configuration ${path}: ${(cause as Error).message}`, { cause });
  }
}

function parseConfig(text: string, path: string): UserConfig {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new Ptq4vmError('ERR_CONFIG', `${path} is not JSON: ${(cause as Error).message}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Ptq4vmError('ERR_CONFIG', `${path} holds no JSON object`);
  return value as UserConfig;
}
