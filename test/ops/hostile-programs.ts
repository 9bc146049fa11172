/** Programs and runs that nobody should make: what each is, and the error that it must end in. */
import type { RunRequest } from '../../lib/native/addon-types.js';

export interface Hostile {
  readonly name: string;
  readonly code: 'ERR_ENGINE' | 'ERR_OUT_OF_MEMORY' | 'RangeError' | 'TypeError';
  readonly message: RegExp;
  readonly program: () => unknown;
  /** Absent: the Program itself must be refused. */
  readonly run?: () => unknown;
}

const f32 = (name: string, rows: number, channels: number) => ({ name, dtype: 'f32', rows, channels });
const ref = (tensor: string, from?: number, channels?: number) => ({ tensor, from, channels });

/** A linear without bias from one slice of four channels to another. */
const linear = (name: string, x: unknown, y: unknown) => ({
  kind: 'linear', name, inputs: { x }, outputs: { y }, constants: { weight: new Float32Array(16) }, attributes: {}, independent: [],
});
const select = (name: string, x: unknown, y: unknown, indices: Int32Array) => ({
  kind: 'selectTokens', name, inputs: { x }, outputs: { y }, constants: { indices }, attributes: {}, independent: [],
});
const program = (ops: readonly unknown[], tensors: readonly unknown[] = TENSORS, rest: object = {}) => ({
  tensors, ops, blocks: [], linears: [], input: 'picture', output: 'picture', ...rest,
});
const TENSORS = [f32('picture', 1, 1), ...['x', 'y', 'z'].map((name) => f32(name, 3, 8))];
const block = (first: number, end: number) => ({ name: 'block', first, end, inputs: [], lossTensor: 'x' });
const xy = [linear('one', ref('x', 0, 4), ref('y', 0, 4)), linear('two', ref('y', 0, 4), ref('z', 0, 4))];
const feedX = { x: new Float32Array(24) };
const request = (r: Partial<RunRequest> & Record<string, unknown>) => ({ images: 1, feeds: feedX, fetches: ['z'], ...r });

const refuses = (name: string, x: unknown, message: RegExp): Hostile => ({
  name, code: 'ERR_ENGINE', message, program: () => program([linear('one', x, ref('y', 0, 4))]),
});
const badSize = (rows: unknown, channels: unknown): Hostile => ({
  name: `tensor of ${rows} × ${channels}`, code: typeof rows === 'string' ? 'TypeError' : 'RangeError', message: /(rows|channels) of 'bad'/,
  program: () => program([], [...TENSORS, { name: 'bad', dtype: 'f32', rows, channels }]),
});
const badRun = (name: string, code: Hostile['code'], message: RegExp, r: Partial<RunRequest> & Record<string, unknown>, ops: readonly unknown[] = xy): Hostile => ({
  name, code, message, program: () => program(ops), run: () => request(r),
});
const overlap = (name: string, op: () => unknown): Hostile => ({ name, code: 'ERR_ENGINE', message: /^op 'one' .*overlap/, program: () => program([op()]) });

/** 2⁶⁴ elements: images × rows × channels, which would be 0 in 64 bits. */
const WRAPPING = { images: 2 ** 24, rows: 2 ** 10, channels: 2 ** 30 };

export const HOSTILE: readonly Hostile[] = [
  refuses('slice that begins before its tensor', ref('x', -1, 4), /-1\+4 lie outside 'x'/),
  refuses('slice that ends behind its tensor', ref('x', 5, 4), /5\+4 lie outside 'x'/),
  refuses('slice of no channels', ref('x', 0, 0), /0\+0 lie outside 'x'/),
  refuses('slice whose end overflows', ref('x', 2 ** 31 - 1, 2 ** 31 - 1), /lie outside 'x'/),
  refuses('slice from NaN', ref('x', NaN, 4), /outside 'x'/),
  refuses('slice from half a channel', ref('x', 0.5, 4), /outside 'x'/),
  refuses('slice of 4.5 channels', ref('x', 0, 4.5), /outside 'x'/),
  refuses('slice that wraps around 32 bits', ref('x', 2 ** 32, 4), /outside 'x'/),
  refuses('tensor that is not there', ref('nothing'), /no tensor is named 'nothing'/),
  refuses('tensor named like a member of every object', ref('__proto__'), /no tensor is named '__proto__'/),
  { name: 'two tensors of one name', code: 'ERR_ENGINE', message: /two tensors are named 'x'/, program: () => program([], [...TENSORS, f32('x', 1, 1)]) },
  { name: 'tensor of unknown type', code: 'ERR_ENGINE', message: /'bad' has unknown dtype 'f64'/, program: () => program([], [...TENSORS, { ...f32('bad', 1, 1), dtype: 'f64' }]) },
  badSize(0, 4), badSize(4, 0), badSize(-1, 4), badSize(4, 1.5), badSize(NaN, 4), badSize(2 ** 31, 4), badSize('4', 4),
  { name: 'picture that is no tensor', code: 'ERR_ENGINE', message: /no tensor is named 'nothing'/, program: () => program([], TENSORS, { input: 'nothing' }) },
  { name: 'blocks out of order', code: 'ERR_ENGINE', message: /blocks are not in order/, program: () => program(xy, TENSORS, { blocks: [block(1, 2), block(0, 1)] }) },
  { name: 'block that ends before it begins', code: 'ERR_ENGINE', message: /blocks are not in order/, program: () => program(xy, TENSORS, { blocks: [block(2, 1)] }) },
  { name: 'block behind the last op', code: 'RangeError', message: /block end/, program: () => program(xy, TENSORS, { blocks: [block(0, 3)] }) },
  { name: 'tensors that are no list', code: 'TypeError', message: /array for tensors/, program: () => program([], { length: 1e9 } as unknown as []) },
  { name: 'op that is no object', code: 'TypeError', message: /object for ops/, program: () => program([null]) },
  { name: 'Program that is no object', code: 'TypeError', message: /Expected/, program: () => null },
  { name: 'patch of more elements than 32 bits count', code: 'ERR_ENGINE', message: /^op 'one' \(patchEmbed\): /, program: () => program(
    [{
      kind: 'patchEmbed', name: 'one', inputs: { x: ref('planes') }, outputs: { y: ref('tokens') }, constants: { weight: new Float32Array(4) },
      attributes: { height: 1024, width: 1024, patch: 1024, stride: 1 }, independent: [],
    }],
    [...TENSORS, f32('planes', 4096, 2 ** 20), f32('tokens', 1, 1)],
  ) },

  // Results would depend on the order in which threads read and write.
  overlap('op that writes what it reads', () => linear('one', ref('x', 0, 4), ref('x', 0, 4))),
  overlap('op that writes part of what it reads', () => linear('one', ref('x', 0, 4), ref('x', 3, 4))),
  overlap('op that writes one place twice', () => ({
    kind: 'addNorm', name: 'one', inputs: { x: ref('x') }, outputs: { y: ref('y'), residual: ref('y') }, constants: { weight: new Float32Array(8) },
    attributes: { norm: 0, epsilon: 1e-5 }, independent: [],
  })),

  badRun('op that reads what nothing makes', 'ERR_ENGINE', /^op 'one' reads 'x', which nothing feeds or produces/, { feeds: {} }),
  badRun('ops in a circle', 'ERR_ENGINE', /^op 'two' reads 'z', which nothing feeds or produces/, { feeds: {} }, [linear('two', ref('z', 0, 4), ref('y', 0, 4)), linear('three', ref('y', 0, 4), ref('z', 0, 4))]),
  badRun('ops in the wrong order', 'ERR_ENGINE', /^op 'two' reads 'y', which nothing feeds or produces/, {}, [xy[1], xy[0]]),
  badRun('op whose input is made outside the range', 'ERR_ENGINE', /^op 'two' reads 'y'/, { first: 1 }),
  badRun('op that overwrites what was fed', 'ERR_ENGINE', /^op 'one' would overwrite the fed tensor 'y'/, { feeds: { ...feedX, y: new Float32Array(24) } }),
  badRun('result that nothing makes', 'ERR_ENGINE', /'z' is not produced/, { end: 1 }),
  badRun('result that is no tensor', 'ERR_ENGINE', /no tensor is named 'nothing'/, { fetches: ['nothing'] }),
  badRun('feed that is no tensor', 'ERR_ENGINE', /no tensor is named 'nothing'/, { feeds: { nothing: new Float32Array(1) } }),
  badRun('feed of another type', 'TypeError', /Float32Array for feed 'x'/, { feeds: { x: new Uint8Array(24) } }),
  badRun('feed that is too short', 'RangeError', /24 elements for feed 'x'/, { feeds: { x: new Float32Array(23) } }),
  badRun('feed of one image for two', 'RangeError', /48 elements for feed 'x'/, { images: 2 }),
  ...[0, -1, NaN, 1.5, 2 ** 25].map((images) => badRun(`run of ${images} images`, 'RangeError', /image/, { images })),
  badRun('range of ops that ends before it begins', 'RangeError', /first, end/, { first: 2, end: 1 }),
  badRun('range of ops beyond the last', 'RangeError', /first, end/, { end: 3 }),
  badRun('range of ops from −1', 'RangeError', /first, end/, { first: -1 }),

  {
    // 2²⁰ rows × 2³⁰ channels × 4 bytes: 2⁵² bytes, more than a process can address, of which one channel is used.
    name: 'intermediate of a petabyte', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program(
      [
        { ...linear('wide', ref('x'), ref('huge', 0, 1)), constants: { weight: new Float32Array(1) } },
        { ...linear('narrow', ref('huge', 0, 1), ref('y')), constants: { weight: new Float32Array(1) } },
      ],
      [f32('picture', 1, 1), f32('x', 2 ** 20, 1), f32('huge', 2 ** 20, 2 ** 30), f32('y', 2 ** 20, 1)],
    ),
    run: () => ({ images: 1, feeds: { x: new Float32Array(2 ** 20) }, fetches: ['y'] }),
  },
  {
    name: 'result of a petabyte', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program([{ ...linear('wide', ref('x'), ref('huge', 0, 1)), constants: { weight: new Float32Array(1) } }], [f32('picture', 1, 1), f32('x', 2 ** 20, 1), f32('huge', 2 ** 20, 2 ** 30)]),
    run: () => ({ images: 1, feeds: { x: new Float32Array(2 ** 20) }, fetches: ['huge'] }),
  },
  {
    // 20 GiB, which the system may well promise, but V8 has no array of more than 2³² elements.
    name: 'result longer than JavaScript arrays', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program([{ ...linear('wide', ref('x'), ref('huge', 0, 1)), constants: { weight: new Float32Array(1) } }], [f32('picture', 1, 1), f32('x', 5 * 1024, 1), f32('huge', 5 * 1024, 2 ** 20)]),
    run: () => ({ images: 1, feeds: { x: new Float32Array(5 * 1024) }, fetches: ['huge'] }),
  },
  {
    name: 'result of 2⁶⁴ elements', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program([select('one', ref('x'), ref('huge', 0, 1), new Int32Array(WRAPPING.rows))], [f32('picture', 1, 1), f32('x', 1, 1), f32('huge', WRAPPING.rows, WRAPPING.channels)]),
    run: () => ({ images: WRAPPING.images, feeds: { x: new Float32Array(WRAPPING.images) }, fetches: ['huge'] }),
  },
  {
    name: 'intermediate of 2⁶⁴ elements that crosses a block', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program(
      [select('one', ref('x'), ref('huge', 0, 1), new Int32Array(WRAPPING.rows)), select('two', ref('huge', 0, 1), ref('y'), Int32Array.of(0))],
      [f32('picture', 1, 1), f32('x', 1, 1), f32('huge', WRAPPING.rows, WRAPPING.channels), f32('y', 1, 1)], { blocks: [block(0, 1), block(1, 2)] },
    ),
    run: () => ({ images: WRAPPING.images, feeds: { x: new Float32Array(WRAPPING.images) }, fetches: ['y'] }),
  },
  {
    name: 'feed of 2⁶⁴ elements that holds none', code: 'ERR_OUT_OF_MEMORY', message: /out of memory/,
    program: () => program([select('one', ref('huge', 0, 1), ref('y'), Int32Array.of(0))], [f32('picture', 1, 1), f32('huge', WRAPPING.rows, WRAPPING.channels), f32('y', 1, 1)]),
    run: () => ({ images: WRAPPING.images, feeds: { huge: new Float32Array(0) }, fetches: ['y'] }),
  },
];

