/** A line for each stage that is done, and one that says what is under way. Nothing without a terminal. */
import { colors, isTerminal } from "./terminal.js";

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

export class Progress {
  readonly #on: boolean;
  readonly #colors = colors("stderr");
  #current: { text: string; started: number; instructions: number } | null = null;
  #frame = 0;
  #instructions = 0;

  constructor(quiet: boolean) {
    this.#on = !quiet && isTerminal("stderr");
  }

  /** The stage before is done, this one begins. */
  stage(text: string): void {
    if (!this.#on) return;
    this.#finish();
    this.#current = { text, started: performance.now(), instructions: this.#instructions };
    this.#draw();
  }

  /** Something else is about to be printed: takes the unfinished line away. */
  clear(): void {
    if (this.#on && this.#current) process.stderr.write("\r\x1b[K");
  }

  /** The current stage did something; draws it again, with what guests have executed so far. */
  tick(instructions = 0): void {
    this.#instructions = instructions;
    if (this.#on && this.#current) this.#draw();
  }

  /** The last stage is done. */
  end(): void {
    if (this.#on) this.#finish();
  }

  #draw(): void {
    const frame = FRAMES[this.#frame++ % FRAMES.length];
    const { text, started, instructions } = this.#current!;
    const executed = this.#instructions - instructions;
    const seconds = (performance.now() - started) / 1000;
    const detail =
      executed === 0
        ? ""
        : `  ${(executed / 1e6).toFixed(1)} million instructions, ${(executed / 1e6 / seconds).toFixed(1)} MIPS`;
    process.stderr.write(`\r\x1b[K${this.#colors.cyan(frame)} ${text}${this.#colors.dim(detail)}`);
  }

  #finish(): void {
    if (!this.#current) return;
    const { text, started } = this.#current;
    const time = this.#colors.dim(`${((performance.now() - started) / 1000).toFixed(2)} s`);
    process.stderr.write(`\r\x1b[K${this.#colors.green("✓")} ${text} ${time}\n`);
    this.#current = null;
  }
}
