import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { openNpy, readNpy, readNpyIntegers, writeNpy } from '../../lib/io/npy.js';
import { expectFailure, scratchFolder } from './support.js';
import { bytesOf } from './torch-writer.js';

/** A .npy file of any header text. */
function make(header: string, data: Uint8Array, version: 1 | 2 | 3 = 1, magic = '\x93NUMPY'): Buffer {
  const text = Buffer.from(header, version === 3 ? 'utf8' : 'latin1');
  const length = Buffer.alloc(version === 1 ? 2 : 4);
  if (version === 1) length.writeUInt16LE(text.length);
  else length.writeUInt32LE(text.length);
  return Buffer.concat([Buffer.from(magic, 'latin1'), Buffer.from([version, 0]), length, text, data]);
}
const header = (descr: string, shape: string, fortran = 'False'): string =>
  `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;
const array = (descr: string, shape: string, data: Uint8Array, fortran = 'False'): Buffer => make(header(descr, shape, fortran), data);
const f32 = (...v: number[]): Uint8Array => bytesOf('f32', v);
const swapped = (bytes: Uint8Array, size: 2 | 4 | 8): Uint8Array => {
  const b = Buffer.from(bytes);
  return size === 2 ? b.swap16() : size === 4 ? b.swap32() : b.swap64();
};

describe('npy', () => {
  const folder = scratchFolder();
  const save = (bytes: Uint8Array): string => {
    const full = path.join(folder(), 'a.npy');
    fs.writeFileSync(full, bytes);
    return full;
  };

  it('reads every number type', async () => {
    const values = [1, 0, 2];
    const cases: [string, string, Uint8Array][] = [
      ['<f8', 'f64', bytesOf('f64', values)],
      ['<f4', 'f32', f32(...values)],
      ['<f2', 'f16', bytesOf('f16', values)],
      ['<i8', 'i64', bytesOf('i64', values)],
      ['<i4', 'i32', bytesOf('i32', values)],
      ['<i2', 'i16', bytesOf('i16', values)],
      ['|i1', 'i8', bytesOf('i8', values)],
      ['<u8', 'u64', bytesOf('i64', values)],
      ['<u4', 'u32', bytesOf('i32', values)],
      ['<u2', 'u16', bytesOf('i16', values)],
      ['|u1', 'u8', bytesOf('u8', values)],
      ['|b1', 'bool', bytesOf('u8', values)],
      ['=f4', 'f32', f32(...values)],
      ['>f8', 'f64', swapped(bytesOf('f64', values), 8)],
      ['>f4', 'f32', swapped(f32(...values), 4)],
      ['>f2', 'f16', swapped(bytesOf('f16', values), 2)],
      ['>i8', 'i64', swapped(bytesOf('i64', values), 8)],
      ['>u2', 'u16', swapped(bytesOf('i16', values), 2)],
    ];
    for (const [descr, dtype, bytes] of cases) {
      const read = await readNpy(save(array(descr, '(3,)', bytes)));
      expect([read.dtype, read.shape], descr).to.deep.equal([dtype, [3]]);
      expect(Array.from(read.toFloat32()), descr).to.deep.equal(values);
    }
  });

  it('reads scalars, empty arrays, and versions 1, 2 and 3', async () => {
    expect(Array.from((await readNpy(save(array('<f4', '()', f32(5))))).toFloat32())).to.deep.equal([5]);
    expect((await readNpy(save(array('<f4', '(0, 3)', f32())))).shape).to.deep.equal([0, 3]);
    for (const version of [1, 2, 3] as const) {
      expect(Array.from((await readNpy(save(make(header('<f4', '(2,)'), f32(1, 2), version)))).toFloat32())).to.deep.equal([1, 2]);
    }
    expect((await readNpy(save(array('<f4', '(2L, 1L)', f32(1, 2))))).shape, 'Python 2').to.deep.equal([2, 1]);
    expect((await readNpy(save(make(`{"shape":(1,2),"descr":"<f4","fortran_order":False}`, f32(1, 2))))).shape).to.deep.equal([1, 2]);
  });

  it('resolves Fortran order', async () => {
    // numpy.asfortranarray(numpy.arange(24).reshape(2, 3, 4)): index (i, j, k) lies at i + 2 j + 6 k.
    const stored = new Array<number>(24);
    for (let i = 0; i < 2; i++) for (let j = 0; j < 3; j++) for (let k = 0; k < 4; k++) stored[i + 2 * j + 6 * k] = 12 * i + 4 * j + k;
    const expected = Array.from({ length: 24 }, (_, i) => i);
    for (const [descr, bytes] of [
      ['<f4', f32(...stored)],
      ['>f8', swapped(bytesOf('f64', stored), 8)],
      ['|u1', bytesOf('u8', stored)],
      ['<i2', bytesOf('i16', stored)],
    ] as const) {
      const full = save(array(descr, '(2, 3, 4)', bytes, 'True'));
      expect(Array.from((await readNpy(full)).toFloat32()), descr).to.deep.equal(expected);
      const file = await openNpy(full);
      expect(Array.from(await file.readRows(1, 2)), descr).to.deep.equal(expected.slice(12));
      expect(Array.from(await file.readRows(0, 2)), descr).to.deep.equal(expected);
      await file.close();
    }
    expect(Array.from((await readNpy(save(array('<f4', '(3,)', f32(1, 2, 3), 'True')))).toFloat32())).to.deep.equal([1, 2, 3]);
  });

  it('reads rows without reading the rest', async () => {
    const full = path.join(folder(), 'rows.npy');
    // A sparse file of 4 GB: 1 000 000 rows of 1 000 floats, only the last row written.
    const head = array('<f4', '(1000000, 10, 100)', new Uint8Array(0));
    const handle = fs.openSync(full, 'w');
    fs.writeSync(handle, head, 0, head.length, 0);
    const row = f32(...Array.from({ length: 1000 }, (_, i) => i));
    fs.writeSync(handle, row, 0, row.length, head.length + 999_999 * 4000);
    fs.closeSync(handle);
    const file = await openNpy(full);
    expect([file.rows, file.dtype, file.shape]).to.deep.equal([1e6, 'f32', [1e6, 10, 100]]);
    const last = await file.readRows(999_998, 1e6);
    expect([last.length, last[0], last[1999]]).to.deep.equal([2000, 0, 999]);
    expect((await file.readRows(5, 5)).length).to.equal(0);
    for (const [a, b] of [
      [-1, 0],
      [0, 1e6 + 1],
      [3, 2],
      [0.5, 1],
    ] as const) {
      let error: unknown;
      await file.readRows(a, b).catch((e: unknown) => (error = e));
      expect(error, `${a}, ${b}`).to.be.instanceOf(RangeError);
    }
    await file.close();
    await expectFailure(file.readRows(0, 1), 'ERR_DISPOSED', 'is closed');
    fs.rmSync(full);
  });

  it('converts rows of any type, and big-endian ones', async () => {
    const file = await openNpy(save(array('>i2', '(2, 2)', swapped(bytesOf('i16', [1, -2, 3, -4]), 2))));
    expect(Array.from(await file.readRows(1, 2))).to.deep.equal([3, -4]);
    await file.close();
    await expectFailure(openNpy(save(array('<f4', '()', f32(1)))), 'ERR_DATA', 'a single number');
  });

  it('writes what it reads, aligned as NumPy aligns', async () => {
    for (const dims of [[], [0], [3], [2, 3], [1, 2, 3, 4]]) {
      const data = Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => i - 1.5);
      const full = path.join(folder(), 'w.npy');
      await writeNpy(full, { dims, data });
      const bytes = fs.readFileSync(full);
      expect((bytes.length - data.byteLength) % 64).to.equal(0);
      expect(bytes[bytes.length - data.byteLength - 1]).to.equal(0x0a);
      const read = await readNpy(full);
      expect(read.shape).to.deep.equal(dims);
      expect(read.toFloat32()).to.deep.equal(data);
    }
    let error: unknown;
    await writeNpy(path.join(folder(), 'x.npy'), { dims: [2], data: new Float32Array(3) }).catch((e: unknown) => (error = e));
    expect(error).to.be.instanceOf(RangeError);
    expect(fs.existsSync(path.join(folder(), 'x.npy'))).to.equal(false);
  });

  it('reads integers of any type as int32, with a check of range', async () => {
    for (const [descr, bytes] of [
      ['<i8', bytesOf('i64', [3, -1, 7])],
      ['>i4', swapped(bytesOf('i32', [3, -1, 7]), 4)],
      ['|i1', bytesOf('i8', [3, -1, 7])],
    ] as const) {
      const { shape, data } = await readNpyIntegers(save(array(descr, '(3,)', bytes)));
      expect([shape, Array.from(data)], descr).to.deep.equal([[3], [3, -1, 7]]);
    }
    for (const [descr, bytes] of [
      ['<u8', bytesOf('i64', [3, 1, 7])],
      ['<u4', bytesOf('i32', [3, 1, 7])],
      ['<u2', bytesOf('i16', [3, 1, 7])],
      ['|u1', bytesOf('u8', [3, 1, 7])],
    ] as const) {
      expect(Array.from((await readNpyIntegers(save(array(descr, '(3,)', bytes)))).data), descr).to.deep.equal([3, 1, 7]);
    }
    await expectFailure(
      readNpyIntegers(save(array('<i8', '(2,)', bytesOf('i64', [1, 2 ** 31])))),
      'ERR_DATA',
      'value 2147483648 at index 1',
    );
    await expectFailure(
      readNpyIntegers(save(array('<u4', '(1,)', Uint8Array.of(255, 255, 255, 255)))),
      'ERR_DATA',
      'value 4294967295 at index 0',
    );
    await expectFailure(readNpyIntegers(save(array('<u8', '(1,)', new Uint8Array(8).fill(255)))), 'ERR_DATA', 'does not fit');
    await expectFailure(readNpyIntegers(save(array('<f4', '(1,)', f32(1)))), 'ERR_DATA', 'holds floats (f32)');
  });

  const BAD: [string, Uint8Array, string, string][] = [
    ['an empty file', new Uint8Array(0), 'ERR_FILE_FORMAT', 'it is empty'],
    ['another magic', make(header('<f4', '(1,)'), f32(1), 1, '\x93NUMPX'), 'ERR_FILE_FORMAT', 'does not begin with \\x93NUMPY'],
    ['version 4', Buffer.from('\x93NUMPY\x04\0\0\0\0\0', 'latin1'), 'ERR_FILE_FORMAT', 'version 4.0 is unknown'],
    ['only a magic', Buffer.from('\x93NUMPY', 'latin1'), 'ERR_FILE_FORMAT', 'version 0.0'],
    ['no header length', Buffer.from('\x93NUMPY\x01\0\x10', 'latin1'), 'ERR_FILE_FORMAT', 'truncated'],
    ['a header beyond the file', Buffer.from('\x93NUMPY\x01\0\x10\x10{}', 'latin1'), 'ERR_FILE_FORMAT', 'the header needs 4112 bytes'],
    ['a header of 2 GB', Buffer.from('\x93NUMPY\x02\0\0\0\0\x80{}', 'latin1'), 'ERR_FILE_FORMAT', 'header of 2147483648 bytes'],
    [
      'a truncated body',
      array('<f4', '(3,)', f32(1, 2)),
      'ERR_FILE_FORMAT',
      'truncated: its shape (3) needs 12 bytes of data, but 8 follow',
    ],
    ['a body too long', array('<f4', '(1,)', f32(1, 2)), 'ERR_FILE_FORMAT', 'too long: its shape (1) needs 4 bytes of data, but 8 follow'],
    ['a petabyte declared', array('<f4', '(1000000, 1000000, 250)', f32(1)), 'ERR_FILE_FORMAT', 'truncated: its shape'],
    ['an overflow hidden by a zero', array('<f4', '(4294967296, 4294967296, 0)', f32()), 'ERR_FILE_FORMAT', 'an impossible shape'],
    ['Python objects', array('|O', '(1,)', f32(1, 2)), 'ERR_UNSUPPORTED', 'Python objects (which only running code could load)'],
    [
      'records',
      make("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", f32(1)),
      'ERR_UNSUPPORTED',
      'records with named fields',
    ],
    ['complex numbers', array('<c8', '(1,)', f32(1, 2)), 'ERR_UNSUPPORTED', 'complex numbers'],
    ['text', array('<U1', '(1,)', f32(1)), 'ERR_UNSUPPORTED', 'text'],
    ['bfloat16', array('|V2', '(1,)', Uint8Array.of(1, 2)), 'ERR_UNSUPPORTED', 'convert to float32 first'],
    ['dates', array('<M8[ns]', '(1,)', new Uint8Array(8)), 'ERR_UNSUPPORTED', 'dates'],
    ['floats of 16 bytes', array('<f16', '(1,)', new Uint8Array(16)), 'ERR_UNSUPPORTED', 'floats of a rare width'],
    ['a type of no meaning', array('hello', '(1,)', f32(1)), 'ERR_FILE_FORMAT', "an unreadable type 'hello'"],
    ['an unknown type letter', array('<q4', '(1,)', f32(1)), 'ERR_FILE_FORMAT', "an unknown type '<q4'"],
    [
      'code for a header',
      make("__import__('os').system('id')", f32(1)),
      'ERR_FILE_FORMAT',
      'malformed: unexpected character at character 0',
    ],
    ['an expression for a shape', array('<f4', '(1+1,)', f32(1, 2)), 'ERR_FILE_FORMAT', 'malformed'],
    ['a number for a shape', array('<f4', '(3)', f32(1, 2, 3)), 'ERR_FILE_FORMAT', "no valid 'shape'"],
    ['a negative size', array('<f4', '(-1,)', f32(1)), 'ERR_FILE_FORMAT', 'malformed'],
    ['a fractional size', array('<f4', '(1.0,)', f32(1)), 'ERR_FILE_FORMAT', 'malformed'],
    ['a size beyond 2^53', array('<f4', '(9007199254740993,)', f32(1)), 'ERR_FILE_FORMAT', "no valid 'shape'"],
    ['65 dimensions', array('<f4', `(${'1, '.repeat(65)})`, f32(1)), 'ERR_FILE_FORMAT', "no valid 'shape'"],
    ['a shape nested a thousand deep', array('<f4', '('.repeat(1000), f32(1)), 'ERR_FILE_FORMAT', 'nested too deep'],
    ['no shape', make("{'descr': '<f4', 'fortran_order': False}", f32(1)), 'ERR_FILE_FORMAT', "no valid 'shape'"],
    ['an order of no meaning', array('<f4', '(1,)', f32(1), '0'), 'ERR_FILE_FORMAT', "no 'fortran_order'"],
    [
      'an unknown key',
      make("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), '__class__': 1}", f32(1)),
      'ERR_FILE_FORMAT',
      "unknown key '__class__'",
    ],
    [
      'a duplicate key',
      make("{'descr': '<f4', 'descr': '|O', 'fortran_order': False, 'shape': (1,)}", f32(1)),
      'ERR_FILE_FORMAT',
      "duplicate key 'descr'",
    ],
    ['a list for a header', make("['descr']", f32(1)), 'ERR_FILE_FORMAT', 'is no dict'],
    ['an unclosed string', make("{'descr", f32(1)), 'ERR_FILE_FORMAT', 'string without end'],
    ['text after the dict', make(`${header('<f4', '(1,)')}; import os`, f32(1)), 'ERR_FILE_FORMAT', 'unexpected text after the dict'],
  ];
  for (const [title, bytes, code, fragment] of BAD) {
    it(`refuses ${title}`, async () => {
      const full = save(bytes);
      await expectFailure(readNpy(full), code, fragment);
      await expectFailure(openNpy(full), code, fragment);
    });
  }

  it('refuses every truncation', async () => {
    const whole = array('<f4', '(2,)', f32(1, 2));
    for (let n = 0; n < whole.length; n++) await expectFailure(readNpy(save(whole.subarray(0, n))), 'ERR_FILE_FORMAT', /./);
  });

  it('says when a path cannot be read', async () => {
    await expectFailure(readNpy(path.join(folder(), 'absent.npy')), 'ERR_FILE_NOT_FOUND', 'ENOENT');
    await expectFailure(readNpyIntegers(folder()), 'ERR_FILE_NOT_FOUND', 'it is a folder');
  });
});
