/** Progress on stderr: a bar where a person watches, otherwise a line now and then. */
import type { SingleBar } from 'cli-progress';
import type { ProgressEvent } from '../progress.js';
import type { Environment } from './environment.js';

/** Without a terminal: at most one line in this time, so that logs stay readable. */
const LINE_MILLISECONDS = 5000;

export class Progress {
  readonly #stderr: Environment['stderr'];
  readonly #quiet: boolean;
  readonly #bars: typeof import('cli-progress') | undefined;
  #bar: SingleBar | undefined;
  #stage = '';
  #lastLine = performance.now();

  private constructor(stderr: Environment['stderr'], quiet: boolean, bars: typeof import('cli-progress') | undefined) {
    this.#stderr = stderr;
    this.#quiet = quiet;
    this.#bars = bars;
  }

  static async start(env: Environment, quiet: boolean): Promise<Progress> {
    const bars = !quiet && env.stderr.isTTY === true ? (await import('cli-progress')).default : undefined;
    return new Progress(env.stderr, quiet, bars);
  }

  /** Give this to the API's `onProgress`. */
  readonly onProgress = (event: ProgressEvent): void => {
    if (this.#quiet) return;
    if (this.#bars !== undefined) this.#draw(event, this.#bars);
    else this.#print(event);
  };

  /** A line for the reader that is no result. */
  note(text: string): void {
    if (this.#quiet) return;
    this.stop();
    this.#stderr.write(`ptq4vm: ${text}\n`);
  }

  /** Takes the bar away, before anything else is printed. */
  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#stage = '';
  }

  #draw({ stage, done, total, detail = '' }: ProgressEvent, bars: typeof import('cli-progress')): void {
    if (stage !== this.#stage) {
      this.stop();
      this.#stage = stage;
      this.#bar = new bars.SingleBar({
        format: '{name} [{bar}] {value}/{total}  {eta_formatted}  {detail}',
        stream: this.#stderr as NodeJS.WritableStream,
        barsize: 24, fps: 8, hideCursor: false, clearOnComplete: true, stopOnComplete: true, gracefulExit: false, linewrap: false,
      }, bars.Presets.legacy);
      this.#bar.start(total, done, { name: stage.padEnd(9), detail });
      return;
    }
    this.#bar?.setTotal(total);
    this.#bar?.update(done, { detail });
  }

  #print({ stage, done, total, detail }: ProgressEvent): void {
    const now = performance.now();
    if (now - this.#lastLine < LINE_MILLISECONDS) return;
    this.#lastLine = now;
    this.#stderr.write(`${stage} ${done}/${total}${detail ? `  ${detail}` : ''}\n`);
  }
}
