/** The interface of an opened checkpoint, and what every format shares. */
import { Ptq4vmError } from '../errors.js';
import { type DType, type RawTensor, toFloat32 } from '../tensor.js';
import type { ByteSource } from './files.js';

export interface CheckpointFile {
  readonly path: string;
  readonly format: 'pth-zip' | 'pth-legacy' | 'safetensors';
  /** Tensors of the model's state dict, official names. */
  readonly entries: ReadonlyMap<string, { readonly dtype: DType; readonly shape: readonly number[] }>;
  /**
   * Plain data found beside the tensors. pth: the top-level keys other than the state dict (epoch, args, …), and under
   * `__reader__` what the reader did (`stateDict`: where the weights were, `strippedPrefix`, `note`, `skipped`).
   * safetensors: the strings of `__metadata__`. Objects have no prototype and no cycles.
   */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Raw bytes in C order (strides resolved), little-endian. Unknown name: Ptq4vmError ERR_WEIGHTS. */
  read(name: string): Promise<RawTensor>;
  /** The same, any float or integer type converted to float32. */
  readFloat32(name: string): Promise<Float32Array>;
  /** Reads after this fail with ERR_DISPOSED. May be called twice. */
  close(): Promise<void>;
}

/** The parts of `CheckpointFile` that every format shares. `E` is what a format must know to read a tensor. */
export abstract class CheckpointBase<E extends { readonly dtype: DType; readonly shape: readonly number[] }> implements CheckpointFile {
  abstract readonly format: CheckpointFile['format'];
  readonly path: string;

  constructor(
    protected readonly source: ByteSource,
    readonly entries: ReadonlyMap<string, E>,
    readonly metadata: Readonly<Record<string, unknown>>,
  ) {
    this.path = source.path;
  }

  /** Bytes of the entry in C order, at offset 0 of a buffer of their own. */
  protected abstract readEntry(name: string, entry: E): Promise<Uint8Array>;

  async read(name: string): Promise<RawTensor> {
    const entry = this.entries.get(name);
    if (entry === undefined) {
      throw new Ptq4vmError('ERR_WEIGHTS', `${this.path} has no tensor '${String(name).slice(0, 200)}'${this.#suggestion(name)}`);
    }
    return { dtype: entry.dtype, shape: entry.shape, data: await this.readEntry(name, entry) };
  }

  async readFloat32(name: string): Promise<Float32Array> {
    const raw = await this.read(name);
    const { data } = raw;
    // The bytes are ours alone: float32 needs no second copy.
    if (raw.dtype === 'f32' && data.byteOffset % 4 === 0) return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    return toFloat32(raw);
  }

  close(): Promise<void> {
    return this.source.close();
  }

  /** A name that ends alike helps more than a list of all names. */
  #suggestion(name: string): string {
    const tail = String(name).split('.').slice(-2).join('.');
    for (const known of this.entries.keys()) if (known !== name && known.endsWith(tail)) return ` (it has '${known.slice(0, 200)}')`;
    return ` (it has ${this.entries.size} tensors)`;
  }
}
