// Source lists for binding.gyp, which cannot glob: `<!@(node scripts/sources.js kernels)`. CMakeLists.txt globs the same folders.
'use strict';
const fs = require('node:fs');
const path = require('node:path');

const root = path.resolve(__dirname, '..');

function list(folder, extension) {
  return fs
    .readdirSync(path.join(root, 'native', folder))
    .filter((name) => name.endsWith(extension))
    .sort()
    .map((name) => `native/${folder}/${name}`);
}

const sets = {
  kernels: () => list('cpu', '.cpp').filter((file) => !file.endsWith('/dispatch.cpp')),
  reference: () => [...list('cpu/reference', '.cpp'), 'native/cpu/table.cpp'],
  platform: () => [...list('platform', '.cpp'), 'native/cpu/dispatch.cpp'],
  engine: () => list('engine', '.cpp'),
  bindings: () => list('bindings', '.cpp'),
  cuda: () => list('cuda', '.cu'),
};

const name = process.argv[2];
if (!sets[name]) throw new Error(`Expected one of ${Object.keys(sets).join(', ')} but received '${name}'`);
process.stdout.write(sets[name]().join('\n'));
