/**
 * The allow list: what "calling" a class means to the pickle machine. Containers and scalars of Python, tensors of PyTorch
 * and scalars and arrays of NumPy become data; any other class or function, known or not, becomes a `PyObject`, a record of
 * its name and arguments. Nothing is ever called.
 */
import {
  canonicalClass, describeValue, DTYPE_ELEMENTS, PyDict, PyGlobal, PyObject, PySet, TorchTensor, type UnpickleContext,
} from './pickle-values.js';

type Maker = (args: unknown[], context: UnpickleContext, depth: number) => unknown;

/** Tensors wrapped in tensors: `_rebuild_from_type_v2(_rebuild_parameter, …)` is two deep; nothing real is deeper. */
const MAX_WRAPPING = 4;

const dictFrom: Maker = ([items], context) => {
  const dict = new PyDict();
  if (items === undefined || items === null) return dict;
  if (items instanceof PyDict) {
    context.charge(48 * items.map.size);
    for (const [key, value] of items.map) dict.map.set(key, value);
    return dict;
  }
  if (!Array.isArray(items)) return context.fail(`it makes a dict of ${describeValue(items)}`);
  context.charge(48 * items.length);
  for (const pair of items) {
    if (!Array.isArray(pair) || pair.length !== 2) return context.fail('it makes a dict of something that is no list of pairs');
    dict.map.set(pair[0], pair[1]);
  }
  return dict;
};

const listFrom: Maker = ([items], context) => {
  if (items === undefined) return [];
  const list = items instanceof PySet ? items.items : items;
  if (!Array.isArray(list) && !(list instanceof Set)) return context.fail(`it makes a list of ${describeValue(items)}`);
  context.charge(8 * (Array.isArray(list) ? list.length : list.size));
  return [...list];
};

const setFrom: Maker = (args, context, depth) => {
  const set = new PySet();
  const items = listFrom(args, context, depth) as unknown[];
  context.charge(24 * items.length);
  for (const item of items) set.items.add(item);
  return set;
};

/** `_codecs.encode(text, 'latin1')` is how protocols 0 to 2 spell bytes. */
const encode: Maker = ([text, encoding], context) => {
  if (typeof text !== 'string' || (encoding !== 'latin1' && encoding !== 'latin-1')) {
    return new PyObject('_codecs.encode', [text, encoding]);
  }
  context.charge(text.length);
  return new Uint8Array(Buffer.from(text, 'latin1'));
};

const tensor: Maker = ([storage, offset, shape, strides]) => new TorchTensor(storage, offset, shape, strides, null);

/** v3 adds the element type, for types that have no storage class. */
const tensorV3: Maker = ([storage, offset, shape, strides, , , dtype], context) => {
  const element = dtype instanceof PyGlobal && dtype.module === 'torch' ? DTYPE_ELEMENTS.get(dtype.name) : undefined;
  if (element === undefined) return context.fail(`it makes a tensor of type ${describeValue(dtype)}`);
  return new TorchTensor(storage, offset, shape, strides, element);
};

const firstArgument: Maker = ([data]) => data;

/** A tensor of a Python subclass, or with attributes set on it: `(func, type, args, state)`. */
const fromType: Maker = ([callable, , args], context, depth) => {
  if (!Array.isArray(args)) return context.fail(`it makes a tensor of ${describeValue(args)}`);
  if (depth >= MAX_WRAPPING) return context.fail('it wraps a tensor in a tensor without end');
  return instantiate(callable, args, context, depth + 1);
};

const device: Maker = ([type, index]) =>
  typeof type === 'string' ? `${type}${typeof index === 'number' ? `:${index}` : ''}` : new PyObject('torch.device', [type, index]);

/** The first argument, when it is what the class would hold: `float(1)`, `Parameter(tensor, requires_grad)`. */
const scalarOf =
  (className: string, accepts: (value: unknown) => boolean): Maker =>
  (args) =>
    args.length > 0 && accepts(args[0]) ? args[0] : new PyObject(className, args);

const isBytes = (v: unknown): boolean => v instanceof Uint8Array;
const isNumber = (v: unknown): boolean => typeof v === 'number' || typeof v === 'bigint' || typeof v === 'boolean';

/** `numpy.core.multiarray.scalar(dtype, bytes)`. */
const numpyScalar: Maker = (args) => {
  const [dtype, data] = args;
  return numpyNumber(dtype, data) ?? new PyObject('numpy.scalar', args);
};

/** One number of a plain NumPy type from its bytes; null where the type is another, or the length wrong. */
export function numpyNumber(dtype: unknown, data: unknown): number | bigint | boolean | null {
  if (!(dtype instanceof PyObject) || dtype.className !== 'numpy.dtype' || !(data instanceof Uint8Array)) return null;
  const code = Array.isArray(dtype.args) ? dtype.args[0] : undefined;
  const order = Array.isArray(dtype.state) ? dtype.state[1] : '<';
  if (typeof code !== 'string' || data.length !== Number(code.slice(1))) return null;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const little = order !== '>';
  switch (code) {
    case 'f8': return view.getFloat64(0, little);
    case 'f4': return view.getFloat32(0, little);
    case 'i8': return narrow(view.getBigInt64(0, little));
    case 'u8': return narrow(view.getBigUint64(0, little));
    case 'i4': return view.getInt32(0, little);
    case 'u4': return view.getUint32(0, little);
    case 'i2': return view.getInt16(0, little);
    case 'u2': return view.getUint16(0, little);
    case 'i1': return view.getInt8(0);
    case 'u1': return view.getUint8(0);
    case 'b1': return view.getUint8(0) !== 0;
    default: return null;
  }
}

/** An array as protocol 5 writes it, `(data, dtype, shape, order)`, made alike to one that BUILD completes. */
const frombuffer: Maker = ([data, dtype, shape, order]) => {
  const array = new PyObject('numpy.ndarray', undefined);
  array.state = [1, shape, dtype, order === 'F', data];
  return array;
};

const narrow = (value: bigint): number | bigint => (Number.isSafeInteger(Number(value)) ? Number(value) : value);

const MAKERS: ReadonlyMap<string, Maker> = new Map<string, Maker>([
  ['builtins.dict', dictFrom],
  ['builtins.list', listFrom],
  ['builtins.tuple', listFrom],
  ['builtins.set', setFrom],
  ['builtins.frozenset', setFrom],
  ['builtins.int', scalarOf('builtins.int', isNumber)],
  ['builtins.float', scalarOf('builtins.float', isNumber)],
  ['builtins.bool', scalarOf('builtins.bool', isNumber)],
  ['builtins.str', scalarOf('builtins.str', (v) => typeof v === 'string')],
  ['builtins.bytes', (args, c, d) => (args.length === 0 ? new Uint8Array(0) : scalarOf('builtins.bytes', isBytes)(args, c, d))],
  ['builtins.bytearray', (args, c, d) => (args.length === 2 ? encode(args, c, d) : scalarOf('builtins.bytearray', isBytes)(args, c, d))],
  ['_codecs.encode', encode],
  ['collections.OrderedDict', dictFrom],
  // The default factory is a name like any other, and of no use here.
  ['collections.defaultdict', ([, ...rest], c, d) => dictFrom(rest, c, d)],
  ['collections.Counter', dictFrom],
  ['torch.Size', listFrom],
  ['torch.device', device],
  ['torch._utils._rebuild_tensor', tensor],
  ['torch._utils._rebuild_tensor_v2', tensor],
  ['torch._utils._rebuild_tensor_v3', tensorV3],
  ['torch._utils._rebuild_parameter', firstArgument],
  ['torch._utils._rebuild_parameter_with_state', firstArgument],
  ['torch._tensor._rebuild_from_type', fromType],
  ['torch._tensor._rebuild_from_type_v2', fromType],
  ['torch.tensor._rebuild_from_type', fromType],
  ['torch.nn.parameter.Parameter', scalarOf('torch.nn.parameter.Parameter', (v) => v instanceof TorchTensor)],
  ['numpy._core.multiarray.scalar', numpyScalar],
  ['numpy.dtype', (args) => new PyObject('numpy.dtype', args)],
  ['numpy._core.multiarray._reconstruct', () => new PyObject('numpy.ndarray', undefined)],
  ['numpy._core.numeric._frombuffer', frombuffer],
  // Objects of classes without __reduce__, as protocols 0 and 1 write them: (class, base, state of the base).
  ['copyreg._reconstructor', ([cls]) => new PyObject(cls instanceof PyGlobal ? canonicalClass(cls) : 'unknown', undefined)],
]);

/** The value of `callable(*args)`, without calling anything. */
export function instantiate(callable: unknown, args: unknown[], context: UnpickleContext, depth = 0): unknown {
  if (callable instanceof PyObject) {
    // Something that another call was to return: a bound method, a partial.
    context.charge(2 * callable.className.length);
    if (callable.className.length > 1000) return context.fail('it calls the result of a call of a call without end');
    return new PyObject(`${callable.className}()`, args);
  }
  if (!(callable instanceof PyGlobal)) return context.fail(`it calls ${describeValue(callable)}`);
  context.charge(2 * (callable.module.length + callable.name.length));
  const className = canonicalClass(callable);
  const make = MAKERS.get(className);
  return make === undefined ? new PyObject(className, args) : make(args, context, depth);
}

/** BUILD: attaches the state. Data without attributes (a tensor, a list subclass's list, …) keeps what it has. */
export function setState(target: unknown, state: unknown, context: UnpickleContext): void {
  if (target instanceof PyObject || target instanceof PyDict) {
    target.state = state;
    return;
  }
  // Attributes on a parameter or on a set carry nothing that a model needs.
  if (target instanceof TorchTensor || target instanceof PySet || Array.isArray(target) || target instanceof PyGlobal) return;
  context.fail(`it sets the state of ${describeValue(target)}`);
}
