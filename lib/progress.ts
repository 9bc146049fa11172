/** Progress events, the same shape for every long-running call. */

export interface ProgressEvent {
  /** What is being done: 'read', 'pack', 'calibrate', 'evaluate', … */
  readonly stage: string;
  /** Finished and total steps of this stage. */
  readonly done: number;
  readonly total: number;
  /** One detail worth a line: a block name, a file, a running accuracy. */
  readonly detail?: string;
}

export type OnProgress = (event: ProgressEvent) => void;

/** Options of every long-running call. */
export interface JobOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: OnProgress;
}
