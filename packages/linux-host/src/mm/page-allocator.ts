/**
 * The page allocator: a buddy allocator over the host's RAM, as Linux mm/page_alloc.c, with the name of the owner
 * at each allocation so that what leaks can be named.
 *
 * Freed pages are the first to be given out again, so that a host that creates and destroys VMs touches the same
 * DRAM. Addresses are page frame numbers, sizes pages of 4 KiB unless said otherwise.
 */
import type { Pfn } from "@swtdx/abi";

/** Largest block of the buddy allocator is 2^MAX_PAGE_ORDER pages. */
export const MAX_PAGE_ORDER = 10;

/** A range of page frames, `end` exclusive. */
export interface PfnRange {
  readonly start: number;
  readonly end: number;
}

/** Misuse of the allocator: a bug of its caller, as the kernel's "Bad page state". */
export class BadPageError extends Error {
  override readonly name = "BadPageError";
}

interface Allocation {
  readonly pages: number;
  readonly owner: string;
}

export class PageAllocator {
  /** Heads of free blocks: frame → order. */
  readonly #free = new Map<number, number>();
  /** Candidates by order, last in first out; entries that `#free` does not confirm are stale. */
  readonly #stacks: number[][] = Array.from({ length: MAX_PAGE_ORDER + 1 }, () => []);
  readonly #allocated = new Map<number, Allocation>();
  readonly #usage = new Map<string, number>();
  #freePages = 0;
  readonly #regions: readonly PfnRange[];

  /** @param regions free RAM: ascending, disjoint */
  constructor(regions: readonly PfnRange[]) {
    this.#regions = regions;
    for (const { start, end } of [...regions].reverse()) this.#addRange(start, end);
  }

  /** Free pages now. */
  get freePageCount(): number {
    return this.#freePages;
  }

  /** All the RAM that the allocator manages. */
  get regions(): readonly PfnRange[] {
    return this.#regions;
  }

  /** Allocates 2^order contiguous pages, aligned to their size; null is ENOMEM. Contents are what they were. */
  allocPages(order: number, owner: string): Pfn | null {
    for (let from = order; from <= MAX_PAGE_ORDER; from++) {
      const head = this.#pop(from);
      if (head < 0) continue;
      // Give back the upper half until the block has the size asked for.
      for (let half = from - 1; half >= order; half--) this.#insert(head + 2 ** half, half);
      this.#record(head, 2 ** order, owner);
      return head as Pfn;
    }
    return null;
  }

  /** @throws BadPageError when the block was not allocated so */
  freePages(head: Pfn, order: number): void {
    this.#forget(head, 2 ** order);
    this.#merge(head, order);
  }

  /**
   * Makes 2^order single pages of a block, to be freed one by one, as split_page().
   * @throws BadPageError when the block was not allocated so
   */
  splitPages(head: Pfn, order: number): void {
    const { owner } = this.#check(head, 2 ** order);
    for (let page = head as number; page < head + 2 ** order; page++)
      this.#allocated.set(page, { pages: 1, owner });
  }

  /** One page; null is ENOMEM. */
  allocPage(owner: string): Pfn | null {
    return this.allocPages(0, owner);
  }
  freePage(page: Pfn): void {
    this.freePages(page, 0);
  }

  /**
   * Contiguous pages of any number at a multiple of `align` pages (a power of two), lowest first, as
   * alloc_contig_pages(); null is ENOMEM.
   */
  allocContigPages(pages: number, owner: string, align = 1): Pfn | null {
    for (const region of this.#regions) {
      let at = Math.ceil(region.start / align) * align;
      while (at + pages <= region.end) {
        const next = this.#firstUsed(at, at + pages);
        if (next < 0) {
          this.#carve(at, at + pages);
          this.#record(at, pages, owner);
          return at as Pfn;
        }
        at = Math.ceil((next + 1) / align) * align;
      }
    }
    return null;
  }

  /** @throws BadPageError when the range was not allocated so */
  freeContigRange(head: Pfn, pages: number): void {
    this.#forget(head, pages);
    this.#addRange(head, head + pages);
  }

  /** Whose allocation a page frame belongs to; null when it is free or not managed. Slow: for tests and tools. */
  ownerOf(page: Pfn): string | null {
    for (const [head, { pages, owner }] of this.#allocated)
      if (page >= head && page < head + pages) return owner;
    return null;
  }

  /** Pages in use by owner. */
  usage(): ReadonlyMap<string, number> {
    return new Map([...this.#usage].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #record(head: number, pages: number, owner: string): void {
    this.#allocated.set(head, { pages, owner });
    this.#usage.set(owner, (this.#usage.get(owner) ?? 0) + pages);
  }

  #check(head: number, pages: number): Allocation {
    const allocation = this.#allocated.get(head);
    if (allocation?.pages !== pages)
      throw new BadPageError(
        `${pages} pages at frame ${head}: ${allocation ? `${allocation.pages} were allocated there` : "not allocated"}`,
      );
    return allocation;
  }

  #forget(head: number, pages: number): void {
    const allocation = this.#check(head, pages);
    this.#allocated.delete(head);
    const left = this.#usage.get(allocation.owner)! - pages;
    if (left === 0) this.#usage.delete(allocation.owner);
    else this.#usage.set(allocation.owner, left);
  }

  #insert(head: number, order: number): void {
    this.#free.set(head, order);
    this.#freePages += 2 ** order;
    const stack = this.#stacks[order];
    stack.push(head);
    if (stack.length > 4096 && stack.length > 4 * this.#free.size)
      this.#stacks[order] = [...new Set(stack)].filter((one) => this.#free.get(one) === order);
  }

  #remove(head: number, order: number): void {
    this.#free.delete(head);
    this.#freePages -= 2 ** order;
  }

  #pop(order: number): number {
    const stack = this.#stacks[order];
    while (stack.length > 0) {
      const head = stack.pop()!;
      if (this.#free.get(head) !== order) continue;
      this.#remove(head, order);
      return head;
    }
    return -1;
  }

  #merge(start: number, startOrder: number): void {
    let head = start;
    let order = startOrder;
    while (order < MAX_PAGE_ORDER) {
      const size = 2 ** order;
      const buddy = Math.floor(head / size) % 2 === 0 ? head + size : head - size;
      if (this.#free.get(buddy) !== order) break;
      this.#remove(buddy, order);
      head = Math.min(head, buddy);
      order++;
    }
    this.#insert(head, order);
  }

  /** Frees [start, end) as the largest aligned blocks, highest first so that the lowest is given out first. */
  #addRange(start: number, end: number): void {
    let at = end;
    while (at > start) {
      let order = MAX_PAGE_ORDER;
      while (at % 2 ** order !== 0 || at - 2 ** order < start) order--;
      at -= 2 ** order;
      this.#merge(at, order);
    }
  }

  /** The free block that holds a frame: its head, or -1. */
  #blockOf(page: number): number {
    for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
      const head = Math.floor(page / 2 ** order) * 2 ** order;
      if (this.#free.get(head) === order) return head;
    }
    return -1;
  }

  #firstUsed(start: number, end: number): number {
    let at = start;
    while (at < end) {
      const head = this.#blockOf(at);
      if (head < 0) return at;
      at = head + 2 ** this.#free.get(head)!;
    }
    return -1;
  }

  /** Takes [start, end), all free, out of the free blocks. */
  #carve(start: number, end: number): void {
    let at = start;
    while (at < end) {
      const head = this.#blockOf(at);
      const order = this.#free.get(head)!;
      const blockEnd = head + 2 ** order;
      this.#remove(head, order);
      if (blockEnd > end) this.#addRange(end, blockEnd);
      if (head < start) this.#addRange(head, start);
      at = blockEnd;
    }
  }
}
