/**
 * The walk of an extended-page-table: guest-physical to host-physical address, on numbers.
 * Intel SDM vol. 3C section 29.3 (EPT), 29.3.3.1 (misconfigurations); TDX: private and shared EPT, KeyIDs.
 */
import type { PhysicalMemory } from "./physical.js";

export const Ept = { OK: 0, VIOLATION: 1, MISCONFIG: 2, MC: 3 } as const;
export type EptStatus = (typeof Ept)[keyof typeof Ept];

/** Rights in an EPT entry. */
export const EPT_R = 1;
export const EPT_W = 2;
export const EPT_X = 4;
/** Execute access for user-mode linear addresses, with mode-based execute control. */
export const EPT_XU = 0x400;

/** How one of the two EPTs of a guest is walked. */
export interface EptRoot {
  /** HPA of the top-level table. */
  base: number;
  /** 4 or 5. */
  levels: number;
  /** KeyID of the tables; the TD's for its private EPT. */
  keyId: number;
  /**
   * true: a TD's private EPT: all accesses use `keyId`, entries hold no KeyID. false: the KeyID of a page stands in
   * its entry and must be a shared one.
   */
  private: boolean;
  accessedDirty: boolean;
  modeBasedExecute: boolean;
}

export const newEptRoot = (): EptRoot => ({
  base: 0,
  levels: 4,
  keyId: 0,
  private: false,
  accessedDirty: false,
  modeBasedExecute: false,
});

export class EptWalker {
  /** AND of the rights of all levels, or those so far at the failing one. */
  rights = 0;
  /** HPA of the 4 KiB page that holds the address. */
  hpa = 0;
  keyId = 0;
  /** Level of the leaf or failing entry: 0 4K, 1 2M, 2 1G. */
  level = 0;
  /** Bit 63 of the leaf or failing entry: convertible violations exit instead of #VE. */
  suppressVe = false;
  /** EPT memory type of the leaf (0 UC, 6 WB, …) and ignore-PAT. */
  memoryType = 6;
  ignorePat = false;
  /** Address of the leaf entry, for accessed and dirty flags. */
  entryHpa = 0;
  entryLo = 0;
  entryHi = 0;
  /** KeyID of the table that holds the leaf entry. */
  #entryKey = 0;

  constructor(private readonly phys: PhysicalMemory) {}

  /** @param gpa guest-physical address below 2^52 */
  walk(root: EptRoot, gpa: number): EptStatus {
    const phys = this.phys;
    let table = root.base;
    let tableKey = root.keyId;
    let rights = root.modeBasedExecute ? EPT_R | EPT_W | EPT_X | EPT_XU : EPT_R | EPT_W | EPT_X;
    let shift = 2 ** (12 + 9 * (root.levels - 1));
    for (let level = root.levels - 1; ; level--, shift /= 512) {
      const index = Math.floor(gpa / shift) % 512;
      const at = table + index * 8;
      if (phys.readQ(at, tableKey, false) !== 0) return Ept.MC;
      const lo = phys.lo;
      const hi = phys.hi;
      this.level = level;
      this.suppressVe = hi >>> 31 === 1;
      const permission = lo & (root.modeBasedExecute ? 0x407 : 7);
      if (permission === 0) {
        this.rights = 0;
        return Ept.VIOLATION;
      }
      // Writable without readable never is a valid combination.
      if ((lo & 3) === 2) return Ept.MISCONFIG;
      const leaf = level === 0 || (level <= 2 && (lo & 0x80) !== 0);
      if (level >= 3 && (lo & 0xf8) !== 0) return Ept.MISCONFIG;
      if (level < 3 && !leaf && (lo & 0x78) !== 0) return Ept.MISCONFIG;
      const address = (hi & 0xfffff) * 0x1_0000_0000 + ((lo & 0xfffff000) >>> 0);
      const key = Math.floor(address / phys.keyIdUnit);
      if (root.private ? key !== 0 : phys.isPrivate(key)) return Ept.MISCONFIG;
      const target = address - key * phys.keyIdUnit;
      rights &= permission;
      if (leaf) {
        const type = (lo >>> 3) & 7;
        if (type === 2 || type === 3 || type === 7) return Ept.MISCONFIG;
        if (target % shift !== 0) return Ept.MISCONFIG;
        this.memoryType = type;
        this.ignorePat = (lo & 0x40) !== 0;
        this.rights = rights;
        this.hpa = target + Math.floor((gpa % shift) / 4096) * 4096;
        this.keyId = root.private ? root.keyId : key;
        this.entryHpa = at;
        this.#entryKey = tableKey;
        this.entryLo = lo;
        this.entryHi = hi;
        return Ept.OK;
      }
      if (root.accessedDirty && (lo & 0x100) === 0) phys.writeQ(at, tableKey, lo | 0x100, hi, false);
      table = target;
      tableKey = root.private ? root.keyId : key;
    }
  }

  /** Sets the accessed and (for a write) dirty flag of the leaf that the last `walk` found. */
  setAccessedDirty(write: boolean): void {
    const wanted = write ? 0x300 : 0x100;
    if ((this.entryLo & wanted) === wanted) return;
    this.entryLo |= wanted;
    this.phys.writeQ(this.entryHpa, this.#entryKey, this.entryLo >>> 0, this.entryHi, false);
  }
}
