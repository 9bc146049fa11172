import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Ptq4vmError } from '../../lib/errors.js';
import { openCheckpoint } from '../../lib/io/checkpoint.js';
import { openSafetensors, type TensorToWrite, writeSafetensors } from '../../lib/io/safetensors.js';
import type { DType } from '../../lib/tensor.js';
import { expectFailure, scratchFolder } from './support.js';
import { bytesOf } from './torch-writer.js';

const f32 = (...values: number[]): Uint8Array => bytesOf('f32', values);

/** A file with any header text and any data. */
function make(header: string | Uint8Array, data: Uint8Array = new Uint8Array(0), length?: number): Buffer {
  const bytes = Buffer.from(header as string);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(length ?? bytes.length));
  return Buffer.concat([prefix, bytes, data]);
}
const entry = (dtype: string, shape: number[], begin: number, end: number): string =>
  `{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`;

describe('safetensors', () => {
  const folder = scratchFolder();
  const at = (name: string): string => path.join(folder(), name);
  const left = (): string[] => fs.readdirSync(folder()).filter((n) => n.endsWith('.tmp'));

  const ALL: TensorToWrite[] = (['f64', 'f32', 'f16', 'bf16', 'i64', 'i32', 'i16', 'i8', 'u8', 'bool'] as DType[]).map((dtype) => ({
    name: `t.${dtype}`,
    dtype,
    shape: [2, 2],
    data: bytesOf(dtype, [1, 0, 1, 1]),
  }));

  it('writes and reads every element type, lazily and eagerly', async () => {
    const lazy = ALL.map((t, i) =>
      i % 3 === 0 ? t : i % 3 === 1 ? { ...t, data: () => t.data as Uint8Array } : { ...t, data: async () => t.data as Uint8Array },
    );
    await writeSafetensors(at('all.safetensors'), lazy, { format: 'test', 'ключ "x"': 'line\nbreak' });
    const file = await openSafetensors(at('all.safetensors'));
    expect(file.format).to.equal('safetensors');
    expect({ ...file.metadata }).to.deep.equal({ format: 'test', 'ключ "x"': 'line\nbreak' });
    expect(file.entries.size).to.equal(ALL.length);
    for (const t of ALL) {
      const read = await file.read(t.name);
      expect([read.dtype, read.shape]).to.deep.equal([t.dtype, t.shape]);
      expect(Buffer.compare(read.data, t.data as Uint8Array), t.name).to.equal(0);
      expect(Array.from(await file.readFloat32(t.name)), t.name).to.deep.equal([1, 0, 1, 1]);
    }
    await file.close();
    expect(left()).to.deep.equal([]);
  });

  it('lays the file out as the reference implementation does', async () => {
    await writeSafetensors(
      at('layout'),
      [
        { name: 'b', dtype: 'u8', shape: [3], data: Uint8Array.of(1, 2, 3) },
        { name: 'z', dtype: 'f32', shape: [], data: f32(1) },
        { name: 'a', dtype: 'f32', shape: [1], data: f32(2) },
      ],
      { b: '2', a: '1' },
    );
    const bytes = fs.readFileSync(at('layout'));
    const length = Number(bytes.readBigUInt64LE());
    expect(length % 8).to.equal(0);
    const header = bytes.subarray(8, 8 + length).toString();
    expect(header.trimEnd()).to.equal(
      `{"__metadata__":{"a":"1","b":"2"},"a":${entry('F32', [1], 0, 4)},"z":${entry('F32', [], 4, 8)},"b":${entry('U8', [3], 8, 11)}}`,
    );
    expect([...bytes.subarray(8 + length)]).to.deep.equal([...f32(2), ...f32(1), 1, 2, 3]);
  });

  it('gives the same bytes whatever the order', async () => {
    await writeSafetensors(at('one'), ALL, { x: '1', y: '2' });
    await writeSafetensors(at('two'), [...ALL].reverse(), { y: '2', x: '1' });
    expect(Buffer.compare(fs.readFileSync(at('one')), fs.readFileSync(at('two')))).to.equal(0);
  });

  it('writes no tensors at all, empty tensors, and names from hell', async () => {
    await writeSafetensors(at('none'), []);
    expect((await openSafetensors(at('none'))).entries.size).to.equal(0);
    const names = ['__proto__', 'constructor', '', '"\\\n', '\u{1f600}', 'toString'].filter((n) => n !== '');
    await writeSafetensors(at('names'), [
      ...names.map((name) => ({ name, dtype: 'f32' as const, shape: [], data: f32(1) })),
      { name: 'empty', dtype: 'i64' as const, shape: [0, 7], data: new Uint8Array(0) },
    ]);
    const file = await openSafetensors(at('names'));
    for (const name of names) expect(Array.from(await file.readFloat32(name)), name).to.deep.equal([1]);
    expect((await file.readFloat32('empty')).length).to.equal(0);
    await expectFailure(file.read('valueOf'), 'ERR_WEIGHTS', "no tensor 'valueOf'");
    await file.close();
  });

  it('refuses bad tensors before anything is written', async () => {
    const good = { name: 'w', dtype: 'f32' as const, shape: [1], data: f32(1) };
    const bad: [unknown, RegExp][] = [
      [{ ...good, name: '__metadata__' }, /Expected a tensor name/],
      [{ ...good, name: '' }, /Expected a tensor name/],
      [{ ...good, dtype: 'f8' }, /Expected one of f64, .* for dtype of w but received 'f8'/],
      [{ ...good, dtype: 'toString' }, /Expected one of/],
      [{ ...good, shape: [-1] }, /Expected an array of sizes for shape of w/],
      [{ ...good, shape: [2 ** 40, 2 ** 40] }, /Expected a size below/],
      [{ ...good, data: f32(1, 2) }, /Expected 4 bytes \(1 f32\) for data of w/],
      [{ ...good, data: [1] }, /Expected a Uint8Array for data of w/],
    ];
    for (const [tensor, message] of bad) {
      let error: unknown;
      await writeSafetensors(at('bad'), [tensor as TensorToWrite]).catch((e: unknown) => (error = e));
      expect(error).to.match(message).and.not.to.be.instanceOf(Ptq4vmError);
    }
    let error: unknown;
    await writeSafetensors(at('bad'), [good, good]).catch((e: unknown) => (error = e));
    expect(error).to.match(/names that differ/);
    await writeSafetensors(at('bad'), [good], { n: 1 as unknown as string }).catch((e: unknown) => (error = e));
    expect(error).to.match(/Expected a string for metadata.n/);
    expect(fs.existsSync(at('bad'))).to.equal(false);
  });

  it('leaves the old file as it was when a tensor fails, has the wrong size, or the caller aborts', async () => {
    await writeSafetensors(at('kept'), [{ name: 'old', dtype: 'f32', shape: [1], data: f32(7) }]);
    const old = fs.readFileSync(at('kept'));
    const controller = new AbortController();
    const reason = new Error('enough');
    const attempts: [string, TensorToWrite['data'], RegExp][] = [
      [
        'fails',
        () => {
          throw new Error('no weights');
        },
        /no weights/,
      ],
      ['rejects', () => Promise.reject(new Error('no luck')), /no luck/],
      ['too short', () => f32(), /Expected 4 bytes/],
      [
        'aborted',
        () => {
          controller.abort(reason);
          return f32(1);
        },
        /enough/,
      ],
    ];
    for (const [title, data, message] of attempts) {
      let error: unknown;
      const tensors: TensorToWrite[] = [
        { name: 'a', dtype: 'f64', shape: [1 << 16], data: new Uint8Array(1 << 19) },
        { name: 'b', dtype: 'f32', shape: [1], data },
      ];
      await writeSafetensors(at('kept'), tensors, {}, { signal: controller.signal }).catch((e: unknown) => (error = e));
      expect(error, title).to.match(message);
      expect(Buffer.compare(fs.readFileSync(at('kept')), old), title).to.equal(0);
      expect(left(), title).to.deep.equal([]);
    }
    let error: unknown;
    await writeSafetensors(at('kept'), [], {}, { signal: controller.signal }).catch((e: unknown) => (error = e));
    expect(error).to.equal(reason);
    expect(Buffer.compare(fs.readFileSync(at('kept')), old)).to.equal(0);
  });

  const HEADERS: [string, Buffer, string, string][] = [
    ['seven bytes', Buffer.from('\x02\0\0\0\0\0\0'), 'ERR_FILE_FORMAT', 'too few'],
    ['no JSON', make('{"a"'), 'ERR_FILE_FORMAT', "no valid JSON: expected ':' at character 4"],
    ['a trailing comma', make('{"__metadata__":{},}'), 'ERR_FILE_FORMAT', 'no valid JSON'],
    ['text after the header', make('{} x'), 'ERR_FILE_FORMAT', 'unexpected text after the end'],
    ['a header that is a list', make('[1]'), 'ERR_FILE_FORMAT', 'its header is no JSON object'],
    ['bytes that are no UTF-8', make(Buffer.from('{"\xff":1}', 'latin1')), 'ERR_FILE_FORMAT', 'not UTF-8'],
    ['a raw control character', make('{"a\nb":1}'), 'ERR_FILE_FORMAT', 'bad string'],
    ['a header nested 100 deep', make(`${'{"a":'.repeat(100)}1${'}'.repeat(100)}`), 'ERR_FILE_FORMAT', 'nested too deep'],
    ['a header nested a million deep', make(`{"a":${'['.repeat(1e6)}`), 'ERR_FILE_FORMAT', 'nested too deep'],
    [
      'a duplicate name',
      make(`{"a":${entry('F32', [1], 0, 4)},"a":${entry('F32', [1], 0, 4)}}`, f32(1)),
      'ERR_FILE_FORMAT',
      'duplicate key "a"',
    ],
    [
      'a duplicate name in disguise',
      make(`{"a":${entry('F32', [1], 0, 4)},"\\u0061":${entry('F32', [1], 0, 4)}}`, f32(1)),
      'ERR_FILE_FORMAT',
      'duplicate key "a"',
    ],
    [
      'a duplicate dtype',
      make('{"a":{"dtype":"F32","dtype":"I8","shape":[1],"data_offsets":[0,4]}}', f32(1)),
      'ERR_FILE_FORMAT',
      'duplicate key "dtype"',
    ],
    ['an unknown dtype', make(`{"a":${entry('F33', [1], 0, 4)}}`, f32(1)), 'ERR_FILE_FORMAT', "tensor 'a' has unknown dtype 'F33'"],
    ['a dtype of no use here', make(`{"a":${entry('F8_E4M3', [4], 0, 4)}}`, f32(1)), 'ERR_UNSUPPORTED', "tensor 'a' has type F8_E4M3"],
    ['no dtype', make('{"a":{"shape":[1],"data_offsets":[0,4]}}', f32(1)), 'ERR_FILE_FORMAT', "tensor 'a' has no dtype"],
    ['no shape', make('{"a":{"dtype":"F32","data_offsets":[0,4]}}', f32(1)), 'ERR_FILE_FORMAT', 'no list of sizes'],
    ['a negative size', make(`{"a":${entry('F32', [-1], 0, 4)}}`, f32(1)), 'ERR_FILE_FORMAT', 'no list of sizes'],
    ['a fractional size', make(`{"a":${entry('F32', [0.5], 0, 4)}}`, f32(1)), 'ERR_FILE_FORMAT', 'no list of sizes'],
    [
      'a size beyond 2^53',
      make(`{"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}}`, f32(1)),
      'ERR_FILE_FORMAT',
      'no list of sizes',
    ],
    ['a product beyond 2^53', make(`{"a":${entry('F32', [2 ** 32, 2 ** 32], 0, 4)}}`, f32(1)), 'ERR_FILE_FORMAT', 'impossible size'],
    ['an overflow hidden by a zero', make(`{"a":${entry('F32', [2 ** 32, 2 ** 32, 0], 0, 0)}}`), 'ERR_FILE_FORMAT', 'impossible size'],
    ['one offset', make('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', f32(1)), 'ERR_FILE_FORMAT', 'no pair of positions'],
    ['offsets in the wrong order', make(`{"a":${entry('F32', [1], 4, 0)}}`, f32(1)), 'ERR_FILE_FORMAT', 'wrong order (4, 0)'],
    ['a negative offset', make(`{"a":${entry('F32', [1], -4, 0)}}`, f32(1)), 'ERR_FILE_FORMAT', 'no pair of positions'],
    [
      'a size that is not that of the shape',
      make(`{"a":${entry('F32', [2], 0, 4)}}`, f32(1)),
      'ERR_FILE_FORMAT',
      'has 4 bytes of data, but 2 F32 needs 8',
    ],
    [
      'an overlap',
      make(`{"a":${entry('F32', [1], 0, 4)},"b":${entry('F32', [1], 2, 6)}}`, f32(1, 2)),
      'ERR_FILE_FORMAT',
      "tensor 'b' overlaps the one before it",
    ],
    [
      'two tensors of the same bytes',
      make(`{"a":${entry('F32', [1], 0, 4)},"b":${entry('F32', [1], 0, 4)}}`, f32(1)),
      'ERR_FILE_FORMAT',
      'overlaps',
    ],
    [
      'a hole',
      make(`{"a":${entry('F32', [1], 0, 4)},"b":${entry('F32', [1], 8, 12)}}`, f32(1, 2, 3)),
      'ERR_FILE_FORMAT',
      "a hole of 4 bytes lies before tensor 'b'",
    ],
    ['a hole at the beginning', make(`{"a":${entry('F32', [1], 4, 8)}}`, f32(1, 2)), 'ERR_FILE_FORMAT', 'a hole of 4 bytes'],
    [
      'bytes behind the last tensor',
      make(`{"a":${entry('F32', [1], 0, 4)}}`, f32(1, 2)),
      'ERR_FILE_FORMAT',
      '4 bytes lie behind the last tensor',
    ],
    ['bytes without tensors', make('{}', f32(1)), 'ERR_FILE_FORMAT', '4 bytes lie behind'],
    [
      'a tensor beyond the file',
      make(`{"a":${entry('F32', [100], 0, 400)}}`, f32(1)),
      'ERR_FILE_FORMAT',
      "truncated: tensor 'a' ends at byte",
    ],
    ['a tensor of a petabyte', make(`{"a":${entry('U8', [1e15], 0, 1e15)}}`, f32(1)), 'ERR_FILE_FORMAT', 'truncated'],
    ['metadata that is a list', make('{"__metadata__":[]}'), 'ERR_FILE_FORMAT', '__metadata__ is no JSON object'],
    ['metadata with a number', make('{"__metadata__":{"n":1}}'), 'ERR_FILE_FORMAT', "__metadata__ entry 'n' is no string"],
    ['a tensor that is a number', make('{"a":1}'), 'ERR_FILE_FORMAT', "tensor 'a' has no description"],
    ['a header length beyond the file', make('{}', undefined, 500), 'ERR_FILE_FORMAT', 'truncated: declares a header of 500 bytes'],
    [
      'a header length of 2^63',
      Buffer.concat([Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x80]), Buffer.from('{}')]),
      'ERR_FILE_FORMAT',
      'at most 100000000',
    ],
    ['a header of no bytes', make('', f32(1)), 'ERR_FILE_FORMAT', 'no valid JSON: unexpected end at character 0'],
  ];
  for (const [title, bytes, code, fragment] of HEADERS) {
    it(`refuses ${title}`, async () => {
      fs.writeFileSync(at('bad.safetensors'), bytes);
      await expectFailure(openSafetensors(at('bad.safetensors')), code, fragment);
    });
  }

  it('refuses every truncation', async () => {
    const whole = make(`{"a":${entry('F32', [1], 0, 4)}}`, f32(1));
    for (let n = 0; n < whole.length; n++) {
      fs.writeFileSync(at('cut.safetensors'), whole.subarray(0, n));
      await expectFailure(openCheckpoint(at('cut.safetensors')), 'ERR_FILE_FORMAT', /./);
    }
  });

  it('accepts padding before and after, and any order of keys and tensors', async () => {
    const header = ` { "b" : {"data_offsets":[4,8],"shape":[1],"dtype":"F32"} ,\n "a":${entry('F32', [1], 0, 4)}}   `;
    fs.writeFileSync(at('spaces'), make(header, f32(1, 2)));
    const file = await openSafetensors(at('spaces'));
    expect([(await file.readFloat32('a'))[0], (await file.readFloat32('b'))[0]]).to.deep.equal([1, 2]);
    await file.close();
  });
});
