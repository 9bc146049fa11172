/**
 * The whole native contract on one page: what `ptq4vm.node` exports, and nothing else.
 *
 * A Program (see `lib/program/ir.ts`) crosses once, when a Session is made; a run crosses once
 * per call. Buffers are plain typed arrays in C order. Promises settle on the event loop; the work
 * runs on native threads that touch no JavaScript value.
 */
import type { Program } from '../program/ir.js';

export interface BuildInfo {
  readonly version: string;
  readonly compiler: string;
  readonly buildType: string;
  /** Instruction sets whose kernels were compiled in, weakest first, e.g. reference, portable, avx2, avx512. */
  readonly isas: readonly string[];
  readonly cudaCompiled: boolean;
  /** e.g. '13.0'; empty without CUDA. */
  readonly cudaToolkit: string;
}

export interface CpuInfo {
  readonly model: string;
  readonly physicalCores: number;
  readonly logicalCores: number;
  /** Names such as avx2, fma, avx512f, avx512vnni, avxvnni, amx-int8 that this processor has and the system enables. */
  readonly features: readonly string[];
  /** Compiled instruction sets that can run here, weakest first. */
  readonly isas: readonly string[];
  /** The one `auto` takes: the strongest usable, or PTQ4VM_ISA. */
  readonly isa: string;
}

export interface CudaDevice {
  readonly index: number;
  readonly name: string;
  readonly computeCapability: string;
  readonly memoryBytes: number;
}

export interface CudaInfo {
  readonly compiled: boolean;
  readonly available: boolean;
  /** Why `available` is false, in words a user can act on. */
  readonly reason: string;
  /** CUDA version the driver supports and the runtime linked in, e.g. '13.0'; empty when unknown. */
  readonly driver: string;
  readonly runtime: string;
  readonly devices: readonly CudaDevice[];
}

export interface SessionOptions {
  /** Threads of this session including the calling one; 0 = physical cores. */
  readonly threads?: number;
  /** Force an instruction set (tests, benchmarks); absent = CpuInfo.isa. */
  readonly isa?: string;
}

/** A flag that the engine looks at between ops. */
export interface CancelToken {
  cancel(): void;
}

export interface RunRequest {
  /** Images in this run; every feed and fetch is [images, rows, channels]. */
  readonly images: number;
  /** Values of tensors that the ops read but do not produce. f32 or u8 as the tensor's dtype says. */
  readonly feeds: Readonly<Record<string, Float32Array | Uint8Array>>;
  /** Tensors wanted back. */
  readonly fetches: readonly string[];
  /** Half-open range of ops to run; absent = all. */
  readonly first?: number;
  readonly end?: number;
  readonly cancel?: CancelToken;
  /** Return the nanoseconds that each op took (summed over threads; op k at index k − first). */
  readonly profile?: boolean;
}

export interface RunResult {
  readonly outputs: Readonly<Record<string, Float32Array | Uint8Array>>;
  /** True when the token was cancelled before the last op; outputs are then absent. */
  readonly cancelled: boolean;
  readonly opNanoseconds?: Float64Array;
}

export interface PlanEntry {
  readonly tensor: string;
  readonly bytes: number;
  readonly offset: number;
  /** 'batch' tensors hold all images; 'tile' tensors hold one image a worker and stay in cache. */
  readonly scope: 'batch' | 'tile';
}

export interface MemoryPlan {
  readonly batchBytes: number;
  readonly tileBytes: number;
  readonly weightBytes: number;
  readonly segments: readonly { readonly first: number; readonly end: number }[];
  readonly tensors: readonly PlanEntry[];
}

export interface NativeSession {
  readonly isa: string;
  readonly threads: number;
  run(request: RunRequest): Promise<RunResult>;
  plan(images: number): MemoryPlan;
  /** Frees weights and arenas once runs in flight have ended. Later calls throw. */
  dispose(): void;
}

/** Channels [from, from + channels) of an activation tensor [images, rows, width] over the calibration images. */
export interface ActivationSample {
  readonly data: Float32Array;
  readonly images: number;
  readonly rows: number;
  readonly width: number;
  readonly from: number;
  readonly channels: number;
}

export interface ActivationSteps {
  /** Step and zero point per row (token position in memory order), or one for the whole tensor. */
  readonly scale: Float32Array;
  readonly zero: Uint8Array;
  /** 1…100: which fraction won; 0 where no search was made. */
  readonly gridIndex: Uint8Array;
}

export interface WeightSteps {
  readonly scale: Float32Array;
  readonly gridIndex: Uint8Array;
}

export interface NativeCalibration {
  /** max |x| per channel over images and rows, [channels]. */
  absMax(x: ActivationSample, threads: number): Promise<Float32Array>;
  /**
   * Activation steps (golden D.4). x is divided by smooth[channels] first (absent = 1).
   * perToken: one (scale, zero) per row; else one per tensor. grid: L2.4 search, else plain min/max range.
   */
  activationSteps(
    x: ActivationSample,
    options: { bits: number; perToken: boolean; grid: boolean; smooth?: Float32Array; threads: number; cancel?: CancelToken },
  ): Promise<ActivationSteps>;
  /** Weight steps per output channel (golden D.3) of W[out,in]·smooth[in]. grid as above. */
  weightSteps(
    weight: Float32Array,
    options: { out: number; in: number; bits: number; grid: boolean; smooth?: Float32Array; threads: number; cancel?: CancelToken },
  ): Promise<WeightSteps>;
  /** Codes rint(clamp(W·smooth/scale)) of ARCHITECTURE "Mathematics", int8 [out,in]. */
  quantizeWeight(
    weight: Float32Array,
    options: { out: number; in: number; bits: number; scale: Float32Array; smooth?: Float32Array },
  ): Int8Array;
}

export interface NativeAddon {
  readonly build: BuildInfo;
  cpu(): CpuInfo;
  cuda(): CudaInfo;
  /** Runs a small kernel on one GPU and compares it with the host: '' when all is well, else what differed. */
  cudaSelfCheck(device: number): string;
  readonly Session: new (program: Program, options: SessionOptions) => NativeSession;
  readonly CancelToken: new () => CancelToken;
  readonly calibration: NativeCalibration;
}
