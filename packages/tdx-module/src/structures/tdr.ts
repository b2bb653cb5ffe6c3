/**
 * TDR: the root control structure of a TD. One 4 KiB page, accessed with the module's global private HKID.
 *
 * Layout and field names: TDX module 1.5 base architecture specification, TDR; intel/tdx-module
 * include/auto_gen/tdr_tdcs_fields_lookup.c, src/common/data_structures/td_control_structures.h.
 */
import { type Hpa, type KeyId, LIFECYCLE_STATE } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import { ControlStructure, f16, f32, f64, f8, fBytes } from "./layout.js";

export const TDR = {
  // TD management
  /** Non-zero: the TD had a fatal error. */
  FATAL: f8(0x0000),
  /** TDCX pages added by TDH.MNG.ADDCX. */
  NUM_TDCX: f32(0x0004),
  /** Child pages: control structures, Secure EPT and TD private pages, in units of 4 KiB. */
  CHLDCNT: f64(0x0008),
  LIFECYCLE_STATE: f32(0x0010),
  /** First of 9: HPAs of the TDCX pages. */
  TDCX_PA: f64(0x0018),
  TD_UUID: fBytes(0x0060, 32),
  // Key management
  HKID: f16(0x0100),
  /** Bit per package on which TDH.MNG.KEY.CONFIG configured the key. */
  PKG_CONFIG_BITMAP: f64(0x0108),
  // TD preserving
  HANDOFF_VERSION: f16(0x0140),
  SEAMDB_INDEX: f64(0x0148),
  SEAMDB_NONCE: fBytes(0x0150, 32),
} as const;

/** Values of TDR.LIFECYCLE_STATE. */
export const LifecycleState = LIFECYCLE_STATE;

export class TdrStructure extends ControlStructure {
  constructor(
    lp: SeamContext,
    /** HPA of the TDR page: the TD's handle. */
    readonly base: Hpa,
    globalHkid: KeyId,
  ) {
    super(lp, globalHkid, 1);
  }

  page(): Hpa {
    return this.base;
  }

  /** The TD's private HKID. */
  get hkid(): KeyId {
    return (this.get32(TDR.HKID.offset) & 0xffff) as KeyId;
  }

  /** Adds to (or subtracts from) the count of child 4 KiB pages. */
  addChildren(pages4K: number): void {
    this.setNumber(TDR.CHLDCNT, this.getNumber(TDR.CHLDCNT) + pages4K);
  }

  /** HPA of TDCX page `index`. */
  tdcxPa(index: number): Hpa {
    const at = TDR.TDCX_PA.offset + index * 8;
    return (this.get32(at + 4) * 0x1_0000_0000 + this.get32(at)) as Hpa;
  }
}
