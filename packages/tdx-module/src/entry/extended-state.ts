/**
 * Extended state of guest and VMM: XSAVES to and XRSTORS from TDVPS under XFAM, and INIT state for the VMM.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdh_vp_enter.c (restore_guest_td_extended_state,
 * save_xmms_by_mask), td_exit.c (load_xmms_by_mask), helpers.c (initialize_extended_state).
 */
import type { Hpa } from "@swtdx/abi";
import { REG, type RegisterFile, type SeamContext } from "@swtdx/cpu";
import { TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import { XCR0_SUPERVISOR_BIT_MASK, XCR0_USER_BIT_MASK } from "../tables/attributes.js";
import type { VpContext } from "./vp-context.js";

const IA32_XSS = 0xda0;
/** Offsets in an XSAVE area: XMM0, XSTATE_BV, XCOMP_BV, reserved part of the header. */
const XMM0 = 160;
const XSTATE_BV = 512;
const XCOMP_BV = 520;
const COMPACT_HIGH = 0x8000_0000;
const USER = Number(XCR0_USER_BIT_MASK);
const SUPERVISOR = Number(XCR0_SUPERVISOR_BIT_MASK);
/** Bytes of a register in RegisterFile's vector area. */
const VECTOR_STRIDE = 64;

/** XCR0 and IA32_XSS hold all features of `xfam`. */
function enableXfam(lp: SeamContext, xfam: number): void {
  const xcr0 = xfam & USER;
  if (lp.regs.get32(REG.XCR0) !== xcr0) lp.xsetbv(BigInt(xcr0));
  const xss = xfam & SUPERVISOR;
  if (lp.regs.get32(REG.XSS) !== xss) lp.wrmsr(IA32_XSS, BigInt(xss));
}

export function saveGuestExtendedState(vp: VpContext): void {
  enableXfam(vp.lp, vp.xfamLow);
  vp.lp.xsaves(xbuff(vp), vp.hkid, vp.xfamLow);
}

const xbuff = (vp: VpContext): Hpa => vp.tdvps.pa(TDVPS.XBUFF.offset);

/**
 * Loads the guest's extended state.
 * @returns false when the saved area is corrupt: TD entry fails (XSTATE load failure)
 */
export function restoreGuestExtendedState(vp: VpContext): boolean {
  const { lp, tdvps, xfamLow } = vp;
  const at = TDVPS.XBUFF.offset;
  const xstateBv = tdvps.get32(at + XSTATE_BV);
  const xcompBv = tdvps.get32(at + XCOMP_BV);
  // Compacted, and no component that the TD has not.
  if (tdvps.get32(at + XCOMP_BV + 4) !== COMPACT_HIGH || tdvps.get32(at + XSTATE_BV + 4) !== 0) return false;
  if ((xcompBv & ~xfamLow) !== 0 || (xstateBv & ~xcompBv) !== 0) return false;
  for (let reserved = XCOMP_BV + 8; reserved < XSTATE_BV + 64; reserved += 4)
    if (tdvps.get32(at + reserved) !== 0) return false;
  enableXfam(lp, xfamLow);
  lp.xrstors(xbuff(vp), vp.hkid, xfamLow);
  return true;
}

/** A fresh area: all components in INIT state, compacted format. */
export function initXbuff(tdvps: TdvpsStructure): void {
  tdvps.set32(TDVPS.XBUFF.offset + XCOMP_BV, 0);
  tdvps.set32(TDVPS.XBUFF.offset + XCOMP_BV + 4, COMPACT_HIGH);
}

/** TDH.VP.ENTER after TDG.VP.VMCALL: the VMM's XMM registers that the guest selected, into its saved state. */
export function saveXmmsByMask(vp: VpContext, select: number): void {
  if (select === 0) return;
  const { lp } = vp;
  const area = xbuff(vp);
  for (let i = 0; i < 16; i++) {
    if ((select & (1 << i)) === 0) continue;
    const at = REG.ZMM + i * VECTOR_STRIDE;
    lp.write((area + XMM0 + i * 16) as Hpa, vp.hkid, lp.regs.u8.subarray(at, at + 16));
  }
  const at = (area + XSTATE_BV) as Hpa;
  lp.writeU64(at, vp.hkid, lp.readU64(at, vp.hkid) | 2n);
}

/** The guest's XMM registers that it selected for the VMM: kept while the processor is scrubbed. */
export class GuestXmm {
  readonly #bytes = new Uint8Array(256);
  constructor(
    regs: RegisterFile,
    readonly select: number,
  ) {
    for (let i = 0; i < 16; i++) {
      if ((select & (1 << i)) === 0) continue;
      const at = REG.ZMM + i * VECTOR_STRIDE;
      this.#bytes.set(regs.u8.subarray(at, at + 16), i * 16);
    }
  }
  load(regs: RegisterFile): void {
    for (let i = 0; i < 16; i++)
      if ((this.select & (1 << i)) !== 0)
        regs.u8.set(this.#bytes.subarray(i * 16, i * 16 + 16), REG.ZMM + i * VECTOR_STRIDE);
  }
}

/** INIT state of x87, SSE, AVX, AVX-512 and PKRU; XCR0 and IA32_XSS stay at what `xfam` allows. */
export function initializeExtendedState(lp: SeamContext, xfam: number): void {
  enableXfam(lp, xfam);
  const { regs } = lp;
  regs.u32.fill(0, REG.ST / 4, (REG.ST + 128) / 4);
  regs.u32.fill(0, REG.ZMM / 4, (REG.ZMM + 16 * VECTOR_STRIDE) / 4);
  regs.set32(REG.MXCSR, 0x1f80);
  regs.set32(REG.FCW, 0x37f);
  regs.set32(REG.FSW, 0);
  regs.set32(REG.FTW, 0xffff);
  regs.set32(REG.FOP, 0);
  regs.u32.fill(0, REG.FIP / 4, (REG.FDP + 8) / 4);
  regs.set32(REG.PKRU, 0);
}
