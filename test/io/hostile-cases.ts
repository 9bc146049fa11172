/** The files of hostile.test.ts: foreign, truncated, damaged and made to harm. */
import { deflateRawSync, gzipSync } from 'node:zlib';
import {
  build,
  bytesOf,
  call,
  Code,
  dict,
  global,
  LEGACY_MAGIC,
  newObject,
  persistent,
  pickle,
  tensor,
  type TensorSpec,
  torchLegacy,
  torchZip,
  tuple,
  zip,
} from './torch-writer.js';

export const floats = (n: number): Uint8Array => bytesOf('f32', new Array(n).fill(1));
/** A zip and a legacy file around one tensor. */
const inZip = (spec: TensorSpec, bytes = floats(4)): Buffer => torchZip(dict({ 'layers.0.w': tensor(spec) }), { 0: bytes });
const inLegacy = (spec: TensorSpec, bytes = floats(4), size = 4): Buffer =>
  torchLegacy(dict({ 'layers.0.w': tensor(spec) }), [['0', size, bytes]]);
export const text = (s: string): Buffer => Buffer.from(s, 'latin1');
export const goodZip = torchZip(dict({ model: dict({ w: tensor() }) }), { 0: floats(2) });
export const goodLegacy = torchLegacy(dict({ model: dict({ w: tensor() }) }), [['0', 4, floats(2)]]);
const tar = (name: string): Buffer => {
  const b = Buffer.alloc(1024);
  b.write(name, 0, 'latin1');
  b.write('ustar', 257, 'latin1');
  return b;
};
const patched = (bytes: Buffer, at: number, value: number): Buffer => {
  const copy = Buffer.from(bytes);
  copy[at] = value;
  return copy;
};
const big = (n: number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64LE(BigInt(n));
  return b;
};

export const FORMAT = 'ERR_FILE_FORMAT';
const UNSUPPORTED = 'ERR_UNSUPPORTED';

/** title, bytes, code, what the message says */
export const CASES: readonly (readonly [string, Uint8Array, string, string | RegExp])[] = [
  // Foreign files
  ['an empty file', Buffer.alloc(0), FORMAT, 'an empty file'],
  ['one byte', text('\x80'), FORMAT, '1 bytes of unknown content'],
  ['an HTML page', text('<!DOCTYPE html><html><body>404</body></html>'), FORMAT, 'an HTML page (a failed download?)'],
  ['an XML document', text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'), FORMAT, 'an XML document'],
  [
    'a Git LFS pointer',
    text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n'),
    FORMAT,
    "a Git LFS pointer, not the file itself (run 'git lfs pull'",
  ],
  ['a gzip file', gzipSync('x'), FORMAT, 'gzip data (decompress it first)'],
  ['a tar archive', tar('vim/model.pth'), FORMAT, 'a tar archive (unpack it first)'],
  ["torch's tar format of 2016", tar('sys_info'), UNSUPPORTED, /PyTorch before 0\.1\.10 .*save it again/],
  ['a NumPy array', text('\x93NUMPY\x01\0v\0'), FORMAT, 'a NumPy .npy array'],
  ['a NumPy .npz archive', zip([{ name: 'arr_0.npy', data: floats(1) }]), FORMAT, 'a NumPy .npz archive'],
  ['an HDF5 file', text('\x89HDF\r\n\x1a\n\0\0\0\0'), FORMAT, 'an HDF5 file'],
  ['a GGUF file', text('GGUF\x03\0\0\0\0\0\0\0'), FORMAT, 'a GGUF file'],
  ['a JPEG picture', text('\xff\xd8\xff\xe0\0\x10JFIF'), FORMAT, 'a JPEG picture'],
  ['JSON text', text('{"model": "vim", "depth": 24}'), FORMAT, 'JSON text'],
  ['plain text', text('hello, this is no model at all\n'), FORMAT, 'plain text'],
  ['zero bytes', Buffer.alloc(4096), FORMAT, 'a file of zero bytes (an unfinished download?)'],
  [
    'noise',
    Buffer.from(Array.from({ length: 600 }, (_, i) => (i * 37 + 129) & 0xff)),
    FORMAT,
    'binary data of unknown kind (first bytes 81a6',
  ],
  ['a pickle of something else', pickle(dict({ a: 1 })), FORMAT, 'a Python pickle that torch.save did not write'],
  [
    'a zip of pictures',
    zip([{ name: 'cat.jpg', data: floats(1) }]),
    FORMAT,
    "a zip archive without data.pkl (its first entry is 'cat.jpg')",
  ],
  ['a zip around a checkpoint', zip([{ name: 'vim_t.pth', data: goodZip }]), FORMAT, 'a zip archive around a checkpoint (unpack it first)'],
  ['an empty zip', zip([]), FORMAT, 'an empty zip archive'],
  ['an office document', zip([{ name: '[Content_Types].xml', data: text('<x/>') }]), FORMAT, 'an office document'],
  [
    'a TorchScript program',
    torchZip(dict({}), {}, [{ name: 'archive/code/__torch__.py', data: text('x') }]),
    UNSUPPORTED,
    'a TorchScript program, not a state dict',
  ],

  // Zip structure
  ['a zip cut in half', goodZip.subarray(0, goodZip.length >> 1), FORMAT, /truncated or damaged zip file: End of central directory/],
  ['a zip cut by one byte', goodZip.subarray(0, -1), FORMAT, 'truncated or damaged zip file'],
  [
    'a directory beyond the file',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [], { directory: 0x7fffffff }),
    FORMAT,
    'the zip directory needs 46 bytes at offset 2147483647',
  ],
  [
    'a directory at the wrong place',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [], { directory: 3 }),
    FORMAT,
    'invalid central directory file header signature',
  ],
  [
    'more entries than the directory has',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [], { count: 9 }),
    FORMAT,
    'truncated or damaged',
  ],
  [
    'fewer entries than needed',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [], { count: 1 }),
    FORMAT,
    "storage '0', which the file does not hold",
  ],
  [
    'duplicate entries',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: 'archive/data/0', data: floats(2) }]),
    FORMAT,
    'duplicate zip entry archive/data/0',
  ],
  [
    'two pickles',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: 'other/data.pkl', data: pickle(1) }]),
    FORMAT,
    'ambiguous: it holds 2 pickles',
  ],
  [
    'an entry that climbs out',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: '../../etc/passwd', data: text('x') }]),
    FORMAT,
    'invalid relative path',
  ],
  [
    'an absolute entry',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: '/etc/passwd', data: text('x') }]),
    FORMAT,
    'absolute path',
  ],
  [
    'entries that overlap (a zip bomb)',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: 'archive/data/1', data: text('x'), offset: 0 }]),
    FORMAT,
    'overlaps another one',
  ],
  [
    'an entry beyond 2^53',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: floats(2), zip64Offset: 2n ** 62n }]),
    FORMAT,
    'at offset 4611686018427388000',
  ],
  [
    'a stored entry of two sizes',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: floats(2), size: 8, packed: 7 }]),
    FORMAT,
    'size mismatch for stored file',
  ],
  [
    'a stored entry longer than the file',
    torchZip(dict({ w: tensor({ shape: [4096] }) }), {}, [{ name: 'archive/data/0', data: floats(2), size: 16384 }]),
    FORMAT,
    /overflows file bounds|overlaps/,
  ],
  [
    'an encrypted entry',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: Buffer.alloc(20), size: 8, packed: 20, flags: 1 }]),
    UNSUPPORTED,
    'archive/data/0 is encrypted',
  ],
  [
    'an entry compressed by bzip2',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: floats(2), method: 12 }]),
    UNSUPPORTED,
    'zip compression method 12',
  ],
  [
    'a deflated entry that is damaged',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: text('\xff\xff\xff'), method: 8, size: 8 }]),
    FORMAT,
    'damaged zip entry archive/data/0',
  ],
  [
    'a deflated entry shorter than declared',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: deflateRawSync(floats(1)), method: 8, size: 8 }]),
    FORMAT,
    '4 bytes where 8 were declared',
  ],
  [
    'a deflated entry longer than declared',
    torchZip(dict({ w: tensor() }), {}, [{ name: 'archive/data/0', data: deflateRawSync(floats(1000)), method: 8, size: 8 }]),
    FORMAT,
    'damaged zip entry archive/data/0',
  ],
  [
    'a deflate bomb of 3 GB',
    torchZip(dict({ w: tensor({ shape: [8e8] }) }), {}, [
      { name: 'archive/data/0', data: deflateRawSync(Buffer.alloc(1e5)), method: 8, size: 3.2e9 },
    ]),
    FORMAT,
    'a zip bomb?',
  ],
  [
    'a pickle of 200 MB declared',
    zip([{ name: 'a/data.pkl', data: deflateRawSync(Buffer.alloc(1e4)), method: 8, size: 2e8 }]),
    FORMAT,
    'has 200000000 bytes; at most 67108864 are read',
  ],
  [
    'an unknown byte order',
    torchZip(dict({ w: tensor() }), { 0: floats(2) }, [{ name: 'archive/byteorder', data: text('middle') }]),
    FORMAT,
    "neither 'little' nor 'big'",
  ],

  // What the pickle says
  ['an empty pickle', zip([{ name: 'a/data.pkl', data: Buffer.alloc(0) }]), FORMAT, 'the pickle breaks off at byte 0'],
  [
    'a truncated pickle',
    zip([{ name: 'a/data.pkl', data: pickle(dict({ w: tensor() })).subarray(0, 60) }]),
    FORMAT,
    'the pickle breaks off at byte 60',
  ],
  ['a list for content', torchZip([tensor()], { 0: floats(2) }), FORMAT, 'its content is a list or tuple, not a dict'],
  [
    'a dict without tensors',
    torchZip(dict({ epoch: 3, args: dict({ lr: 1 }) }), {}),
    FORMAT,
    "none of 'epoch', 'args' holds named tensors",
  ],
  ['an empty dict', torchZip(dict({}), {}), FORMAT, 'none of its (zero) keys'],
  [
    'a whole pickled module',
    torchZip(build(newObject(global('vim.models_mamba', 'VisionMamba')), dict({ training: false })), {}),
    UNSUPPORTED,
    'a whole pickled object of class vim.models_mamba.VisionMamba',
  ],
  [
    'a pickled module under model',
    torchZip(dict({ model: newObject(global('vim', 'VisionMamba')) }), {}),
    UNSUPPORTED,
    'save model.state_dict() instead',
  ],
  ['a call to os.system alone', torchZip(call(global('posix', 'system'), 'rm -rf /'), {}), UNSUPPORTED, 'object of class posix.system'],
  ['a persistent id that is no storage', torchZip(dict({ w: persistent('0') }), {}), FORMAT, 'no tensor storage'],
  [
    'a storage of a class of its own',
    torchZip(dict({ w: persistent(tuple('storage', global('evil', 'FloatStorage'), '0', 'cpu', 2)) }), {}),
    FORMAT,
    'a storage of unknown type (the class evil.FloatStorage)',
  ],
  ['a storage of negative size', inZip({ numel: -4 }), FORMAT, 'a storage whose size is no size'],
  [
    'a storage key that climbs out',
    inZip({ storage: '../../../etc/passwd' }),
    FORMAT,
    "refers to storage '../../../etc/passwd', which the file does not hold",
  ],
  ['a missing storage', inZip({ storage: '7' }), FORMAT, "tensor 'layers.0.w' refers to storage '7'"],
  ['a complex tensor', inZip({ type: 'ComplexFloatStorage' }), UNSUPPORTED, "tensor 'layers.0.w' has type complex64"],
  ['a quantized storage', inZip({ type: 'QInt8Storage' }), UNSUPPORTED, "tensor 'layers.0.w' has type qint8"],
  [
    'a quantized tensor',
    inZip({ rebuild: global('torch._utils', '_rebuild_qtensor') }),
    UNSUPPORTED,
    "tensor 'layers.0.w' is quantized (torch._utils._rebuild_qtensor); call .dequantize()",
  ],
  ['a sparse tensor', inZip({ rebuild: global('torch._utils', '_rebuild_sparse_tensor') }), UNSUPPORTED, "tensor 'layers.0.w' is sparse"],
  ['a float8 tensor', torchZip(dict({ w: float8() }), { 0: floats(2) }), UNSUPPORTED, "tensor 'w' has type float8_e4m3fn"],
  [
    'a tensor without storage',
    torchZip(dict({ w: call(global('torch._utils', '_rebuild_tensor_v2'), null, 0, tuple(), tuple(), false, null) }), {}),
    FORMAT,
    "tensor 'w' has no storage but None",
  ],

  // Views
  ['a view beyond its storage', inZip({ shape: [4], offset: 1 }), FORMAT, "tensor 'layers.0.w' reaches beyond its storage: 20 bytes of 16"],
  ['strides beyond the storage', inZip({ shape: [2, 2], numel: 4, strides: [3, 1] }), FORMAT, 'reaches beyond its storage'],
  [
    'a storage longer than its entry',
    inZip({ shape: [4], numel: 1000 }),
    FORMAT,
    "is in storage '0' of 4000 declared bytes, but the file holds 16",
  ],
  ['a negative stride', inZip({ shape: [2, 2], numel: 4, strides: [2, -1] }), FORMAT, 'has a negative stride'],
  ['a negative offset', inZip({ shape: [2], numel: 4, offset: -1 }), FORMAT, 'an offset that is no position'],
  ['a negative size', inZip({ shape: tuple(-2), strides: [1], numel: 4 }), FORMAT, 'a shape that is no list of sizes'],
  ['a fractional size', inZip({ shape: tuple(1.5), strides: [1], numel: 4 }), FORMAT, 'a shape that is no list of sizes'],
  ['a shape of words', inZip({ shape: tuple('a'), strides: [1], numel: 4 }), FORMAT, 'a shape that is no list of sizes'],
  [
    'a shape and strides of different length',
    inZip({ shape: [2, 2], strides: [1], numel: 4 }),
    FORMAT,
    'has 2 dimensions but other strides',
  ],
  ['65 dimensions', inZip({ shape: new Array(65).fill(1) }), FORMAT, 'a shape that is no list of sizes'],
  ['a size beyond 2^53', inZip({ shape: [2 ** 30, 2 ** 30], strides: [0, 0], numel: 4 }), FORMAT, 'an impossible size'],
  [
    'one element expanded to a terabyte',
    inZip({ shape: [2 ** 20, 2 ** 18], strides: [0, 0], numel: 4 }),
    FORMAT,
    /expands 16 bytes of data to 1099511627776 bytes/,
  ],
  [
    'a thousand tensors of the same storage',
    torchZip(dict(Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`w${i}`, tensor({ shape: [20_000] })]))), {
      0: floats(20_000),
    }),
    FORMAT,
    'its tensors would take 80000000 bytes, made from 80000 bytes of data',
  ],

  // Legacy format
  ['legacy: only the magic number', pickle(LEGACY_MAGIC), FORMAT, 'protocol version): truncated'],
  ['legacy: another protocol', torchLegacy(dict({ w: tensor() }), [], { protocol: 1002 }), FORMAT, 'legacy torch file of protocol 1002'],
  ['legacy: cut inside the object', goodLegacy.subarray(0, 200), FORMAT, 'the pickle breaks off at byte 200'],
  ['legacy: cut inside the last storage', goodLegacy.subarray(0, -1), FORMAT, "truncated: storage '0' needs 8 bytes"],
  ['legacy: cut before the last storage', goodLegacy.subarray(0, -12), FORMAT, "the size of storage '0' needs 8 bytes"],
  [
    'legacy: a storage list that is no list',
    torchLegacy(dict({ w: tensor() }), [['0', 4, floats(2)]], { keys: 7 }),
    FORMAT,
    'its list of storages is no list',
  ],
  [
    'legacy: a storage nobody uses',
    torchLegacy(dict({ w: tensor() }), [['0', 4, floats(2)]], { keys: ['5'] }),
    FORMAT,
    "lists storage '5', which no tensor uses",
  ],
  [
    'legacy: a storage listed twice',
    torchLegacy(dict({ w: tensor() }), [
      ['0', 4, floats(2)],
      ['0', 4, floats(2)],
    ]),
    FORMAT,
    "lists storage '0' twice",
  ],
  ['legacy: a storage not listed', torchLegacy(dict({ w: tensor() }), [], {}), FORMAT, "storage '0', which the file does not hold"],
  [
    'legacy: a storage of 2^60 elements',
    torchLegacy(dict({ w: tensor() }), [['0', 4, floats(2)]], { numel: { 0: 2n ** 60n } }),
    FORMAT,
    'more than the file can hold',
  ],
  [
    'legacy: a storage of -1 elements',
    torchLegacy(dict({ w: tensor() }), [['0', 4, floats(2)]], { numel: { 0: -1n } }),
    FORMAT,
    'declares -1 elements',
  ],
  ['legacy: a storage shorter than declared', inLegacy({ shape: [4], numel: 100 }), FORMAT, '400 declared bytes, but the file holds 16'],
  [
    'legacy: a storage view beyond its storage',
    inLegacy({ shape: [2], numel: 4, view: ['v', 3, 2] }),
    FORMAT,
    'a storage view beyond its storage',
  ],
  ['legacy: a damaged object pickle', patched(goodLegacy, goodLegacy.indexOf('model') - 5, 0xff), FORMAT, 'unknown opcode 0xff'],
  [
    'legacy: a quantized storage',
    inLegacy({ type: 'QUInt8Storage' }, Buffer.alloc(4), 1),
    UNSUPPORTED,
    "tensor 'layers.0.w' has type quint8",
  ],

  // safetensors by content (the rest is in safetensors.test.ts)
  [
    'safetensors: a header longer than the file',
    Buffer.concat([big(1000), text('{"a":1}')]),
    FORMAT,
    'truncated: declares a header of 1000 bytes',
  ],
  [
    'safetensors: a header of 2^40 bytes',
    Buffer.concat([big(2 ** 40), text('{}')]),
    FORMAT,
    'declares a header of 1099511627776 bytes; at most 100000000',
  ],
];

function float8(): Code {
  const storage = persistent(tuple('storage', global('torch.storage', 'UntypedStorage'), '0', 'cpu', 8));
  return call(
    global('torch._utils', '_rebuild_tensor_v3'),
    storage,
    0,
    tuple(8),
    tuple(1),
    false,
    null,
    global('torch', 'float8_e4m3fn'),
    null,
  );
}
