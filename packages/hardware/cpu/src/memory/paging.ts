/**
 * The walk of a guest's own page tables: linear to guest-physical address, on numbers.
 * Intel SDM vol. 3A chapter 4 (paging off, 32-bit, PAE, 4-level, 5-level), 4.6 (access rights), 4.7 (error codes).
 */

export const Walk = {
  OK: 0,
  /** #PF: the error code is in `errorCode`. */
  FAULT: 1,
  /** Reading or writing a table entry failed below (EPT violation, machine check): the memory recorded it. */
  BELOW: 2,
} as const;
export type WalkStatus = (typeof Walk)[keyof typeof Walk];

/** Error-code bits of #PF. */
export const PF = { P: 1, W: 2, U: 4, RSVD: 8, I: 16, PK: 32 } as const;

/** Guest-physical memory that holds the tables. A nonzero status ends the walk with BELOW. */
export interface TableMemory {
  lo: number;
  hi: number;
  /** Reads the entry at a GPA: `lo`, `hi` (`bytes` 4 leaves `hi` 0). */
  readEntry(gpa: number, bytes: 4 | 8): number;
  /** Sets flag bits in the low half of an entry that was just read. */
  setEntryFlags(gpa: number, lo: number, bytes: 4 | 8): number;
}

/** The control bits that paging depends on; recomputed when control registers change. */
export interface PagingMode {
  /** 0: paging off; 2: 32-bit; 3: PAE; 4, 5: IA-32e. */
  levels: 0 | 2 | 3 | 4 | 5;
  cr3: number;
  wp: boolean;
  nx: boolean;
  smep: boolean;
  smap: boolean;
  pse: boolean;
  pge: boolean;
  /** Physical-address width of the guest (CPUID MAXPHYADDR). */
  maxpa: number;
  /** PAE page-directory-pointer entries as loaded by MOV CR3 or VM entry: low and high halves. */
  pdptes: Uint32Array;
  pku: boolean;
  pks: boolean;
}

export const newPagingMode = (): PagingMode => ({
  levels: 0,
  cr3: 0,
  wp: false,
  nx: false,
  smep: false,
  smap: false,
  pse: false,
  pge: false,
  maxpa: 52,
  pdptes: new Uint32Array(8),
  pku: false,
  pks: false,
});

export class PagingWalker {
  /** GPA of the 4 KiB page. */
  gpa = 0;
  errorCode = 0;
  /** Combined rights of the translation. */
  writable = true;
  user = true;
  executable = true;
  dirty = true;
  global = false;
  protectionKey = 0;
  /** Level of the leaf: 0 4K, 1 2M/4M, 2 1G. */
  level = 0;

  constructor(private readonly memory: TableMemory) {}

  /**
   * Translates the page of a linear address and checks rights.
   * @param access 0 read, 2 write, 16 fetch
   * @param user CPL 3 (a user-mode access)
   * @param implicitSmap SMAP applies although EFLAGS.AC is set (implicit supervisor access), or AC is clear
   */
  walk(
    mode: PagingMode,
    laLow: number,
    laHigh: number,
    access: number,
    user: boolean,
    smapApplies: boolean,
  ): WalkStatus {
    this.writable = true;
    this.user = true;
    this.executable = true;
    this.dirty = true;
    this.global = false;
    this.level = 0;
    this.protectionKey = 0;
    const base = (user ? PF.U : 0) | (access & PF.W) | (access === 16 && (mode.nx || mode.smep) ? PF.I : 0);
    if (mode.levels === 0) {
      this.gpa = (laLow & 0xfffff000) >>> 0;
      return Walk.OK;
    }
    if (mode.levels === 2) return this.#walk32(mode, laLow, access, user, smapApplies, base);
    const memory = this.memory;
    const reservedHigh = mode.maxpa >= 52 ? 0 : (0xfffff << (mode.maxpa - 32)) & 0xfffff;
    let level: number;
    let lo: number;
    let hi: number;
    if (mode.levels === 3) {
      const index = laLow >>> 30;
      lo = mode.pdptes[index * 2]!;
      hi = mode.pdptes[index * 2 + 1]!;
      if ((lo & 1) === 0) return this.#fault(base);
      level = 1;
    } else {
      lo = ((mode.cr3 % 0x1_0000_0000) & 0xfffff000) >>> 0;
      hi = Math.floor(mode.cr3 / 0x1_0000_0000) & 0xfffff;
      level = mode.levels - 1;
    }
    for (; ; level--) {
      const table = (hi & 0xfffff) * 0x1_0000_0000 + ((lo & 0xfffff000) >>> 0);
      const index =
        level === 0
          ? (laLow >>> 12) & 0x1ff
          : level === 1
            ? (laLow >>> 21) & 0x1ff
            : level === 2
              ? (laLow >>> 30) | ((laHigh & 0x7f) << 2)
              : level === 3
                ? (laHigh >>> 7) & 0x1ff
                : (laHigh >>> 16) & 0x1ff;
      const at = table + index * 8;
      if (memory.readEntry(at, 8) !== 0) return Walk.BELOW;
      lo = memory.lo;
      hi = memory.hi;
      if ((lo & 1) === 0) return this.#fault(base);
      const leaf = level === 0 || (level <= 2 && (lo & 0x80) !== 0 && (mode.levels !== 3 || level === 1));
      // Reserved: address bits beyond MAXPHYADDR, NX without EFER.NXE, PS where no page is, low bits of big pages.
      if (
        (hi & reservedHigh) !== 0 ||
        (hi >>> 31 === 1 && !mode.nx) ||
        (mode.levels === 3 && (hi & 0x7ff00000) !== 0) ||
        (level >= 3 && (lo & 0x80) !== 0) ||
        (leaf && level === 1 && (lo & 0x1fe000) !== 0) ||
        (leaf && level === 2 && (lo & 0x3fffe000) !== 0)
      )
        return this.#fault(base | PF.P | PF.RSVD);
      if ((lo & 2) === 0) this.writable = false;
      if ((lo & 4) === 0) this.user = false;
      if (hi >>> 31 === 1) this.executable = false;
      if (!leaf) {
        if ((lo & 0x20) === 0 && memory.setEntryFlags(at, lo | 0x20, 8) !== 0) return Walk.BELOW;
        continue;
      }
      this.level = level;
      this.global = mode.pge && (lo & 0x100) !== 0;
      this.protectionKey = (hi >>> 27) & 0xf;
      if (!this.#allowed(mode, access, user, smapApplies)) return this.#fault(base | PF.P);
      const wanted = access === 2 ? 0x60 : 0x20;
      if ((lo & wanted) !== wanted && memory.setEntryFlags(at, lo | wanted, 8) !== 0) return Walk.BELOW;
      this.dirty = ((lo | wanted) & 0x40) !== 0;
      const frame = (hi & 0xfffff) * 0x1_0000_0000;
      this.gpa =
        level === 0
          ? frame + ((lo & 0xfffff000) >>> 0)
          : level === 1
            ? frame + ((lo & 0xffe00000) >>> 0) + (laLow & 0x1ff000)
            : frame + ((lo & 0xc0000000) >>> 0) + (laLow & 0x3ffff000);
      return Walk.OK;
    }
  }

  #walk32(
    mode: PagingMode,
    la: number,
    access: number,
    user: boolean,
    smapApplies: boolean,
    base: number,
  ): WalkStatus {
    const memory = this.memory;
    const pdeAt = ((mode.cr3 % 0x1_0000_0000) & 0xfffff000) >>> 0;
    let at = pdeAt + (la >>> 22) * 4;
    if (memory.readEntry(at, 4) !== 0) return Walk.BELOW;
    let lo = memory.lo;
    if ((lo & 1) === 0) return this.#fault(base);
    if ((lo & 2) === 0) this.writable = false;
    if ((lo & 4) === 0) this.user = false;
    const big = mode.pse && (lo & 0x80) !== 0;
    if (big) {
      // PSE-36: bits 20:13 are address bits 39:32, bit 21 is reserved.
      if ((lo & 0x200000) !== 0) return this.#fault(base | PF.P | PF.RSVD);
      this.level = 1;
    } else {
      if ((lo & 0x20) === 0 && memory.setEntryFlags(at, lo | 0x20, 4) !== 0) return Walk.BELOW;
      at = ((lo & 0xfffff000) >>> 0) + ((la >>> 12) & 0x3ff) * 4;
      if (memory.readEntry(at, 4) !== 0) return Walk.BELOW;
      lo = memory.lo;
      if ((lo & 1) === 0) return this.#fault(base);
      if ((lo & 2) === 0) this.writable = false;
      if ((lo & 4) === 0) this.user = false;
    }
    this.global = mode.pge && (lo & 0x100) !== 0;
    if (!this.#allowed(mode, access, user, smapApplies)) return this.#fault(base | PF.P);
    const wanted = access === 2 ? 0x60 : 0x20;
    if ((lo & wanted) !== wanted && memory.setEntryFlags(at, lo | wanted, 4) !== 0) return Walk.BELOW;
    this.dirty = ((lo | wanted) & 0x40) !== 0;
    this.gpa = big
      ? ((lo >>> 13) & 0xff) * 0x1_0000_0000 + ((lo & 0xffc00000) >>> 0) + (la & 0x3ff000)
      : (lo & 0xfffff000) >>> 0;
    return Walk.OK;
  }

  /** Rights of the translation just walked, SDM section 4.6.1. */
  #allowed(mode: PagingMode, access: number, user: boolean, smapApplies: boolean): boolean {
    return pageAccessAllowed(mode, this.writable, this.user, this.executable, access, user, smapApplies);
  }
  #fault(errorCode: number): WalkStatus {
    this.errorCode = errorCode;
    return Walk.FAULT;
  }
}

/** Whether an access with these page rights is allowed (SDM vol. 3A section 4.6.1), protection keys apart. */
export function pageAccessAllowed(
  mode: PagingMode,
  writable: boolean,
  userPage: boolean,
  executable: boolean,
  access: number,
  user: boolean,
  smapApplies: boolean,
): boolean {
  if (user) {
    if (!userPage) return false;
    if (access === 2) return writable;
    return access !== 16 || executable || !mode.nx;
  }
  if (access === 16) {
    if (!executable && mode.nx) return false;
    return !(mode.smep && userPage);
  }
  if (userPage && mode.smap && smapApplies) return false;
  return access !== 2 || writable || !mode.wp;
}
