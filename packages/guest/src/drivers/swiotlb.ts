/**
 * The bounce buffer: a pool of shared memory through which all data to and from devices (and the VMM) goes.
 * Linux: kernel/dma/swiotlb.c; in a TD it is forced.
 */
import { guest, type Guest, PAGE_SIZE } from "@swtdx/abi";
import { tdxPanic } from "../arch/tdcall.js";
import type { MemoryManager } from "../mm/memory.js";
import type { PageTables } from "../mm/page-tables.js";

export class Swiotlb {
  readonly #used: boolean[];

  private constructor(
    readonly base: number,
    readonly pages: number,
  ) {
    this.#used = new Array<boolean>(pages).fill(false);
  }

  /** Converts `pages` pages to shared. */
  static *create(memory: MemoryManager, tables: PageTables, pages: number): Guest<Swiotlb> {
    const base = yield* memory.allocPages(pages);
    yield* tables.setMemoryDecrypted(base, pages);
    return new Swiotlb(base, pages);
  }

  /** Address of `count` contiguous shared pages, zeroed. */
  *map(count: number): Guest<number> {
    for (let start = 0; start + count <= this.pages; start++) {
      if (this.#used.slice(start, start + count).includes(true)) continue;
      this.#used.fill(true, start, start + count);
      const address = this.base + start * PAGE_SIZE;
      yield* guest.storeBytes(BigInt(address), new Uint8Array(count * PAGE_SIZE));
      return address;
    }
    return yield* tdxPanic("swiotlb buffer is full");
  }

  unmap(address: number, count: number): void {
    const start = (address - this.base) / PAGE_SIZE;
    this.#used.fill(false, start, start + count);
  }
}
