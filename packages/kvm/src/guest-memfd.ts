/** guest_memfd: a guest's private memory as a file that user space cannot map. Source: Linux virt/kvm/guest_memfd.c. */
import { Errno, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { PageAllocator } from "@swtdx/linux-host";
import { KernelError } from "./x86/errno.js";

export class GuestMemfd {
  readonly #pages = new Map<number, Pfn>();
  /** Called before pages [first, first + count) of the file go away. */
  onInvalidate: ((first: number, count: number) => void) | null = null;

  constructor(
    /** Bytes. */
    readonly size: number,
    private readonly allocator: PageAllocator,
    /** Makes a page that was a TD's usable for the host again. */
    private readonly scrub: (page: Pfn) => void,
  ) {}

  /** The page at `index`, allocated if need be. @throws KernelError ENOMEM */
  page(index: number): Pfn {
    let page = this.#pages.get(index);
    if (page === undefined) {
      const fresh = this.allocator.allocPage("guest_memfd");
      if (fresh === null) throw new KernelError(Errno.ENOMEM);
      page = fresh;
      this.#pages.set(index, page);
    }
    return page;
  }

  /** fallocate(FALLOC_FL_PUNCH_HOLE): offsets and lengths in bytes, whole pages. @returns 0 or -errno */
  punchHole(offset: number, length: number): number {
    if (offset % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0 || offset < 0 || offset + length > this.size)
      return -Errno.EINVAL;
    this.#free(offset / PAGE_SIZE, length / PAGE_SIZE);
    return 0;
  }

  #free(first: number, count: number): void {
    this.onInvalidate?.(first, count);
    for (let index = first; index < first + count; index++) {
      const page = this.#pages.get(index);
      if (page === undefined) continue;
      this.#pages.delete(index);
      this.scrub(page);
      this.allocator.freePage(page);
    }
  }

  /** References: the descriptor and the memory slots that use the file. */
  #references = 1;
  reference(): void {
    this.#references++;
  }
  /** The last one to go frees the pages. */
  unreferenced(): void {
    if (--this.#references > 0) return;
    for (const page of this.#pages.values()) {
      this.scrub(page);
      this.allocator.freePage(page);
    }
    this.#pages.clear();
  }
}
