/** Pictures that are already the model's input: an .npy file of [N, 3, H, W]. */
import { Ptq4vmError, typeError } from '../errors.js';
import { type NpyFile, openNpy, readNpyIntegers } from '../io/npy.js';
import { showShape } from '../tensor.js';
import { type Batch, type BatchRequest, type Dataset, checkRequest, prefetched } from './dataset.js';
import { sizeOf } from './preprocess.js';

export interface NpyBatchOptions {
  /** An .npy file of integers [N], or the labels themselves: class indices of the model. */
  readonly labels?: string | ArrayLike<number>;
}

export interface NpyDataset extends Dataset {
  /** [N, 3, H, W]. */
  readonly shape: readonly [number, number, number, number];
}

/**
 * Float32 or float64 pictures [N, 3, H, W], C or Fortran order, already normalised: rows are read as they are needed and
 * handed on as float32. The file is held open only while batches are read.
 *
 * @throws Ptq4vmError ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT (no .npy), ERR_DATA (other shape or type, labels that do not fit)
 */
export async function npyBatch(file: string, options: NpyBatchOptions = {}): Promise<NpyDataset> {
  if (typeof file !== 'string' || file === '') throw typeError('a path', 'file', file);
  const npy = await openNpy(file);
  let shape: NpyDataset['shape'];
  try {
    shape = checkPictures(npy);
  } finally {
    await npy.close();
  }
  const labels = options.labels === undefined ? undefined : await readLabels(options.labels, shape[0], file);
  return new NpyBatches(file, shape, labels);
}

class NpyBatches implements NpyDataset {
  readonly name: string;
  readonly shape: NpyDataset['shape'];
  readonly labels?: Int32Array;

  constructor(file: string, shape: NpyDataset['shape'], labels: Int32Array | undefined) {
    this.name = file;
    this.shape = shape;
    if (labels !== undefined) this.labels = labels;
  }

  get length(): number {
    return this.shape[0];
  }

  describe(index: number): string {
    return `${this.name}[${index}]`;
  }

  batches(request: BatchRequest): AsyncIterable<Batch> {
    const total = checkRequest(request, this.length);
    const [height, width] = sizeOf(request.preprocess);
    if (this.shape[2] !== height || this.shape[3] !== width) {
      throw new Ptq4vmError('ERR_DATA', `${this.name} holds pictures of ${this.shape[2]}×${this.shape[3]}, the model takes ${height}×${width}`);
    }
    return this.read(request, total);
  }

  private async *read({ size, indices, signal }: BatchRequest, total: number): AsyncGenerator<Batch> {
    const npy = await openNpy(this.name);
    try {
      if (showShape(checkPictures(npy)) !== showShape(this.shape)) {
        throw new Ptq4vmError('ERR_DATA', `${this.name} changed: it held ${showShape(this.shape)} when it was opened`);
      }
      const make = async (k: number): Promise<Batch> => {
        const first = k * size;
        const n = Math.min(size, total - first);
        const at = (i: number): number => indices?.[first + i] ?? first + i;
        const images = await readIndices(npy, n, at);
        const labels = this.labels && Int32Array.from({ length: n }, (_, i) => this.labels![at(i)]!);
        return { images, n, first, ...(labels ? { labels } : {}) };
      };
      yield* prefetched(Math.ceil(total / size), make, signal);
    } finally {
      await npy.close();
    }
  }
}

/** Rows at(0) … at(n − 1); neighbours in the file are read in one piece. */
async function readIndices(npy: NpyFile, n: number, at: (i: number) => number): Promise<Float32Array> {
  const [, channels, height, width] = npy.shape as [number, number, number, number];
  const pixels = channels * height * width;
  let out: Float32Array | undefined;
  for (let i = 0; i < n; ) {
    const begin = i++;
    while (i < n && at(i) === at(i - 1) + 1) i++;
    const rows = await npy.readRows(at(begin), at(begin) + i - begin);
    if (begin === 0 && i === n) return rows;
    out ??= new Float32Array(n * pixels);
    out.set(rows, begin * pixels);
  }
  return out ?? new Float32Array(0);
}

function checkPictures(npy: NpyFile): NpyDataset['shape'] {
  const { shape, dtype, path } = npy;
  if (shape.length !== 4 || shape[1] !== 3) {
    throw new Ptq4vmError('ERR_DATA', `Expected pictures [N, 3, H, W] in ${path} but it holds ${showShape(shape)}`);
  }
  if (dtype !== 'f32' && dtype !== 'f64') {
    throw new Ptq4vmError('ERR_DATA', `Expected float32 or float64 pictures, already normalised, in ${path} but it holds ${dtype}`);
  }
  if (shape.includes(0)) throw new Ptq4vmError('ERR_DATA', `${path} is empty: ${showShape(shape)}`);
  return shape as unknown as NpyDataset['shape'];
}

async function readLabels(given: string | ArrayLike<number>, n: number, file: string): Promise<Int32Array> {
  const name = typeof given === 'string' ? given : 'labels';
  let labels: Int32Array;
  if (typeof given === 'string') {
    const { shape, data } = await readNpyIntegers(given);
    if (shape.length !== 1) throw new Ptq4vmError('ERR_DATA', `Expected labels [${n}] in ${given} but it holds ${showShape(shape)}`);
    labels = data;
  } else {
    if (typeof given !== 'object' || given === null) throw typeError('a path or an array of class indices', 'labels', given);
    labels = Int32Array.from(given);
    const changed = labels.findIndex((v, i) => v !== given[i]);
    if (changed >= 0) throw typeError('an integer', `labels[${changed}]`, given[changed]);
  }
  if (labels.length !== n) throw new Ptq4vmError('ERR_DATA', `${name} holds ${labels.length} labels, ${file} ${n} pictures`);
  const negative = labels.findIndex((v) => v < 0);
  if (negative >= 0) throw new Ptq4vmError('ERR_DATA', `${name}: label ${negative} is ${labels[negative]}, not a class index`);
  return labels;
}
