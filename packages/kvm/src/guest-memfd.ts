/**
 * guest_memfd: a guest's private memory as a file that user space cannot map. It consists of folios: 2 MiB where the
 * file has an aligned 2 MiB that is empty and the host a block, else single pages.
 * Source: Linux virt/kvm/guest_memfd.c; folios as in the series "KVM: guest_memfd: Allow hugepages".
 */
import { Errno, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { PageAllocator } from "@swtdx/linux-host";
import type { PrivateMemory } from "./private-memory.js";
import { KernelError } from "./x86/errno.js";

/** Order of a 2 MiB folio, and its pages. */
const HUGE_ORDER = 9;
const HUGE_PAGES = 2 ** HUGE_ORDER;
const OWNER = "guest_memfd";

export class GuestMemfd implements PrivateMemory {
  /** Single pages by index. */
  readonly #pages = new Map<number, Pfn>();
  /** How many there are in each 2 MiB, by index / 512. */
  readonly #singles = new Map<number, number>();
  /** First pages of 2 MiB folios by index / 512. */
  readonly #folios = new Map<number, Pfn>();
  /** Called before pages [first, first + count) of the file go away. */
  onInvalidate: ((first: number, count: number) => void) | null = null;

  constructor(
    /** Bytes. */
    readonly size: number,
    private readonly allocator: PageAllocator,
    /** Makes pages that were a TD's usable for the host again. */
    private readonly scrub: (page: Pfn, count: number) => void,
    /** Folios of 2 MiB may be used. */
    private readonly huge: boolean,
  ) {}

  /** The page at `index`, allocated if need be. @throws KernelError ENOMEM */
  page(index: number): Pfn {
    const unit = Math.floor(index / HUGE_PAGES);
    const folio = this.#folios.get(unit) ?? this.#allocFolio(unit);
    if (folio !== undefined) return (folio + (index % HUGE_PAGES)) as Pfn;
    const present = this.#pages.get(index);
    if (present !== undefined) return present;
    const page = this.allocator.allocPage(OWNER);
    if (page === null) throw new KernelError(Errno.ENOMEM);
    this.#put(index, page);
    return page;
  }

  /** Whether the page at `index` is part of a 2 MiB folio. */
  isHuge(index: number): boolean {
    return this.#folios.has(Math.floor(index / HUGE_PAGES));
  }

  #allocFolio(unit: number): Pfn | undefined {
    if (!this.huge || this.#singles.has(unit) || (unit + 1) * HUGE_PAGES * PAGE_SIZE > this.size)
      return undefined;
    const folio = this.allocator.allocPages(HUGE_ORDER, OWNER);
    if (folio === null) return undefined;
    this.#folios.set(unit, folio);
    return folio;
  }

  #put(index: number, page: Pfn): void {
    const unit = Math.floor(index / HUGE_PAGES);
    this.#pages.set(index, page);
    this.#singles.set(unit, (this.#singles.get(unit) ?? 0) + 1);
  }

  /** fallocate(FALLOC_FL_PUNCH_HOLE): offsets and lengths in bytes, whole pages. @returns 0 or -errno */
  punchHole(offset: number, length: number): number {
    if (offset % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0 || offset < 0 || offset + length > this.size)
      return -Errno.EINVAL;
    const first = offset / PAGE_SIZE;
    const count = length / PAGE_SIZE;
    this.onInvalidate?.(first, count);
    this.#truncate(first, first + count);
    return 0;
  }

  /** Frees the pages of [first, end); folios that are only partly in it are split. */
  #truncate(first: number, end: number): void {
    for (let index = first; index < end;) {
      const unit = Math.floor(index / HUGE_PAGES);
      const stop = Math.min(end, (unit + 1) * HUGE_PAGES);
      const folio = this.#folios.get(unit);
      if (folio !== undefined && stop - index === HUGE_PAGES) {
        this.#folios.delete(unit);
        this.scrub(folio, HUGE_PAGES);
        this.allocator.freePages(folio, HUGE_ORDER);
      } else {
        if (folio !== undefined) this.#splitFolio(unit, folio);
        if (this.#singles.has(unit)) for (let at = index; at < stop; at++) this.#freeSingle(at, unit);
      }
      index = stop;
    }
  }

  #splitFolio(unit: number, folio: Pfn): void {
    this.#folios.delete(unit);
    this.allocator.splitPages(folio, HUGE_ORDER);
    for (let i = 0; i < HUGE_PAGES; i++) this.#put(unit * HUGE_PAGES + i, (folio + i) as Pfn);
  }

  #freeSingle(index: number, unit: number): void {
    const page = this.#pages.get(index);
    if (page === undefined) return;
    this.#pages.delete(index);
    const left = this.#singles.get(unit)! - 1;
    if (left === 0) this.#singles.delete(unit);
    else this.#singles.set(unit, left);
    this.scrub(page, 1);
    this.allocator.freePage(page);
  }

  /** Private pages are kept until user space punches a hole. */
  converted(): void {}

  /** References: the descriptor and the memory slots that use the file. */
  #references = 1;
  reference(): void {
    this.#references++;
  }
  /** The last one to go frees the pages. */
  unreferenced(): void {
    if (--this.#references > 0) return;
    this.#truncate(0, this.size / PAGE_SIZE);
  }
}
