/**
 * The TDP MMU's private side: a mirror of the TD's Secure EPT, kept by SEAMCALLs. Pages of 4 KiB, as upstream KVM maps,
 * and of 2 MiB.
 * Source: Linux arch/x86/kvm/mmu/tdp_mmu.c, arch/x86/kvm/vmx/tdx.c (tdx_sept_*), and the series "KVM: TDX huge page
 * support" for 2 MiB.
 */
import {
  Errno,
  type Hpa,
  type HpaAndKeyId,
  PAGE_SIZE,
  PAGE_SIZE_LEVEL,
  type Pfn,
  type SeamcallName,
  statusIs,
  TDX_STATUS,
} from "@swtdx/abi";
import type { LogicalProcessor, PageAllocator } from "@swtdx/linux-host";
import { KernelError } from "../x86/errno.js";
import { mustSucceed, statusErrno, tdh, tdhRetry } from "../vmx/seamcall.js";

/** Frames that an entry of each level maps: level 1 (PD) entries are 2 MiB. */
const FRAMES = [1, 512, 512 ** 2, 512 ** 3] as const;
const { PT_4KB, PT_2MB } = PAGE_SIZE_LEVEL;
/** Level of a leaf. */
export type LeafLevel = typeof PT_4KB | typeof PT_2MB;
const LEVELS: readonly LeafLevel[] = [PT_4KB, PT_2MB];

export class SecureEpt {
  /** Leaves by level: frame / frames per entry → first page frame. */
  readonly #leaves: readonly Map<number, Pfn>[] = [new Map(), new Map()];
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
    return this.#leaves[PT_4KB].has(gfn) || this.isHuge(gfn);
  }
  /** Whether a frame is mapped as part of a 2 MiB page. */
  isHuge(gfn: number): boolean {
    return this.#leaves[PT_2MB].has(Math.floor(gfn / FRAMES[PT_2MB]));
  }
  /** Whether there is a page table for a frame: its 2 MiB are then mapped in pages of 4 KiB, if at all. */
  hasPageTable(gfn: number): boolean {
    return this.#tables[PT_2MB].has(Math.floor(gfn / FRAMES[PT_2MB]));
  }

  #call(name: SeamcallName, gfn: number, level: number, page?: Pfn): bigint {
    const mapping = BigInt(gfn * PAGE_SIZE + level);
    return tdhRetry(
      this.lp,
      name,
      mapping,
      BigInt(this.tdr),
      page === undefined ? 0n : BigInt(page * PAGE_SIZE),
    );
  }
  #mustCall(name: SeamcallName, gfn: number, level: number): void {
    mustSucceed(name, this.#call(name, gfn, level));
  }
  #track(): void {
    mustSucceed("TDH.MEM.TRACK", tdhRetry(this.lp, "TDH.MEM.TRACK", BigInt(this.tdr)));
  }

  #allocTable(): Pfn {
    const page = this.allocator.allocPage("Secure EPT");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    return page;
  }

  /** TDH.MEM.SEPT.ADD for the tables on the way to a leaf. @throws KernelError */
  #linkTables(gfn: number, leaf: LeafLevel): void {
    for (let level = this.rootLevel; level > leaf; level--) {
      const tables = this.#tables[level];
      const index = Math.floor(gfn / FRAMES[level]);
      if (tables.has(index)) continue;
      const page = this.#allocTable();
      const status = this.#call("TDH.MEM.SEPT.ADD", index * FRAMES[level], level, page);
      if (status !== 0n) {
        this.allocator.freePage(page);
        throw new KernelError(-statusErrno(status));
      }
      tables.set(index, page);
    }
  }

  /** TDH.MEM.PAGE.ADD, and TDH.MR.EXTEND of the whole page if it is measured. @returns the module's status */
  add(gfn: number, page: Pfn, source: Pfn, measure: boolean): bigint {
    this.#linkTables(gfn, PT_4KB);
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
    this.#leaves[PT_4KB].set(gfn, page);
    if (!measure) return 0n;
    for (let offset = 0; offset < PAGE_SIZE; offset += 256) {
      const extended = tdh(this.lp, "TDH.MR.EXTEND", BigInt(gpa + offset), tdr);
      if (extended !== 0n) return extended;
    }
    return 0n;
  }

  /** TDH.MEM.PAGE.AUG of a frame and page that are aligned to the level. @returns the module's status */
  aug(gfn: number, page: Pfn, level: LeafLevel): bigint {
    this.#linkTables(gfn, level);
    const status = tdh(
      this.lp,
      "TDH.MEM.PAGE.AUG",
      BigInt(gfn * PAGE_SIZE + level),
      BigInt(this.tdr),
      BigInt(page * PAGE_SIZE),
    );
    if (status === 0n) this.#leaves[level].set(gfn / FRAMES[level], page);
    return status;
  }

  /** Splits the 2 MiB page that holds a frame, if there is one: block, track, demote. @throws KernelError ENOMEM */
  split(gfn: number): void {
    const index = Math.floor(gfn / FRAMES[PT_2MB]);
    const page = this.#leaves[PT_2MB].get(index);
    if (page === undefined) return;
    const table = this.#allocTable();
    const first = index * FRAMES[PT_2MB];
    this.#mustCall("TDH.MEM.RANGE.BLOCK", first, PT_2MB);
    this.#track();
    let status = this.#call("TDH.MEM.PAGE.DEMOTE", first, PT_2MB, table);
    while (statusIs(status, TDX_STATUS.TDX_INTERRUPTED_RESTARTABLE)) {
      while (this.lp.takeInterrupt() !== null);
      status = this.#call("TDH.MEM.PAGE.DEMOTE", first, PT_2MB, table);
    }
    mustSucceed("TDH.MEM.PAGE.DEMOTE", status);
    this.#tables[PT_2MB].set(index, table);
    this.#leaves[PT_2MB].delete(index);
    for (let i = 0; i < FRAMES[PT_2MB]; i++) this.#leaves[PT_4KB].set(first + i, (page + i) as Pfn);
  }

  /**
   * Takes the pages of [start, end) from the TD: block, track, remove; 2 MiB pages that are only partly in it are split
   * first. No vCPU runs while the host does, so the epoch is over as soon as it is closed. @throws KernelError ENOMEM
   */
  zap(start: number, end: number): void {
    if (start % FRAMES[PT_2MB] !== 0) this.split(start);
    if (end % FRAMES[PT_2MB] !== 0) this.split(end);
    const found = LEVELS.map((level) => this.#leavesIn(level, start / FRAMES[level], end / FRAMES[level]));
    if (found.every(({ length }) => length === 0)) return;
    for (const level of LEVELS)
      for (const index of found[level]) this.#mustCall("TDH.MEM.RANGE.BLOCK", index * FRAMES[level], level);
    this.#track();
    for (const level of LEVELS) for (const index of found[level]) this.#remove(index, level);
  }

  #remove(index: number, level: LeafLevel): void {
    this.#mustCall("TDH.MEM.PAGE.REMOVE", index * FRAMES[level], level);
    const page = this.#leaves[level].get(index)!;
    this.#leaves[level].delete(index);
    for (let i = 0; i < FRAMES[level]; i++)
      mustSucceed("TDH.PHYMEM.PAGE.WBINVD", this.#writeBack((page + i) as Pfn));
    clear(this.lp, page, level);
  }

  /** Entries in [start, end) that map, ascending. */
  #leavesIn(level: LeafLevel, start: number, end: number): number[] {
    const leaves = this.#leaves[level];
    const out: number[] = [];
    if (end - start > leaves.size) {
      for (const index of leaves.keys()) if (index >= start && index < end) out.push(index);
      return out.sort((a, b) => a - b);
    }
    for (let index = Math.ceil(start); index < end; index++) if (leaves.has(index)) out.push(index);
    return out;
  }

  #writeBack(page: Pfn): bigint {
    return tdh(this.lp, "TDH.PHYMEM.PAGE.WBINVD", BigInt(page * PAGE_SIZE + this.keyId * this.keyIdUnit));
  }

  /** The TD's HKID is free: all pages go back. Leaves belong to the guest_memfd, tables to this. */
  reclaim(): void {
    for (const level of LEVELS) {
      for (const page of this.#leaves[level].values()) reclaimPage(this.lp, page, null, level);
      this.#leaves[level].clear();
    }
    for (const tables of this.#tables) {
      for (const page of tables.values()) reclaimPage(this.lp, page, this.allocator);
      tables.clear();
    }
  }
}

/** TDH.PHYMEM.PAGE.RECLAIM, then the page is the host's: cleared, and freed if an allocator is given. */
export function reclaimPage(
  lp: LogicalProcessor,
  page: Pfn,
  allocator: PageAllocator | null,
  level: LeafLevel = PT_4KB,
): void {
  mustSucceed("TDH.PHYMEM.PAGE.RECLAIM", tdhRetry(lp, "TDH.PHYMEM.PAGE.RECLAIM", BigInt(page * PAGE_SIZE)));
  clear(lp, page, level);
  allocator?.freePage(page);
}

/** MOVDIR64B over all of it: lines of another KeyID are not read. */
const clear = (lp: LogicalProcessor, page: Pfn, level: LeafLevel): void => {
  lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, FRAMES[level] * PAGE_SIZE);
};
