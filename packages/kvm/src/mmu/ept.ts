/**
 * An EPT in host memory, 4 KiB pages: of an ordinary VM, or a TD's shared EPT (GPAs with the shared bit), which the
 * processor walks with KeyID 0. They differ in the entries that map nothing.
 * Source: Linux arch/x86/kvm/mmu/spte.c (shadow_mmio_value, SHADOW_NONPRESENT_VALUE), tdp_mmu.c; Intel SDM vol. 3C, 30.3.
 */
import { Errno, type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { LogicalProcessor, PageAllocator } from "@swtdx/linux-host";
import { KernelError } from "../x86/errno.js";

const RWX = 7n;
/** Write-back, ignore PAT. */
const MEMORY_TYPE = (6n << 3n) | (1n << 6n);
const SUPPRESS_VE = 1n << 63n;
const ADDRESS = 0x000f_ffff_ffff_f000n;
/** Write and execute without read: misconfigured. */
const MISCONFIGURED = 6n;

/** Entries that map nothing. */
export interface EptFlavour {
  readonly nonPresent: bigint;
  /** Of emulated MMIO. */
  readonly mmio: bigint;
}
/** A TD's shared EPT: MMIO is a #VE in the guest, all else that is missing an exit. */
export const SHARED_EPT: EptFlavour = { nonPresent: SUPPRESS_VE, mmio: 0n };
/** An ordinary VM's: MMIO is an EPT misconfiguration (VMX_EPT_MISCONFIG_WX_VALUE), what is missing a violation. */
export const VMX_EPT: EptFlavour = { nonPresent: SUPPRESS_VE, mmio: MISCONFIGURED };

export class Ept {
  readonly root: Pfn;
  readonly #pages: Pfn[] = [];
  /** Address of each page table that exists, by frame / 512. */
  readonly #tables = new Map<number, number>();

  constructor(
    private readonly lp: LogicalProcessor,
    private readonly allocator: PageAllocator,
    /** 4 or 5. */
    private readonly levels: number,
    private readonly flavour: EptFlavour,
  ) {
    this.root = this.#table();
  }

  #table(): Pfn {
    const page = this.allocator.allocPage("EPT");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    this.#pages.push(page);
    const bytes = new Uint8Array(PAGE_SIZE);
    new BigUint64Array(bytes.buffer).fill(this.flavour.nonPresent);
    this.lp.memWrite((page * PAGE_SIZE) as HpaAndKeyId, bytes);
    return page;
  }

  #read(at: number): bigint {
    const outcome = this.lp.memReadU64(at as HpaAndKeyId);
    return outcome.kind === "ok" ? outcome.value : 0n;
  }

  /** EPTP: write-back tables without accessed and dirty flags. */
  get pointer(): bigint {
    return BigInt(this.root * PAGE_SIZE) | 6n | BigInt((this.levels - 1) << 3);
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
  /** Marks a frame as emulated MMIO. */
  mapMmio(gfn: number): void {
    this.#set(gfn, this.flavour.mmio);
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
        if (this.#read(at) === this.flavour.nonPresent) continue;
        this.lp.memWriteU64(at, this.flavour.nonPresent);
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
