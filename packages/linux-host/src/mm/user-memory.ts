/**
 * Anonymous memory of a user process: an address and host pages that appear when they are touched. Host software
 * reaches it with KeyID 0.
 */
import { type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { LogicalProcessor } from "@swtdx/cpu";
import type { PageAllocator } from "./page-allocator.js";

/** The host has no page left for a process. */
export class OutOfHostMemory extends Error {
  override readonly name = "OutOfHostMemory";
}
/** Host software touched memory that it may not, and was killed for it (SIGBUS on a machine check, SIGSEGV). */
export class HostMemoryFault extends Error {
  override readonly name = "HostMemoryFault";
}

export class UserMapping {
  readonly #pages: (Pfn | undefined)[];
  /** Indexes of pages that only the kernel may touch. */
  readonly #unmapped = new Set<number>();

  constructor(
    /** User address in bytes. */
    readonly address: number,
    /** Bytes, a multiple of 4 KiB. */
    readonly length: number,
    private readonly allocator: PageAllocator,
    private readonly lp: LogicalProcessor,
    /** Called before pages go away, so that whoever maps them lets go. */
    private readonly unmapping: (mapping: UserMapping, offset: number, length: number) => void,
  ) {
    this.#pages = new Array<Pfn | undefined>(length / PAGE_SIZE);
  }

  /** The page frame behind `offset`, made present and zero if need be. @throws OutOfHostMemory, HostMemoryFault */
  page(offset: number): Pfn {
    const index = this.#accessible(offset);
    return this.#pages[index] ?? this.#populate(index);
  }
  /** The page frame, or null when nothing was ever there. @throws HostMemoryFault */
  present(offset: number): Pfn | null {
    return this.#pages[this.#accessible(offset)] ?? null;
  }
  #accessible(offset: number): number {
    const index = Math.floor(offset / PAGE_SIZE);
    if (this.#unmapped.size > 0 && this.#unmapped.has(index))
      throw new HostMemoryFault(`PROT_NONE at 0x${(this.address + offset).toString(16)}`);
    return index;
  }

  /**
   * Takes the page at `offset` away from user space, which keeps the mapping: PROT_NONE, with the frame in place. What
   * user space does there faults until `remap`; other guests that map the page let go of it.
   * @returns the frame @throws OutOfHostMemory, HostMemoryFault when it is withdrawn already
   */
  unmap(offset: number): Pfn {
    const index = this.#accessible(offset);
    if (this.#pages[index] !== undefined) this.unmapping(this, index * PAGE_SIZE, PAGE_SIZE);
    const page = this.#pages[index] ?? this.#populate(index);
    this.#unmapped.add(index);
    return page;
  }
  /** Gives whole pages back to user space. */
  remap(offset: number, length: number): void {
    const end = (offset + length) / PAGE_SIZE;
    for (let index = offset / PAGE_SIZE; index < end; index++) this.#unmapped.delete(index);
  }

  #populate(index: number): Pfn {
    const page = this.allocator.allocPage("user");
    if (page === null) throw new OutOfHostMemory("no page for user memory");
    this.lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, PAGE_SIZE);
    this.#pages[index] = page;
    return page;
  }

  read(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    this.#each(offset, length, (pa, at, count) => {
      if (pa === null) return;
      const outcome = this.lp.memRead(pa, out.subarray(at, at + count));
      if (outcome.kind === "fault") throw new HostMemoryFault(`read: exception ${outcome.vector}`);
    });
    return out;
  }

  write(offset: number, data: Uint8Array): void {
    this.#each(
      offset,
      data.length,
      (pa, at, count) => {
        const outcome = this.lp.memWrite(pa!, data.subarray(at, at + count));
        if (outcome.kind === "fault") throw new HostMemoryFault(`write: exception ${outcome.vector}`);
      },
      true,
    );
  }

  #each(
    offset: number,
    length: number,
    visit: (pa: HpaAndKeyId | null, at: number, count: number) => void,
    populate = false,
  ): void {
    if (offset < 0 || offset + length > this.length)
      throw new RangeError(`[${offset}, ${offset + length}) of ${this.length}`);
    for (let done = 0; done < length;) {
      const inPage = (offset + done) % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - inPage, length - done);
      const page = populate ? this.page(offset + done) : this.present(offset + done);
      visit(page === null ? null : ((page * PAGE_SIZE + inPage) as HpaAndKeyId), done, count);
      done += count;
    }
  }

  /** madvise(MADV_DONTNEED): whole pages in the range go back to the host and read as zeros. */
  discard(offset: number, length: number): void {
    const first = Math.ceil(offset / PAGE_SIZE);
    const end = Math.floor((offset + length) / PAGE_SIZE);
    if (first >= end) return;
    this.unmapping(this, first * PAGE_SIZE, (end - first) * PAGE_SIZE);
    for (let index = first; index < end; index++) {
      this.#unmapped.delete(index);
      const page = this.#pages[index];
      if (page === undefined) continue;
      this.#pages[index] = undefined;
      this.allocator.freePage(page);
    }
  }
}

/** The mappings of a process. */
export class AddressSpace {
  readonly #mappings = new Map<number, UserMapping>();
  #next = 0x7f00_0000_0000;
  readonly #notifiers: ((mapping: UserMapping, offset: number, length: number) => void)[] = [];

  constructor(
    private readonly allocator: PageAllocator,
    private readonly lp: LogicalProcessor,
  ) {}

  /** MMU notifier: called before pages of a mapping go away. */
  onUnmap(listener: (mapping: UserMapping, offset: number, length: number) => void): () => void {
    this.#notifiers.push(listener);
    return () => void this.#notifiers.splice(this.#notifiers.indexOf(listener), 1);
  }

  /** @throws RangeError unless `length` is positive; it is rounded up to pages */
  mmap(length: number): UserMapping {
    if (!(length > 0)) throw new RangeError(`mmap of ${length} bytes`);
    const bytes = Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
    const mapping = new UserMapping(this.#next, bytes, this.allocator, this.lp, (one, offset, count) => {
      for (const notifier of this.#notifiers) notifier(one, offset, count);
    });
    this.#mappings.set(mapping.address, mapping);
    // An unmapped page between any two.
    this.#next += bytes + PAGE_SIZE;
    return mapping;
  }

  munmap(mapping: UserMapping): void {
    mapping.discard(0, mapping.length);
    this.#mappings.delete(mapping.address);
  }

  /** The mapping that holds a user address, or null. */
  find(address: number): UserMapping | null {
    for (const mapping of this.#mappings.values())
      if (address >= mapping.address && address < mapping.address + mapping.length) return mapping;
    return null;
  }
}
