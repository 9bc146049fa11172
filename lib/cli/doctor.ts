/** `ptq4vm doctor`: what was found on this machine, what was not, and the remedy. */
import type { Command } from 'commander';
import { loadSharp } from '../data/images.js';
import type { Backends } from '../device.js';
import { type Api, type Environment, PartialFailure, describeError } from './environment.js';
import { type OutputOptions, addOutputOptions } from './options.js';
import { megabytes, pairs, plural, writeJson, writeLine } from './output.js';

interface Problem {
  readonly what: string;
  readonly remedy: string;
  /** False for a thing that inference on the CPU can do without. */
  readonly fatal: boolean;
}

interface Findings {
  /** CPU inference works. */
  readonly ok: boolean;
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly backends?: Backends;
  /** Version of sharp, or undefined. */
  readonly sharp?: string;
  readonly libvips?: string;
  readonly problems: readonly Problem[];
}

export function addDoctor(program: Command, env: Environment, version: string): void {
  const command = program.command('doctor').description('what was found on this machine (CPU, GPU, build), what was not, and the remedy');
  addOutputOptions(command);
  command
    .addHelpText('after', `
Exit status 0 when inference on the CPU works.

Examples:
  ptq4vm doctor
  ptq4vm doctor --json`)
    .action((options: OutputOptions) => run(options, env, version));
}

async function run(options: OutputOptions, env: Environment, version: string): Promise<void> {
  const findings = await examine(env, version);
  if (options.json) writeJson(env.stdout, findings);
  else writeLine(env.stdout, show(findings));
  if (!findings.ok) throw new PartialFailure('inference on the CPU does not work');
}

async function examine(env: Environment, version: string): Promise<Findings> {
  const problems: Problem[] = [];
  const major = Number(process.versions.node.split('.')[0]);
  if (major < 20) problems.push({ what: `Node ${process.version} is too old`, remedy: 'install Node 20 or newer', fatal: true });
  let backends: Backends | undefined;
  try {
    const api = await env.api();
    backends = api.backends();
    const fault = await tryKernels(api);
    if (fault !== undefined) {
      problems.push({ what: fault, remedy: "build again with 'npm rebuild ptq4vm-native'; PTQ4VM_ISA=portable avoids the special instructions", fatal: true });
    }
  } catch (error) {
    problems.push({ what: describeError(error), remedy: "build the addon: 'npm rebuild ptq4vm-native' (a C++17 compiler and CMake, or Python, are needed)", fatal: true });
  }
  if (backends !== undefined && !backends.cuda.available) {
    const { compiled, reason } = backends.cuda;
    const remedy = compiled ? 'models run on the CPU' : "models run on the CPU; with the CUDA toolkit installed, 'npm rebuild ptq4vm-native' adds the GPU part";
    problems.push({ what: `No usable GPU. ${reason}`, remedy, fatal: false });
  }
  let sharp: Readonly<Record<string, string | undefined>> | undefined;
  try {
    sharp = (await loadSharp()).versions;
  } catch (error) {
    problems.push({ what: describeError(error), remedy: "'npm install --include=optional sharp'; .npy batches work without it", fatal: false });
  }
  return {
    ok: !problems.some((p) => p.fatal),
    version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    ...(backends ? { backends } : {}),
    ...(sharp ? { sharp: sharp.sharp, libvips: sharp.vips } : {}),
    problems,
  };
}

/** Runs one small integer GEMM and compares it with the sum in JavaScript. Returns what is wrong, if anything. */
async function tryKernels(api: Api): Promise<string | undefined> {
  const [m, n, k] = [3, 5, 70];
  const x = Uint8Array.from({ length: m * k }, (_, i) => (i * 37) % 256);
  const weight = Int8Array.from({ length: n * k }, (_, i) => ((i * 53) % 255) - 127);
  const actScale = Float32Array.of(0.5, 0.25, 2);
  const actZero = Int32Array.of(3, 128, 255);
  const weightScale = Float32Array.of(1, 0.5, 0.25, 2, 4);
  const y = await api.ops.gemmI8({ x, weight, m, n, k, actScale, actZero, weightScale });
  for (let t = 0; t < m; t++) {
    for (let o = 0; o < n; o++) {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += (x[t * k + i]! - actZero[t]!) * weight[o * k + i]!;
      // Powers of two: the product is exact.
      const wanted = actScale[t]! * weightScale[o]! * sum;
      if (y[t * n + o] !== wanted) return `the integer kernel is wrong on this CPU: ${y[t * n + o]} instead of ${wanted}`;
    }
  }
  return undefined;
}

function show({ ok, version, node, platform, backends, sharp, libvips, problems }: Findings): string {
  const sections = [pairs([['ptq4vm-native', version], ['Node', `${node} on ${platform}`], ['sharp', sharp === undefined ? 'not found' : `${sharp} (libvips ${libvips})`]])];
  if (backends !== undefined) {
    const { build, cpu, cuda } = backends;
    const asked = process.env.PTQ4VM_ISA;
    sections.push(pairs([
      ['addon', `${build.version}, ${build.compiler}, ${build.buildType}`],
      ['kernels built', `${build.isas.join(', ')}${build.cudaCompiled ? `; CUDA ${build.cudaToolkit}` : '; no CUDA'}`],
    ]));
    sections.push(pairs([
      ['CPU', cpu.model],
      ['cores', `${plural(cpu.physicalCores, 'core')}, ${plural(cpu.logicalCores, 'hardware thread')}`],
      ['features', cpu.features.join(', ') || 'none beyond the baseline'],
      ['usable', cpu.isas.join(', ')],
      ['selected', `${cpu.isa}${asked ? ` (asked for: PTQ4VM_ISA=${asked})` : ' (the strongest; PTQ4VM_ISA takes another)'}`],
    ]));
    const gpu = cuda.available
      ? cuda.devices.map((d) => [`GPU ${d.index}`, `${d.name}, compute capability ${d.computeCapability}, ${megabytes(d.memoryBytes)}; detected only, models run on the CPU in this version`] as const)
      : [['GPU', 'none usable (see below)'] as const];
    sections.push(pairs([...gpu, ['CUDA', cuda.driver || cuda.runtime ? `driver ${cuda.driver || 'none'}, runtime ${cuda.runtime || 'none'}` : undefined]]));
  }
  if (problems.length > 0) sections.push(`what is missing\n${problems.map((p) => `  ${p.what}\n    → ${p.remedy}`).join('\n')}`);
  sections.push(ok ? 'Inference on the CPU works.' : 'Inference on the CPU does not work.');
  return sections.join('\n\n');
}
