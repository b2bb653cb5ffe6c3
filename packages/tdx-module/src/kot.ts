/**
 * KOT (key ownership table) and WBT (cache write-back table): which HKID is whose, and how far it is on its way back.
 * Both are the module's own data, in the SEAM range.
 *
 * Source: intel/tdx-module src/common/data_structures/tdx_global_data.h (kot_t, wbt_entry_t).
 */

export const KotState = { HKID_FREE: 0, HKID_ASSIGNED: 1, HKID_FLUSHED: 2, HKID_RESERVED: 3 } as const;
export type KotState = (typeof KotState)[keyof typeof KotState];

export interface KotEntry {
  state: KotState;
  /** Packages whose caches still have to be written back. */
  wbinvdBitmap: bigint;
}

/** Progress of TDH.PHYMEM.CACHE.WB on a package. */
export interface WbtEntry {
  /** Next block; 0: not interrupted. */
  intrPoint: number;
  /** HKIDs that were flushed when it began. */
  readonly flushed: Set<number>;
}

export class KeyOwnershipTable {
  readonly #entries = new Map<number, KotEntry>();
  readonly #packages = new Map<number, WbtEntry>();

  constructor(
    readonly first: number,
    readonly count: number,
  ) {}

  isPrivate(hkid: number): boolean {
    return hkid >= this.first && hkid < this.first + this.count;
  }

  entry(hkid: number): KotEntry {
    let entry = this.#entries.get(hkid);
    if (!entry) this.#entries.set(hkid, (entry = { state: KotState.HKID_FREE, wbinvdBitmap: 0n }));
    return entry;
  }

  /** HKIDs in a state. */
  inState(state: KotState): number[] {
    const out: number[] = [];
    for (let hkid = this.first; hkid < this.first + this.count; hkid++)
      if (this.entry(hkid).state === state) out.push(hkid);
    return out;
  }

  wbt(packageIndex: number): WbtEntry {
    let entry = this.#packages.get(packageIndex);
    if (!entry) this.#packages.set(packageIndex, (entry = { intrPoint: 0, flushed: new Set() }));
    return entry;
  }
}
