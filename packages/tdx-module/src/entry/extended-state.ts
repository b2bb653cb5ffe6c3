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
const COMPACT = 1n << 63n;
/** Bytes of a register in RegisterFile's vector area. */
const VECTOR_STRIDE = 64;

/** XCR0 and IA32_XSS hold all features of `xfam`. */
function enableXfam(lp: SeamContext, xfam: bigint): void {
  const xcr0 = xfam & XCR0_USER_BIT_MASK;
  if (lp.xgetbv() !== xcr0) lp.xsetbv(xcr0);
  const xss = xfam & XCR0_SUPERVISOR_BIT_MASK;
  if (lp.regs.get(REG.XSS) !== xss) lp.wrmsr(IA32_XSS, xss);
}

export function saveGuestExtendedState(vp: VpContext): void {
  enableXfam(vp.lp, vp.xfam);
  vp.lp.xsaves(xbuff(vp), vp.hkid, vp.xfam);
}

const xbuff = (vp: VpContext): Hpa => vp.tdvps.pa(TDVPS.XBUFF.offset);
const header = new Uint8Array(64);
const header64 = new BigUint64Array(header.buffer);

/**
 * Loads the guest's extended state.
 * @returns false when the saved area is corrupt: TD entry fails (XSTATE load failure)
 */
export function restoreGuestExtendedState(vp: VpContext): boolean {
  const { lp, xfam } = vp;
  lp.read((xbuff(vp) + XSTATE_BV) as Hpa, vp.hkid, header);
  const xstateBv = header64[0];
  const xcompBv = header64[1];
  if ((xcompBv & COMPACT) === 0n || (xcompBv & ~COMPACT & ~xfam) !== 0n || (xstateBv & ~xcompBv) !== 0n)
    return false;
  for (let i = 2; i < 8; i++) if (header64[i] !== 0n) return false;
  enableXfam(lp, xfam);
  lp.xrstors(xbuff(vp), vp.hkid, xfam);
  return true;
}

/** A fresh area: all components in INIT state, compacted format. */
export function initXbuff(tdvps: TdvpsStructure): void {
  tdvps.lp.writeU64((tdvps.pa(TDVPS.XBUFF.offset) + XCOMP_BV) as Hpa, tdvps.keyId, COMPACT);
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
export function initializeExtendedState(lp: SeamContext, xfam: bigint): void {
  enableXfam(lp, xfam);
  const { regs } = lp;
  regs.u8.fill(0, REG.ST, REG.ST + 128);
  regs.u8.fill(0, REG.ZMM, REG.ZMM + 16 * VECTOR_STRIDE);
  regs.set32(REG.MXCSR, 0x1f80);
  regs.set32(REG.FCW, 0x37f);
  regs.set32(REG.FSW, 0);
  regs.set32(REG.FTW, 0xffff);
  regs.set32(REG.FOP, 0);
  regs.set(REG.FIP, 0n);
  regs.set(REG.FDP, 0n);
  regs.set32(REG.PKRU, 0);
}
