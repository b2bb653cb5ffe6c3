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

  /** The buffer's next `length` bytes, which the caller fills before the next call. */
  next(length: number): Uint8Array {
    if (this.#used + length > BUFFER) this.#flush();
    const start = this.#used;
    this.#used += length;
    return this.#buffer.subarray(start, this.#used);
  }

  /** The block of an interface function: its name in ASCII, and the GPA. */
  block(name: Uint8Array, gpa: number): void {
    const block = this.next(BLOCK);
    block.fill(0);
    block.set(name);
    const at = this.#used - BLOCK + GPA_OFFSET;
    this.#view.setUint32(at, gpa >>> 0, true);
    this.#view.setUint32(at + 4, Math.floor(gpa / 2 ** 32), true);
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
