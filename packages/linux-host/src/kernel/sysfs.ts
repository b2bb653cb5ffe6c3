/** sysfs as far as TDX shows in it: files by path, read when asked for. */

export class Sysfs {
  readonly #files = new Map<string, () => string>();

  /** A file whose contents `show` makes. */
  create(path: string, show: () => string): void {
    this.#files.set(path, show);
  }
  /** Contents with a newline, as files there have; null: no such file. */
  read(path: string): string | null {
    const show = this.#files.get(path);
    return show ? `${show()}\n` : null;
  }
  /** Paths, sorted. */
  list(): string[] {
    return [...this.#files.keys()].sort();
  }
}
