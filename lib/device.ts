/** Which processor runs a model, and why. */
import { Ptq4vmError, rangeError } from './errors.js';
import { loadAddon } from './native/addon.js';
import type { BuildInfo, CpuInfo, CudaInfo } from './native/addon-types.js';

export type DeviceOption = 'auto' | 'cpu' | 'cuda';

export interface Device {
  readonly kind: 'cpu';
  /** Instruction set of the kernels, e.g. avx512. */
  readonly isa: string;
  readonly threads: number;
  /** Why this device, in words. */
  readonly reason: string;
}

export interface Backends {
  readonly build: BuildInfo;
  readonly cpu: CpuInfo;
  readonly cuda: CudaInfo;
}

/** What this installation can run on. Throws ERR_ADDON_NOT_FOUND when the kernels are not built. */
export function backends(): Backends {
  const addon = loadAddon();
  return { build: addon.build, cpu: addon.cpu(), cuda: addon.cuda() };
}

const NO_CUDA_KERNELS = 'this version has CPU kernels only: CUDA devices are detected, but no model runs on them yet';

/** `auto` says why it took the CPU; an explicit `cuda` never falls back. */
export function chooseDevice(option: DeviceOption = 'auto'): { kind: 'cpu'; reason: string } {
  switch (option) {
    case 'cpu': return { kind: 'cpu', reason: 'asked for' };
    case 'auto': {
      const cuda = loadAddon().cuda();
      return { kind: 'cpu', reason: cuda.available ? NO_CUDA_KERNELS : `no usable GPU: ${cuda.reason}` };
    }
    case 'cuda': {
      const cuda = loadAddon().cuda();
      throw new Ptq4vmError('ERR_DEVICE', `device 'cuda' cannot be used: ${cuda.available ? NO_CUDA_KERNELS : cuda.reason}`);
    }
    default: throw rangeError("'auto', 'cpu' or 'cuda'", 'device', option);
  }
}
