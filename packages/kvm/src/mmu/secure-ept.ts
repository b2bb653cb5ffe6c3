/**
 * The TDP MMU's private side: a mirror of the TD's Secure EPT, kept by SEAMCALLs. 4 KiB pages, as upstream KVM maps.
 * Source: Linux arch/x86/kvm/mmu/tdp_mmu.c, arch/x86/kvm/vmx/tdx.c (tdx_sept_*).
 */
import { Errno, type Hpa, type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { LogicalProcessor, PageAllocator } from "@swtdx/linux-host";
import { KernelError } from "../x86/errno.js";
import { mustSucceed, statusErrno, tdh, tdhRetry } from "../vmx/seamcall.js";

/** Frames that a table of `level` maps, per entry: level 1 tables (PD) have entries of 2 MiB. */
const FRAMES = [1, 512, 512 ** 2, 512 ** 3] as const;

export class SecureEpt {
  /** Leaves: guest frame → page frame. */
  readonly #leaves = new Map<number, Pfn>();
  /** Tables by level of the entry that refers to them (1 PD entry: a page table), by frame / frames per entry. */
  readonly #tables: readonly Map<number, Pfn>[] = [new Map(), new Map(), new Map(), new Map()];

  constructor(
    private readonly lp: LogicalProcessor,
    private readonly tdr: Hpa,
    /** Level of the root table's entries: 3 for 4-level EPT. */
    private readonly rootLevel: number,
    private readonly allocator: PageAllocator,
    private readonly keyId: number,
    private readonly keyIdUnit: number,
  ) {}

  isMapped(gfn: number): boolean {
    return this.#leaves.has(gfn);
  }
  get size(): number {
    return this.#leaves.size;
  }

  /** TDH.MEM.SEPT.ADD for the tables on the way to a leaf. @throws KernelError */
  #linkTables(gfn: number): void {
    for (let level = this.rootLevel; level > 0; level--) {
      const tables = this.#tables[level];
      const frames = FRAMES[level];
      const index = Math.floor(gfn / frames);
      if (tables.has(index)) continue;
      const page = this.allocator.allocPage("Secure EPT");
      if (page === null) throw new KernelError(Errno.ENOMEM);
      const gpa = BigInt(index * frames) * BigInt(PAGE_SIZE);
      const status = tdhRetry(
        this.lp,
        "TDH.MEM.SEPT.ADD",
        gpa | BigInt(level),
        BigInt(this.tdr),
        BigInt(page * PAGE_SIZE),
      );
      if (status !== 0n) {
        this.allocator.freePage(page);
        throw new KernelError(-statusErrno(status));
      }
      tables.set(index, page);
    }
  }

  /** TDH.MEM.PAGE.ADD, and TDH.MR.EXTEND of the whole page if it is measured. @returns the module's status */
  add(gfn: number, page: Pfn, source: Pfn, measure: boolean): bigint {
    this.#linkTables(gfn);
    const gpa = gfn * PAGE_SIZE;
    const tdr = BigInt(this.tdr);
    const status = tdh(
      this.lp,
      "TDH.MEM.PAGE.ADD",
      BigInt(gpa),
      tdr,
      BigInt(page * PAGE_SIZE),
      BigInt(source * PAGE_SIZE),
    );
    if (status !== 0n) return status;
    this.#leaves.set(gfn, page);
    if (!measure) return 0n;
    for (let offset = 0; offset < PAGE_SIZE; offset += 256) {
      const extended = tdh(this.lp, "TDH.MR.EXTEND", BigInt(gpa + offset), tdr);
      if (extended !== 0n) return extended;
    }
    return 0n;
  }

  /** TDH.MEM.PAGE.AUG. @returns the module's status */
  aug(gfn: number, page: Pfn): bigint {
    this.#linkTables(gfn);
    const status = tdh(
      this.lp,
      "TDH.MEM.PAGE.AUG",
      BigInt(gfn) * BigInt(PAGE_SIZE),
      BigInt(this.tdr),
      BigInt(page * PAGE_SIZE),
    );
    if (status === 0n) this.#leaves.set(gfn, page);
    return status;
  }

  /**
   * Takes the pages of [start, end) from the TD: block, track, remove. No vCPU runs while the host does, so the epoch
   * is over as soon as it is closed.
   */
  zap(start: number, end: number): void {
    const frames = this.#mappedIn(start, end);
    if (frames.length === 0) return;
    const tdr = BigInt(this.tdr);
    const gpa = (gfn: number): bigint => BigInt(gfn) * BigInt(PAGE_SIZE);
    for (const gfn of frames)
      mustSucceed("TDH.MEM.RANGE.BLOCK", tdhRetry(this.lp, "TDH.MEM.RANGE.BLOCK", gpa(gfn), tdr));
    mustSucceed("TDH.MEM.TRACK", tdhRetry(this.lp, "TDH.MEM.TRACK", tdr));
    for (const gfn of frames) {
      mustSucceed("TDH.MEM.PAGE.REMOVE", tdhRetry(this.lp, "TDH.MEM.PAGE.REMOVE", gpa(gfn), tdr));
      const page = this.#leaves.get(gfn)!;
      this.#leaves.delete(gfn);
      mustSucceed("TDH.PHYMEM.PAGE.WBINVD", this.#writeBack(page));
      this.lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, PAGE_SIZE);
    }
  }

  #mappedIn(start: number, end: number): number[] {
    if (end - start <= this.#leaves.size) {
      const out: number[] = [];
      for (let gfn = start; gfn < end; gfn++) if (this.#leaves.has(gfn)) out.push(gfn);
      return out;
    }
    return [...this.#leaves.keys()].filter((gfn) => gfn >= start && gfn < end).sort((a, b) => a - b);
  }

  #writeBack(page: Pfn): bigint {
    return tdh(this.lp, "TDH.PHYMEM.PAGE.WBINVD", BigInt(page * PAGE_SIZE + this.keyId * this.keyIdUnit));
  }

  /** The TD's HKID is free: all pages go back. Leaves belong to the guest_memfd, tables to this. */
  reclaim(): void {
    for (const page of this.#leaves.values()) reclaimPage(this.lp, page, null);
    this.#leaves.clear();
    for (const tables of this.#tables) {
      for (const page of tables.values()) reclaimPage(this.lp, page, this.allocator);
      tables.clear();
    }
  }
}

/** TDH.PHYMEM.PAGE.RECLAIM, then the page is the host's: cleared, and freed if an allocator is given. */
export function reclaimPage(lp: LogicalProcessor, page: Pfn, allocator: PageAllocator | null): void {
  mustSucceed("TDH.PHYMEM.PAGE.RECLAIM", tdhRetry(lp, "TDH.PHYMEM.PAGE.RECLAIM", BigInt(page * PAGE_SIZE)));
  lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, PAGE_SIZE);
  allocator?.freePage(page);
}
