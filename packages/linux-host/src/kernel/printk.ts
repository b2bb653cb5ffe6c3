/** The kernel's log (printk, dmesg). */
export type LogLevel = "err" | "warn" | "info";

export interface LogLine {
  readonly level: LogLevel;
  readonly text: string;
}

export class KernelLog {
  readonly #lines: LogLine[] = [];
  /** @param sink gets each line as it is logged */
  constructor(private readonly sink?: (line: LogLine) => void) {}

  printk(level: LogLevel, text: string): void {
    const line = { level, text };
    this.#lines.push(line);
    this.sink?.(line);
  }
  /** All lines, oldest first. */
  get lines(): readonly LogLine[] {
    return this.#lines;
  }
}
