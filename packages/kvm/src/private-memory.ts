/**
 * What is behind the private side of a memory slot. Two proposals: a file that user space cannot map (guest-memfd.ts,
 * which Linux took), and anonymous memory that is unmapped from user space while it is the guest's ("unmapping guest
 * memory", PROT_NONE), here.
 */
import { PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { UserMapping } from "@swtdx/linux-host";

/** Pages by index: 4 KiB units of a file or mapping. */
export interface PrivateMemory {
  /** The page at `index`, allocated if need be. What the guest then does not get is to be given to `converted`. */
  page(index: number): Pfn;
  /** Whether it is part of 2 MiB side by side, aligned. */
  isHuge(index: number): boolean;
  /** Pages [first, first + count) are no longer private; the guest does not map them any more. */
  converted(first: number, count: number): void;
  /** A slot lets go. */
  unreferenced(): void;
}

/** User memory as private memory: pages are unmapped from user space when the guest gets them. */
export class UnmappedMemory implements PrivateMemory {
  /** What this slot took from user space: index → frame. */
  readonly #taken = new Map<number, Pfn>();

  constructor(private readonly mapping: UserMapping) {}

  /** @throws OutOfHostMemory, HostMemoryFault for a page that is another slot's */
  page(index: number): Pfn {
    let page = this.#taken.get(index);
    if (page === undefined) this.#taken.set(index, (page = this.mapping.unmap(index * PAGE_SIZE)));
    return page;
  }
  isHuge(): boolean {
    return false;
  }
  converted(first: number, count: number): void {
    if (count > this.#taken.size) {
      for (const index of this.#taken.keys())
        if (index >= first && index < first + count) this.#giveBack(index);
    } else for (let index = first; index < first + count; index++) this.#giveBack(index);
  }
  #giveBack(index: number): void {
    if (this.#taken.delete(index)) this.mapping.remap(index * PAGE_SIZE, PAGE_SIZE);
  }
  unreferenced(): void {
    this.converted(0, Infinity);
  }
}
