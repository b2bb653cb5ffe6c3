/** A line for each stage that is done, and one that says what is under way. Nothing without a terminal. */
import { colors, isTerminal } from "./terminal.js";

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

export class Progress {
  readonly #on: boolean;
  readonly #colors = colors("stderr");
  #current: { text: string; started: number } | null = null;
  #frame = 0;

  constructor(quiet: boolean) {
    this.#on = !quiet && isTerminal("stderr");
  }

  /** The stage before is done, this one begins. */
  stage(text: string): void {
    if (!this.#on) return;
    this.#finish();
    this.#current = { text, started: performance.now() };
    this.#draw();
  }

  /** Something else is about to be printed: takes the unfinished line away. */
  clear(): void {
    if (this.#on && this.#current) process.stderr.write("\r\x1b[K");
  }

  /** The current stage did something; draws it again. */
  tick(): void {
    if (this.#on && this.#current) this.#draw();
  }

  /** The last stage is done. */
  end(): void {
    if (this.#on) this.#finish();
  }

  #draw(): void {
    const frame = FRAMES[this.#frame++ % FRAMES.length];
    process.stderr.write(`\r\x1b[K${this.#colors.cyan(frame)} ${this.#current!.text}`);
  }

  #finish(): void {
    if (!this.#current) return;
    const { text, started } = this.#current;
    const time = this.#colors.dim(`${((performance.now() - started) / 1000).toFixed(2)} s`);
    process.stderr.write(`\r\x1b[K${this.#colors.green("✓")} ${text} ${time}\n`);
    this.#current = null;
  }
}
