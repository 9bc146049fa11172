/**
 * Configuration from several sources: what the weights say, `--config`, the registry name. Sources that
 * disagree are an error naming both; what none tells takes a default that is reported as assumed.
 */
import { Ptq4vmError, show } from '../errors.js';
import type { Assumption } from './definition.js';

export interface Source {
  /** In words, for messages: 'the weights', '--config', "--model 'vim-tiny'". */
  readonly name: string;
  /** `name` is a plural ("the weights say"). */
  readonly plural?: boolean;
  readonly values: Readonly<Record<string, unknown>>;
}

export class Resolver {
  readonly assumed: Assumption[] = [];
  readonly resolved: Record<string, unknown> = {};

  constructor(private readonly sources: readonly Source[]) {}

  /** An integer ≥ `low`. */
  integer(key: string, fallback?: number, why?: string, low = 1): number {
    const value = this.value(key, fallback, why);
    if (!Number.isInteger(value) || (value as number) < low) this.bad(key, `an integer ≥ ${low}`, value);
    return value as number;
  }

  number(key: string, fallback?: number, why?: string): number {
    const value = this.value(key, fallback, why);
    if (typeof value !== 'number' || !(value > 0) || !Number.isFinite(value)) this.bad(key, 'a positive number', value);
    return value as number;
  }

  flag(key: string, fallback?: boolean, why?: string): boolean {
    const value = this.value(key, fallback, why);
    if (typeof value !== 'boolean') this.bad(key, 'true or false', value);
    return value as boolean;
  }

  /** Whether any source states `key`. */
  has(key: string): boolean {
    return this.sources.some((s) => s.values[key] !== undefined && s.values[key] !== null);
  }

  private value(key: string, fallback: unknown, why: string | undefined): unknown {
    const told = this.sources.filter((s) => s.values[key] !== undefined && s.values[key] !== null);
    const [first] = told;
    for (const other of told) {
      if (other.values[key] !== first!.values[key]) {
        throw new Ptq4vmError(
          'ERR_CONFIG',
          `Contradiction about ${key}: ${says(first!, key)}, ${says(other, key)}`,
        );
      }
    }
    const value = first ? first.values[key] : fallback;
    if (value === undefined) throw new Ptq4vmError('ERR_CONFIG', `${key} cannot be told from the weights: give it in --config`);
    if (!first && why !== undefined) this.assumed.push({ key, value, why });
    this.resolved[key] = value;
    return value;
  }

  private bad(key: string, what: string, value: unknown): never {
    const source = this.sources.find((s) => s.values[key] !== undefined);
    throw new Ptq4vmError('ERR_CONFIG', `Expected ${what} for ${key} in ${source?.name ?? 'the defaults'} but received ${show(value)}`);
  }
}

function says(source: Source, key: string): string {
  return `${source.name} ${source.plural ? 'say' : 'says'} ${show(source.values[key])}`;
}
