/** Imports run one way (docs/ARCHITECTURE.md): the rules, held by reading every import of the sources. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';

const root = path.resolve(__dirname, '../..');

function files(folder: string, extension: RegExp): string[] {
  const full = path.join(root, folder);
  if (!existsSync(full)) return [];
  return readdirSync(full, { recursive: true, encoding: 'utf8' })
    .filter((name) => extension.test(name))
    .map((name) => path.posix.join(folder, name.split(path.sep).join('/')));
}

interface Import {
  readonly from: string;
  readonly to: string;
  /** `import type …`: gone from the compiled code. */
  readonly typeOnly: boolean;
}

/** Relative imports of TypeScript files as paths from the repository's root. */
function typescriptImports(): Import[] {
  const found: Import[] = [];
  for (const from of files('lib', /\.m?ts$/)) {
    const text = readFileSync(path.join(root, from), 'utf8');
    for (const match of text.matchAll(/(?:\b(?:import|export)\s+(type\s)?[^;'(]*?\bfrom|\bimport|\brequire)\s*\(?\s*'(\.[^']+)'/g)) {
      found.push({ from, to: path.posix.join(path.posix.dirname(from), match[2]!), typeOnly: match[1] !== undefined });
    }
  }
  return found;
}

/**
 * Layers from the lowest: cli, serve → index → models/ptq/evaluate → program → io/data/native → tensor/errors. A file may
 * import from its own layer and from those below. Files that are named nowhere here belong to the layer of the public API.
 */
const LAYERS: readonly (readonly [RegExp, number])[] = [
  [/^lib\/(tensor|quantizer|errors|progress)\./, 0],
  [/^lib\/(io|data|native)\//, 1],
  [/^lib\/program\//, 2],
  [/^lib\/(models|ptq|report)\//, 3],
  [/^lib\/index\./, 5],
  [/^lib\/(cli|serve)\//, 6],
  [/^lib\/[^/]+$/, 4],
];

function layer(file: string): number {
  const known = LAYERS.find(([pattern]) => pattern.test(file));
  if (known === undefined) throw new Error(`${file} belongs to no layer: name its folder in this test and in docs/ARCHITECTURE.md`);
  return known[1];
}

/**
 * The native contract takes a Program, so lib/native speaks of its types; nothing of lib/program runs there. Types vanish
 * when compiled, and this is the one way up.
 */
function isContract({ from, to, typeOnly }: Import): boolean {
  return typeOnly && from.startsWith('lib/native/') && to === 'lib/program/ir.js';
}

describe('structure: TypeScript layers', () => {
  const imports = typescriptImports();

  it('finds the imports at all', () => {
    expect(imports.length).to.be.greaterThan(30);
  });

  it('imports only from the same or a lower layer', () => {
    const wrong = imports.filter((it) => !isContract(it) && layer(it.to) > layer(it.from));
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).to.deep.equal([]);
  });

  it('has no import cycles in the compiled code', () => {
    const edges = new Map<string, string[]>();
    for (const { from, to } of imports.filter((it) => !it.typeOnly)) {
      edges.set(from, [...(edges.get(from) ?? []), to.replace(/\.js$/, '.ts')]);
    }
    const state = new Map<string, 'open' | 'done'>();
    const cycles: string[] = [];
    const visit = (file: string, trail: readonly string[]): void => {
      if (state.get(file) === 'done') return;
      if (state.get(file) === 'open') {
        cycles.push([...trail.slice(trail.indexOf(file)), file].join(' → '));
        return;
      }
      state.set(file, 'open');
      for (const to of edges.get(file) ?? []) visit(to, [...trail, file]);
      state.set(file, 'done');
    };
    for (const file of edges.keys()) visit(file, []);
    expect(cycles).to.deep.equal([]);
  });

  it('requires the .node file in lib/native/addon.ts only', () => {
    const wrong = files('lib', /\.m?ts$/).filter(
      (file) => file !== 'lib/native/addon.ts' && /(require|dlopen)\([^)]*\.node\b/.test(readFileSync(path.join(root, file), 'utf8')),
    );
    expect(wrong).to.deep.equal([]);
  });
});

/** What each native folder may include, besides the standard library. */
const NATIVE: Readonly<Record<string, readonly string[]>> = {
  'native/include': ['ptq4vm'],
  'native/platform': ['platform'],
  'native/cpu': ['ptq4vm', 'cpu', 'platform'],
  'native/cuda': ['ptq4vm', 'cuda'],
  'native/engine': ['ptq4vm', 'cpu', 'cuda', 'platform', 'engine'],
  'native/bindings': ['ptq4vm', 'cpu', 'cuda', 'platform', 'engine', 'bindings'],
};

const CONTAINERS =
  /^(vector|string|map|set|unordered_(map|set)|list|deque|array|queue|stack|functional|any|variant|optional|(io|s|f)stream)$/;
const POSIX = /^(unistd\.h|sched\.h|pthread\.h|dlfcn\.h|fcntl\.h|sys\/.*|asm\/.*|dirent\.h|poll\.h|signal\.h|windows\.h)$/;

interface Include {
  readonly file: string;
  readonly name: string;
  readonly system: boolean;
}

function includes(folder: string): Include[] {
  return files(folder, /\.(h|cpp|cu|cuh)$/).flatMap((file) =>
    [...readFileSync(path.join(root, file), 'utf8').matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm)].map((match) => ({
      file,
      name: match[2]!,
      system: match[1] === '<',
    })),
  );
}

/** The folder of native/ that an include names; kernels also include relative to native/cpu ("simd/simd.h"). */
function nativeFolder({ file, name }: Include): string {
  if (name.startsWith('ptq4vm/')) return 'ptq4vm';
  const first = name.split('/')[0]!;
  if (existsSync(path.join(root, 'native', name))) return first;
  if (file.startsWith('native/cpu/') && existsSync(path.join(root, 'native/cpu', name))) return 'cpu';
  if (existsSync(path.join(root, path.posix.dirname(file), name))) return file.split('/')[1]!;
  return `unknown (${name})`;
}

describe('structure: native layers', () => {
  for (const [folder, allowed] of Object.entries(NATIVE)) {
    it(`${folder} includes only ${allowed.join(', ')}`, () => {
      const own = includes(folder).filter(({ system }) => !system);
      const wrong = own.filter((include) => !allowed.includes(nativeFolder(include)));
      expect(wrong.map(({ file, name }) => `${file} includes ${name}`)).to.deep.equal([]);
    });
  }

  it('reads includes of every folder', () => {
    for (const folder of Object.keys(NATIVE)) expect(includes(folder), folder).to.not.be.empty;
  });

  it('knows N-API in native/bindings only', () => {
    const wrong = files('native', /\.(h|cpp|cu|cuh)$/)
      .filter((file) => !file.startsWith('native/bindings/'))
      .filter((file) => /\bnapi\.h\b|\bnode_api\.h\b|\bNapi::/.test(readFileSync(path.join(root, file), 'utf8')));
    expect(wrong).to.deep.equal([]);
  });

  it('has no STL containers or streams in kernels', () => {
    const wrong = ['native/include', 'native/cpu', 'native/cuda']
      .flatMap(includes)
      .filter(({ system, name }) => system && CONTAINERS.test(name));
    expect(wrong.map(({ file, name }) => `${file} includes <${name}>`)).to.deep.equal([]);
  });

  it('throws nothing in kernels', () => {
    const wrong = ['native/include', 'native/cpu', 'native/cuda']
      .flatMap((folder) => files(folder, /\.(h|cpp|cu|cuh)$/))
      .filter((file) => /^[^/]*\b(throw|try)\b\s*[^a-z,.]/m.test(readFileSync(path.join(root, file), 'utf8')));
    expect(wrong).to.deep.equal([]);
  });

  it('has nothing POSIX-only outside native/platform', () => {
    const wrong = Object.keys(NATIVE)
      .filter((folder) => folder !== 'native/platform')
      .flatMap(includes)
      .filter(({ system, name }) => system && POSIX.test(name));
    expect(wrong.map(({ file, name }) => `${file} includes <${name}>`)).to.deep.equal([]);
  });
});
