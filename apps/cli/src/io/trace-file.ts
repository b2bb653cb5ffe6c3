/** Writes a trace as JSON lines, in blocks. */
import { closeSync, openSync, writeSync } from "node:fs";
import { UsageError } from "../errors.js";

const BLOCK = 1 << 20;

export class TraceFile {
  readonly #fd: number;
  #lines: string[] = [];
  #size = 0;

  /** @throws UsageError */
  constructor(path: string) {
    try {
      this.#fd = openSync(path, "w");
    } catch (error) {
      throw new UsageError(`--trace: ${path}: cannot be written (${(error as Error).message})`);
    }
  }

  write(line: string): void {
    this.#lines.push(line);
    this.#size += line.length;
    if (this.#size > BLOCK) this.#flush();
  }

  #flush(): void {
    if (this.#lines.length > 0) writeSync(this.#fd, `${this.#lines.join("\n")}\n`);
    this.#lines = [];
    this.#size = 0;
  }

  close(): void {
    this.#flush();
    closeSync(this.#fd);
  }
}
