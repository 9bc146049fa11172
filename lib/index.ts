/** Public API of ptq4vm-native. */
export type { Batch, BatchRequest, Dataset } from './data/dataset.js';
export { imageFolder } from './data/folder.js';
export type { ImageSource } from './data/images.js';
export { npyBatch } from './data/npy-batch.js';
export type { Preprocess } from './data/preprocess.js';
export { type Backends, backends, type Device, type DeviceOption } from './device.js';
export { Ptq4vmError, type Ptq4vmErrorCode } from './errors.js';
export type { EvaluateOptions, EvaluateReport, Prediction } from './evaluate.js';
export { type InspectReport, inspectFile } from './inspect.js';
export { type LoadOptions, load, Model, type Precision, quantize, type QuantizeOptions } from './model.js';
export * as ops from './ops.js';
export type { JobOptions, OnProgress, ProgressEvent } from './progress.js';
export { METHODS, type Method, type Recipe } from './ptq/recipe.js';
export type { Tensor } from './tensor.js';
