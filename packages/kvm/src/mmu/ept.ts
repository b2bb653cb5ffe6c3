/**
 * The shared EPT of a TD: an EPT in host memory for GPAs with the shared bit, which the processor walks with KeyID 0.
 * Entries that are not present suppress #VE, but for emulated MMIO, where the guest gets a #VE at once.
 * Source: Linux arch/x86/kvm/mmu/spte.c (shadow_mmio_value 0 for TDX, SHADOW_NONPRESENT_VALUE), Intel SDM vol. 3C, 30.3.
 */
import { Errno, type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { LogicalProcessor, PageAllocator } from "@swtdx/linux-host";
import { KernelError } from "../x86/errno.js";

const RWX = 7n;
/** Write-back, ignore PAT. */
const MEMORY_TYPE = (6n << 3n) | (1n << 6n);
const SUPPRESS_VE = 1n << 63n;
const ADDRESS = 0x000f_ffff_ffff_f000n;
const MMIO = 0n;

export class SharedEpt {
  readonly root: Pfn;
  readonly #pages: Pfn[] = [];
  /** Address of each page table that exists, by frame / 512. */
  readonly #tables = new Map<number, number>();

  constructor(
    private readonly lp: LogicalProcessor,
    private readonly allocator: PageAllocator,
    /** 4 or 5. */
    private readonly levels: number,
  ) {
    this.root = this.#table();
  }

  #table(): Pfn {
    const page = this.allocator.allocPage("shared EPT");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    this.#pages.push(page);
    const bytes = new Uint8Array(PAGE_SIZE);
    new BigUint64Array(bytes.buffer).fill(SUPPRESS_VE);
    this.lp.memWrite((page * PAGE_SIZE) as HpaAndKeyId, bytes);
    return page;
  }

  #read(at: number): bigint {
    const outcome = this.lp.memReadU64(at as HpaAndKeyId);
    return outcome.kind === "ok" ? outcome.value : 0n;
  }

  /** Address of the page table for a frame, made if need be. @param gfn with the shared bit */
  #tableOf(gfn: number): number {
    const key = Math.floor(gfn / 512);
    const known = this.#tables.get(key);
    if (known !== undefined) return known;
    let table = this.root * PAGE_SIZE;
    for (let level = this.levels - 1; level > 0; level--) {
      const at = table + (Math.floor(gfn / 512 ** level) % 512) * 8;
      let entry = this.#read(at);
      if ((entry & RWX) === 0n) {
        entry = BigInt(this.#table() * PAGE_SIZE) | RWX;
        this.lp.memWriteU64(at as HpaAndKeyId, entry);
      }
      table = Number(entry & ADDRESS);
    }
    this.#tables.set(key, table);
    return table;
  }

  /** Maps a frame to a page of user memory. */
  map(gfn: number, page: Pfn, writable: boolean): void {
    const rights = writable ? RWX : RWX & ~2n;
    this.#set(gfn, BigInt(page * PAGE_SIZE) | rights | MEMORY_TYPE | SUPPRESS_VE);
  }
  /** Marks a frame as emulated MMIO: access gives a #VE in the guest. */
  mapMmio(gfn: number): void {
    this.#set(gfn, MMIO);
  }
  #set(gfn: number, entry: bigint): void {
    this.lp.memWriteU64((this.#tableOf(gfn) + (gfn % 512) * 8) as HpaAndKeyId, entry);
  }

  /** Unmaps [start, end). @returns whether anything was mapped: translations have to be flushed then */
  zap(start: number, end: number): boolean {
    let zapped = false;
    for (let gfn = start; gfn < end;) {
      const table = this.#tables.get(Math.floor(gfn / 512));
      const stop = Math.min(end, (Math.floor(gfn / 512) + 1) * 512);
      if (table === undefined) {
        gfn = stop;
        continue;
      }
      for (; gfn < stop; gfn++) {
        const at = (table + (gfn % 512) * 8) as HpaAndKeyId;
        if (this.#read(at) === SUPPRESS_VE) continue;
        this.lp.memWriteU64(at, SUPPRESS_VE);
        zapped = true;
      }
    }
    return zapped;
  }

  free(): void {
    for (const page of this.#pages) this.allocator.freePage(page);
    this.#pages.length = 0;
    this.#tables.clear();
  }
}
