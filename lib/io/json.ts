/**
 * Strict JSON for file headers: as JSON.parse, but an object becomes a Map (no prototype to pollute), a key that occurs twice
 * is an error (JSON.parse keeps the last one in silence), and nesting is bounded.
 */

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export type JsonObject = Map<string, JsonValue>;

export class JsonError extends Error {}

const MAX_DEPTH = 32;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;

/** Throws JsonError with the offset of the mistake. Only white space may follow the value. */
export function parseStrictJson(text: string): JsonValue {
  const parser = new Parser(text);
  const value = parser.value(0);
  parser.end();
  return value;
}

class Parser {
  #at = 0;

  constructor(private readonly text: string) {}

  end(): void {
    this.#space();
    if (this.#at < this.text.length) this.#fail('unexpected text after the end');
  }

  value(depth: number): JsonValue {
    if (depth > MAX_DEPTH) this.#fail('nested too deep');
    this.#space();
    switch (this.text[this.#at]) {
      case '{': return this.#object(depth);
      case '[': return this.#array(depth);
      case '"': return this.#string();
      case 't': return this.#word('true', true);
      case 'f': return this.#word('false', false);
      case 'n': return this.#word('null', null);
      case undefined: return this.#fail('unexpected end');
      default: return this.#number();
    }
  }

  #object(depth: number): JsonObject {
    const object: JsonObject = new Map();
    this.#at++;
    if (this.#next('}')) return object;
    do {
      this.#space();
      if (this.text[this.#at] !== '"') this.#fail('expected a key in quotes');
      const keyAt = this.#at;
      const key = this.#string();
      if (object.has(key)) {
        this.#at = keyAt;
        this.#fail(`duplicate key ${JSON.stringify(key.slice(0, 100))}`);
      }
      if (!this.#next(':')) this.#fail("expected ':'");
      object.set(key, this.value(depth + 1));
    } while (this.#next(','));
    if (!this.#next('}')) this.#fail("expected ',' or '}'");
    return object;
  }

  #array(depth: number): JsonValue[] {
    const array: JsonValue[] = [];
    this.#at++;
    if (this.#next(']')) return array;
    do array.push(this.value(depth + 1));
    while (this.#next(','));
    if (!this.#next(']')) this.#fail("expected ',' or ']'");
    return array;
  }

  #string(): string {
    const begin = this.#at;
    let at = begin + 1;
    for (;;) {
      const c = this.text.charCodeAt(at);
      if (c === 0x22) break;
      if (Number.isNaN(c)) this.#fail('string without end');
      at += c === 0x5c ? 2 : 1;
    }
    this.#at = at + 1;
    try {
      // The platform decodes the escapes and refuses bad ones and raw control characters.
      return JSON.parse(this.text.slice(begin, at + 1)) as string;
    } catch {
      this.#at = begin;
      return this.#fail('bad string');
    }
  }

  #number(): number {
    NUMBER.lastIndex = this.#at;
    const match = NUMBER.exec(this.text);
    if (match === null) return this.#fail('unexpected character');
    this.#at += match[0].length;
    return Number(match[0]);
  }

  #word<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.#at)) this.#fail('unexpected character');
    this.#at += word.length;
    return value;
  }

  /** Skips white space; true, and past it, when `c` follows. */
  #next(c: string): boolean {
    this.#space();
    if (this.text[this.#at] !== c) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    for (;;) {
      const c = this.text.charCodeAt(this.#at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
      this.#at++;
    }
  }

  #fail(problem: string): never {
    throw new JsonError(`${problem} at character ${this.#at}`);
  }
}
