/** Opens checkpoint files: recognizes the format by content and hands over to its reader. */
import { Ptq4vmError } from '../errors.js';
import type { CheckpointFile } from './checkpoint-file.js';
import { type ByteSource, formatError, openSource } from './files.js';
import { isLegacyHead, openPthLegacy } from './pth-legacy.js';
import { openSafetensorsSource } from './safetensors.js';
import { describeContent, isTorchTar } from './sniff.js';

export type { CheckpointFile } from './checkpoint-file.js';

/**
 * Opens a checkpoint: PyTorch zip or legacy (`.pth`, `.pt`, `.ckpt`, …) or safetensors, told apart by content, not by name.
 * Reads only descriptions; tensors are read when asked for.
 *
 * Throws ERR_FILE_NOT_FOUND, ERR_FILE_FORMAT (with what the file looks like, when it is something else) or
 * ERR_UNSUPPORTED (tensors of a kind this package does not read).
 */
export async function openCheckpoint(path: string): Promise<CheckpointFile> {
  return openCheckpointSource(await openSource(path));
}

/** As `openCheckpoint`, over any source; closes it on failure. */
export async function openCheckpointSource(source: ByteSource): Promise<CheckpointFile> {
  try {
    return await open(source);
  } catch (error) {
    await source.close();
    throw error;
  }
}

async function open(source: ByteSource): Promise<CheckpointFile> {
  const head = await source.read(0, Math.min(512, source.size), 'the beginning of the file');
  if (startsWith(head, 0x50, 0x4b, 0x03, 0x04) || startsWith(head, 0x50, 0x4b, 0x05, 0x06)) {
    const { openPthZip } = await import('./pth.js'); // brings the zip library along: only where there is a zip
    return openPthZip(source);
  }
  if (isLegacyHead(head)) return openPthLegacy(source);
  if (isTorchTar(head)) {
    throw new Ptq4vmError(
      'ERR_UNSUPPORTED',
      `${source.path}: this is the tar format of PyTorch before 0.1.10 (2017); load it in PyTorch once and save it again with torch.save`,
    );
  }
  // The length of a safetensors header has zero bytes, which no text has; its JSON begins at byte 8.
  if (head.length > 8 && head[8] === 0x7b && head.subarray(0, 8).includes(0)) return openSafetensorsSource(source);
  throw formatError(
    source.path,
    `not a checkpoint that can be read (PyTorch .pth or .safetensors): it looks like ${describeContent(head, source.size)}`,
  );
}

function startsWith(head: Uint8Array, ...bytes: number[]): boolean {
  return bytes.every((b, i) => head[i] === b);
}
