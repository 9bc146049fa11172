import { expect } from 'chai';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { unpickle } from '../../lib/io/pickle.js';
import { PyDict, PyGlobal, PyObject, PySet, TorchTensor } from '../../lib/io/pickle-values.js';
import { PlainConverter } from '../../lib/io/plain.js';
import { build, call, code, dict, global, long1, newObject, persistent, pickle, type Py, raw, tuple } from './torch-writer.js';

const load = (bytes: Uint8Array): unknown => unpickle(bytes, { label: 'test' }).value;
const plain = (value: unknown): unknown => new PlainConverter().convert(value);
const round = (value: Py): unknown => load(pickle(value));

describe('pickle machine', () => {
  // Written by CPython 3.11 and NumPy 2 (data/pickles.py), not by this project.
  const pickles = JSON.parse(fs.readFileSync(path.join(__dirname, 'data/pickles.json'), 'utf8')) as string[];

  pickles.forEach((base64, protocol) => {
    describe(`CPython protocol ${protocol}`, () => {
      let root: PyDict;
      let tree: Record<string, unknown>;
      before(() => {
        root = load(Buffer.from(base64, 'base64')) as PyDict;
        tree = plain(root) as Record<string, unknown>;
      });

      it('scalars', () => {
        expect(tree.none).to.equal(null);
        expect([tree.true, tree.false]).to.deep.equal([true, false]);
        expect(tree.ints).to.deep.equal([
          0,
          1,
          255,
          256,
          65535,
          65536,
          -1,
          -128,
          -129,
          2 ** 31 - 1,
          -(2 ** 31),
          2 ** 31,
          -(2 ** 31) - 1,
          2 ** 53 - 1,
          -(2 ** 53 - 1),
        ]);
        expect(root.map.get('big')).to.deep.equal([2n ** 64n, -(2n ** 64n), 2n ** 63n - 1n, -(2n ** 63n)]);
        expect(tree.floats).to.deep.equal([0, -1.5, 1e300, Infinity, -Infinity]);
      });

      it('text and bytes', () => {
        expect(tree.text).to.deep.equal(['', 'a\nb', 'q\'"', '\u00e9\u4e2d\u{1f600}', '\\u0041 back']);
        expect(root.map.get('bytes')).to.deep.equal([new Uint8Array(0), Uint8Array.of(0, 255, 10)]);
        expect(root.map.get('bytearray')).to.deep.equal(Uint8Array.of(0x78, 0x79));
      });

      it('containers', () => {
        expect(tree.list).to.deep.equal([1, [2, [3]]]);
        expect(tree.tuple).to.deep.equal([[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]);
        expect({ ...(tree.dict as object) }).to.deep.equal({ a: 1, 2: 'b', '(1, 2)': 3, None: 4 });
        expect([tree.set, tree.frozen]).to.deep.equal([[7], [8]]);
        expect(Object.entries(tree.ordered as object)).to.deep.equal([
          ['x', 1],
          ['y', 2],
        ]);
        expect({ ...(tree.dd as object) }).to.deep.equal({ k: [1] });
      });

      it('shared and cyclic structures', () => {
        const [a, b] = root.map.get('shared') as unknown[];
        expect(a).to.equal(b);
        const cycle = root.map.get('cycle') as unknown[];
        expect(cycle[1]).to.equal(cycle);
        expect(tree.cycle).to.deep.equal([1, '<cycle>']);
      });

      it('unknown classes become records', () => {
        const ns = tree.ns as Record<string, unknown>;
        expect(ns.__class__).to.equal('argparse.Namespace');
        expect({ ...(ns.state as object) }).to.deep.equal({ lr: 0.1, sched: 'cosine' });
        expect((tree.path as Record<string, unknown>).__class__).to.equal('pathlib.PurePosixPath');
        expect({ ...(tree.complex as object) }).to.deep.equal({ __class__: 'builtins.complex', args: [1, 2] });
      });

      it('NumPy scalars and arrays', () => {
        expect(tree.np).to.deep.equal([1.5, -7, 2.25, true]);
        expect({ ...(tree.nparr as object) }).to.deep.equal({
          __class__: 'numpy.ndarray',
          dtype: 'f4',
          shape: [2, 3],
          values: [0, 1, 2, 3, 4, 5],
        });
        expect({ ...(tree.npT as object) }).to.deep.include({ dtype: 'i2', shape: [2, 3], fortranOrder: true, values: [0, 3, 1, 4, 2, 5] });
      });
    });
  });

  it('reads LONG1 and LONG4 of every length and sign', () => {
    for (const value of [0n, 1n, -1n, 127n, 128n, -128n, -129n, 255n, 256n, -32768n, 2n ** 71n, -(2n ** 71n), -(2n ** 100n) + 1n]) {
      const narrow = Number.isSafeInteger(Number(value)) ? Number(value) : value;
      expect(load(Buffer.concat([Buffer.from([0x80, 2]), long1(value), Buffer.from('.')])), `LONG1 ${value}`).to.equal(narrow);
      const short = long1(value);
      const long4 = Buffer.concat([Buffer.from([0x80, 2, 0x8b, short[1]!, 0, 0, 0]), short.subarray(2), Buffer.from('.')]);
      expect(load(long4), `LONG4 ${value}`).to.equal(narrow);
    }
    expect(load(Buffer.from([0x80, 2, 0x8a, 0, 0x2e])), 'no bytes at all').to.equal(0);
  });

  it('reads the text opcodes of Python 2', () => {
    expect(load(Buffer.from("S'it\\'s \\x41\\101\\n'\n."))).to.equal("it's AA\n");
    expect(load(Buffer.from('I01\n.'))).to.equal(true);
    expect(load(Buffer.from('L-123L\n.'))).to.equal(-123);
    expect(load(Buffer.from('F-1.5e-3\n.'))).to.equal(-0.0015);
    expect(load(Buffer.from('(dp0\nI1\nI2\ns.'))).to.be.instanceOf(PyDict);
    expect(load(Buffer.from('U\x03abc.', 'latin1'))).to.equal('abc');
    const object = load(Buffer.from('(I1\nicopy\nThing\n.')) as PyObject;
    expect([object.className, object.args]).to.deep.equal(['copy.Thing', [1]]);
  });

  it('never calls what a file names', () => {
    const marker = path.join(__dirname, 'executed');
    const system = round(call(global('posix', 'system'), `touch ${marker}`)) as PyObject;
    expect(system).to.be.instanceOf(PyObject);
    expect({ ...(plain(system) as object) }).to.deep.equal({ __class__: 'posix.system', args: [`touch ${marker}`] });
    const evaluated = round(call(global('builtins', 'eval'), '1/0')) as PyObject;
    expect(evaluated.className).to.equal('builtins.eval');
    // getattr(os, 'system')('…'): the result of a call is called, and still nothing happens.
    const chained = round(call(call(global('builtins', 'getattr'), global('os', 'system'), '__call__'), 'x')) as PyObject;
    expect(chained.className).to.equal('builtins.getattr()');
    // JavaScript's own names mean nothing here.
    for (const [module, name] of [
      ['constructor', 'constructor'],
      ['__proto__', 'toString'],
      ['builtins', '__proto__'],
      ['process', 'exit'],
    ] as const) {
      expect(round(call(global(module, name), 1)), `${module}.${name}`).to.be.instanceOf(PyObject);
    }
    expect(fs.existsSync(marker)).to.equal(false);
  });

  it('keeps __proto__ a key like any other', () => {
    const value = round(dict({ ['__proto__']: dict({ polluted: true }), constructor: dict({ prototype: 1 }) }));
    const tree = plain(value) as Record<string, unknown>;
    expect(({} as Record<string, unknown>).polluted).to.equal(undefined);
    expect(Object.getPrototypeOf(tree)).to.equal(null);
    expect(Object.keys(tree)).to.deep.equal(['__proto__', 'constructor']);
    expect(JSON.parse(JSON.stringify(tree))).to.have.own.property('__proto__');
    const state = plain(round(build(newObject(global('a', 'B')), dict({ ['__proto__']: 1 })))) as Record<string, Record<string, unknown>>;
    expect(Object.keys(state.state!)).to.deep.equal(['__proto__']);
  });

  it('makes dict and list subclasses records with their items', () => {
    const node = plain(round(raw(code(newObject(global('yacs.config', 'CfgNode'))), '(', code('A'), code(1), 'u'))) as Record<
      string,
      unknown
    >;
    expect(node.__class__).to.equal('yacs.config.CfgNode');
    expect({ ...(node.items as object) }).to.deep.equal({ A: 1 });
    const list = plain(round(raw(code(newObject(global('omegaconf', 'ListConfig'))), '(', code(1), code(2), 'e'))) as Record<
      string,
      unknown
    >;
    expect(list.list).to.deep.equal([1, 2]);
  });

  it('turns torch names into plain words', () => {
    expect(plain(round(call(global('torch', 'device'), 'cuda', 0)))).to.equal('cuda:0');
    expect(plain(round(call(global('torch', 'Size'), tuple(2, 3))))).to.deep.equal([2, 3]);
    expect(plain(round(global('torch', 'float16')))).to.equal('torch.float16');
    expect(round(global('torch.nn', 'ReLU'))).to.be.instanceOf(PyGlobal);
    expect(round(call(global('__builtin__', 'set'), [1, 2]))).to.be.instanceOf(PySet);
  });

  it('unwraps parameters and tensors of subclasses', () => {
    const inner = call(global('torch._utils', '_rebuild_tensor_v2'), null, 0, tuple(), tuple(), false, null);
    expect(round(call(global('torch._utils', '_rebuild_parameter'), inner, true, null))).to.be.instanceOf(TorchTensor);
    const args = tuple(null, 0, tuple(), tuple(), false, null);
    const typed = call(
      global('torch._tensor', '_rebuild_from_type_v2'),
      global('torch._utils', '_rebuild_tensor_v2'),
      global('x', 'T'),
      args,
      null,
    );
    expect(round(typed)).to.be.instanceOf(TorchTensor);
  });

  it('describes what a small pickle blows up, without building it', () => {
    // 60 levels of [x, x] by sharing: a tree of 2^60 leaves.
    const levels = Buffer.concat([
      Buffer.from([0x80, 2]),
      Buffer.from('K\x01'),
      ...Array.from({ length: 60 }, () => Buffer.from('2\x86', 'latin1')),
      Buffer.from('.'),
    ]);
    const text = JSON.stringify(plain(load(levels)));
    expect(text).to.include('<left out');
    expect(text.length).to.be.lessThan(8e6);
    // 100 000 nested lists: the machine must not recurse, nor the conversion.
    const deep = Buffer.concat([Buffer.from(']'.repeat(100_000)), Buffer.from('a'.repeat(99_999)), Buffer.from('.')]);
    expect(JSON.stringify(plain(load(deep)))).to.include('nested too deep');
  });

  it('passes persistent ids to the loader', () => {
    const { value, end } = unpickle(pickle(persistent(tuple('storage', 1))), { label: 'test', persistentLoad: (id) => id });
    expect(value).to.deep.equal(['storage', 1]);
    expect(end).to.equal(pickle(persistent(tuple('storage', 1))).length);
    const { value: text } = unpickle(Buffer.from('Pabc\n.'), { label: 'test', persistentLoad: (id) => id });
    expect(text).to.equal('abc');
  });

  const failures: [string, Uint8Array | string, string][] = [
    ['nothing', '', 'truncated: the pickle breaks off at byte 0'],
    ['no STOP', 'K\x01', 'truncated: the pickle breaks off at byte 2'],
    ['a string longer than the pickle', 'X\xff\xff\xff\x7fab.', 'breaks off at byte 8, inside what begins at byte 0'],
    ['BINBYTES8 of 2^63 bytes', '\x8e\0\0\0\0\0\0\0\x80.', 'truncated'],
    ['a line without end', 'cos', 'truncated'],
    ['a frame without its length', '\x80\x04\x95\x01', 'truncated'],
    ['STOP with an empty stack', '.', 'stack runs empty'],
    ['a pop below a MARK', 'K\x01(\x85N.', 'stack runs empty'],
    ['TUPLE without MARK', 'K\x01t.', 'closes a group that it never opened'],
    ['GET of an absent entry', 'h\x05.', 'memo entry 5'],
    ['GET of no number', 'gx\n.', 'memo index'],
    ['PUT with an empty stack', 'q\0.', 'stack runs empty'],
    ['an unknown opcode', '\xff.', 'unknown opcode 0xff'],
    ['protocol 9', '\x80\x09N.', 'protocol 9'],
    ['an extension code', '\x82\x01.', 'EXT'],
    ['an out-of-band buffer', '\x97.', 'out-of-band'],
    ['SETITEMS of odd length', '}(K\x01u.', 'key without a value'],
    ['SETITEM on a list', ']K\x01K\x02s.', 'sets an item of a list'],
    ['APPEND to an int', 'K\x01K\x02a.', 'appends to an int'],
    ['ADDITEMS to a dict', '}(K\x01\x90.', 'adds to a dict'],
    ['REDUCE of a string', 'U\x01x)R.', 'calls a str'],
    ['REDUCE with a dict for arguments', 'cos\nsystem\n}R.', 'with a dict for arguments'],
    ['NEWOBJ of a list', '])\x81.', 'makes an object of a list'],
    ['OBJ of nothing', '(o.', 'makes an object of nothing'],
    ['STACK_GLOBAL of ints', 'K\x01K\x02\x93.', 'something other than two strings'],
    ['BUILD on a float', 'G\0\0\0\0\0\0\0\x01Nb.', 'sets the state of'],
    ['LONG1 of 255 bytes that end', '\x8a\xff\x01.', 'truncated'],
    ['LONG4 of a megabyte', '\x8b\0\0\x10\0.', 'an integer of 1048576 bytes'],
    ['LONG4 of negative length', '\x8b\xff\xff\xff\xff.', 'an integer of -1 bytes'],
    ['LONG of 10 000 digits', `L${'9'.repeat(10_000)}\n.`, 'an integer that is no number, or far too long'],
    ['INT of letters', 'Ix\n.', 'an integer that is no number'],
    ['FLOAT of letters', 'F0x10\n.', 'a float that is no number'],
    ['BINSTRING of negative length', 'T\xff\xff\xff\xff.', 'declares a length of -1'],
    ['STRING without quotes', 'Sabc\n.', 'a string without quotes'],
    ['a persistent id where none may be', 'NQ.', 'data outside the pickle'],
    ['OrderedDict of numbers', 'ccollections\nOrderedDict\n(](K\x01K\x02etR.', 'no list of pairs'],
    ['a tensor in a tensor in a tensor …', nestedTensor(), 'wraps a tensor in a tensor without end'],
    ['a list copied over and over', copies(), 'far more data than its length warrants'],
    ['a call of a call of a call …', calls(), /without end|warrants/.source],
  ];
  for (const [title, bytes, fragment] of failures) {
    it(`refuses ${title}`, () => {
      const data = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes;
      expect(() => load(data))
        .to.throw(new RegExp(fragment.includes('|') ? fragment : fragment.replace(/[.*+?^${}()[\]\\]/g, '\\$&')))
        .with.property('code', 'ERR_FILE_FORMAT');
    });
  }

  it('gives every prefix of a good pickle a clear error', () => {
    const whole = Buffer.from(pickles[4]!, 'base64');
    for (let length = 0; length < whole.length; length++) {
      expect(() => load(whole.subarray(0, length)), `first ${length} bytes`).to.throw(`truncated: the pickle breaks off at byte ${length}`);
    }
  });
});

/** _rebuild_from_type_v2(itself, T, args) with args that hold themselves. */
function nestedTensor(): Uint8Array {
  const from = code(global('torch._tensor', '_rebuild_from_type_v2'));
  // args = [from, T, args, None]: memo 0 is the list, which then contains itself.
  const args = Buffer.concat([Buffer.from(']q\0(', 'latin1'), from, Buffer.from('Nh\0Ne', 'latin1')]);
  return Buffer.concat([from, args, Buffer.from('R.')]);
}

/** A list of 20 000 numbers, copied into a new list 20 000 times. */
function copies(): Uint8Array {
  const list = Buffer.concat([Buffer.from(']q\0('), Buffer.from('K\x01'.repeat(20_000)), Buffer.from('e0')]);
  const cls = Buffer.from('cbuiltins\nlist\nq\x010', 'latin1');
  return Buffer.concat([list, cls, Buffer.from('h\x01h\0\x85R0'.repeat(20_000), 'latin1'), Buffer.from('N.')]);
}

function calls(): Uint8Array {
  return Buffer.concat([Buffer.from('ca\nb\n'), Buffer.from(')R'.repeat(10_000)), Buffer.from('.')]);
}
