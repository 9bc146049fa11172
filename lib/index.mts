/** What `import … from 'ptq4vm-native'` gets: the names of index.ts, from the same module instance that `require` gets. */
export * from './index.js';
