/**
 * The arena: one WebAssembly memory for all that the engines touch directly: register files and tables first,
 * then the 4 KiB frames that hold DRAM's plaintext. A frame's byte offset is an address for WebAssembly code.
 */
import { PAGE_SIZE } from "@swtdx/abi";

const WASM_PAGE = 0x1_0000;
const DEFAULT_RESIDENT = 2 ** 30;
const MAX_RESIDENT = 2 ** 32;

/** More memory was touched than `residentBytes` allows. */
export class ArenaExhausted extends Error {
  override readonly name = "ArenaExhausted";
}

export interface ArenaOptions {
  /** Bytes that may be resident: frames, register files, tables. At most 4 GiB; default 1 GiB. Committed when touched. */
  residentBytes?: number;
}

export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly view: DataView;
  readonly #size: number;
  #next = PAGE_SIZE;
  #free: number[] = [];
  /** Frames in use. */
  frames = 0;

  /** @throws RangeError for a size that is not in (0, 4 GiB] */
  constructor({ residentBytes = DEFAULT_RESIDENT }: ArenaOptions = {}) {
    if (!(residentBytes > 0 && residentBytes <= MAX_RESIDENT))
      throw new RangeError(`residentBytes ${residentBytes}: must be in (0, ${MAX_RESIDENT}]`);
    const pages = Math.ceil(residentBytes / WASM_PAGE);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.#size = pages * WASM_PAGE;
    this.u8 = new Uint8Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
  }

  /**
   * Sets `bytes` aside, aligned to `align` (a power of two), zeroed. Returns the byte offset.
   * @throws ArenaExhausted
   */
  reserve(bytes: number, align: number): number {
    const at = Math.ceil(this.#next / align) * align;
    if (at + bytes > this.#size)
      throw new ArenaExhausted(`${bytes} bytes at ${at}, the arena has ${this.#size}`);
    this.#next = at + bytes;
    return at;
  }

  /** A zeroed frame of 4 KiB: its byte offset. @throws ArenaExhausted */
  allocFrame(): number {
    const recycled = this.#free.pop();
    const offset = recycled ?? this.reserve(PAGE_SIZE, PAGE_SIZE);
    if (recycled !== undefined) this.u8.fill(0, offset, offset + PAGE_SIZE);
    this.frames++;
    return offset;
  }

  freeFrame(offset: number): void {
    this.#free.push(offset);
    this.frames--;
  }
}
