/**
 * MRTD while a TD is built: SHA-384 over the blocks of TDH.MEM.PAGE.ADD and TDH.MR.EXTEND. Small pieces are gathered
 * before they are hashed. The hash context of a TD is the module's; it ends with TDH.MR.FINALIZE or with the TD.
 */
import { createSha384, type IncrementalHash } from "@swtdx/crypto";

const BUFFER = 32 * 1024;
/** One record: name, GPA, zeros; SHA-384's block. */
const BLOCK = 128;
const GPA_OFFSET = 16;

export class MrtdContext {
  readonly #hash: IncrementalHash = createSha384();
  readonly #buffer = new Uint8Array(BUFFER);
  readonly #view = new DataView(this.#buffer.buffer);
  #used = 0;
  /** Views of the buffer that were given out, by where they begin. */
  readonly #views: (Uint8Array | undefined)[] = [];

  /** The buffer's next `length` bytes (a multiple of 128), which the caller fills before the next call. */
  next(length: number): Uint8Array {
    const start = this.#take(length);
    const view = this.#views[start / BLOCK];
    if (view?.length === length) return view;
    return (this.#views[start / BLOCK] = this.#buffer.subarray(start, this.#used));
  }

  /** The block of an interface function: its name in ASCII, and the GPA. */
  block(name: Uint8Array, gpa: number): void {
    const at = this.#take(BLOCK);
    const buffer = this.#buffer;
    buffer.fill(0, at, at + BLOCK);
    for (let i = 0; i < name.length; i++) buffer[at + i] = name[i];
    this.#view.setUint32(at + GPA_OFFSET, gpa >>> 0, true);
    this.#view.setUint32(at + GPA_OFFSET + 4, Math.floor(gpa / 2 ** 32), true);
  }

  #take(length: number): number {
    if (this.#used + length > BUFFER) this.#flush();
    const start = this.#used;
    this.#used += length;
    return start;
  }

  #flush(): void {
    this.#hash.update(this.#buffer.subarray(0, this.#used));
    this.#used = 0;
  }

  /** The measurement, 48 bytes. */
  digest(): Uint8Array {
    this.#flush();
    return this.#hash.digest();
  }
}
