/** What an unusable file looks like, in words for an error message: half of all "broken checkpoints" are error pages or LFS pointers. */

const latin1 = (bytes: Uint8Array, begin: number, end: number): string => Buffer.from(bytes.subarray(begin, end)).toString('latin1');

/** [offset, signature as latin1, what it is]; first match wins. */
const SIGNATURES: readonly (readonly [number, string, string])[] = [
  [0, 'version https://git-lfs', "a Git LFS pointer, not the file itself (run 'git lfs pull' where it came from)"],
  [0, '\x1f\x8b', 'gzip data (decompress it first)'],
  [0, 'BZh', 'bzip2 data (decompress it first)'],
  [0, '\xfd7zXZ\0', 'xz data (decompress it first)'],
  [0, '\x28\xb5\x2f\xfd', 'zstd data (decompress it first)'],
  [0, '7z\xbc\xaf\x27\x1c', 'a 7z archive (unpack it first)'],
  [0, 'Rar!', 'a RAR archive (unpack it first)'],
  [257, 'ustar', 'a tar archive (unpack it first)'],
  [0, '\x93NUMPY', 'a NumPy .npy array, which holds data, not a model'],
  [0, '\x89HDF\r\n', 'an HDF5 file (Keras or MATLAB)'],
  [0, 'GGUF', 'a GGUF file'],
  [4, 'TFL3', 'a TensorFlow Lite model'],
  [0, '\x89PNG', 'a PNG picture'],
  [0, '\xff\xd8\xff', 'a JPEG picture'],
  [0, 'GIF8', 'a GIF picture'],
  [8, 'WEBP', 'a WebP picture'],
  [0, '%PDF', 'a PDF document'],
  [0, '\x7fELF', 'an ELF program or library'],
  [0, 'MZ', 'a Windows program or library'],
  [0, '#!', 'a script'],
  [0, 'PK', 'a zip archive'],
];

/** `head`: the first bytes (512 are enough); `size`: of the whole file. */
export function describeContent(head: Uint8Array, size: number): string {
  if (size === 0) return 'an empty file';
  for (const [offset, signature, what] of SIGNATURES) {
    if (latin1(head, offset, offset + signature.length) === signature) return what;
  }
  if (head.every((b) => b === 0)) return 'a file of zero bytes (an unfinished download?)';
  const text = asText(head);
  if (text !== null) {
    const start = text.trimStart().toLowerCase();
    if (/^<(!doctype html|html|head|body|!--)/.test(start)) return 'an HTML page (a failed download?)';
    if (start.startsWith('<?xml') || start.startsWith('<')) return 'an XML document (a failed download?)';
    if (start.startsWith('{') || start.startsWith('[')) return 'JSON text';
    return 'plain text';
  }
  if (head[0] === 0x80 && head[1]! >= 2 && head[1]! <= 5) return 'a Python pickle that torch.save did not write';
  if (size < 16) return `${size} bytes of unknown content`;
  return `binary data of unknown kind (first bytes ${Buffer.from(head.subarray(0, 8)).toString('hex')})`;
}

/** The head as a string when it is printable text, else null. A character cut off at the end of `head` is forgiven. */
function asText(head: Uint8Array): string | null {
  const text = Buffer.from(head).toString('utf8').replace(/^\ufeff/, '');
  const body = text.length > 4 ? text.slice(0, -3) : text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what tells binary from text
  return /[\x00-\x08\x0e-\x1f\x7f\ufffd]/.test(body) ? null : text;
}

/** True for a tar whose members are those of torch.save before PyTorch 0.1.10 (2017). */
export function isTorchTar(head: Uint8Array): boolean {
  const name = latin1(head, 0, 100).split('\0')[0]!.replace(/^\.\//, '').replace(/\/$/, '');
  return latin1(head, 257, 262) === 'ustar' && ['sys_info', 'pickle', 'storages', 'tensors'].includes(name);
}
