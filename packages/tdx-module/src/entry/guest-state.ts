/**
 * Guest state that no VMCS field holds: general-purpose and debug registers, CR2, XCR0 and MSRs. Saved to TDVPS at the
 * TD exit, loaded at TD entry; the VMM gets INIT values, except for what the module restores.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdh_vp_enter.c (restore_guest_td_state_before_td_entry),
 * td_exit.c (save_guest_td_state_before_td_exit, load_vmm_state_before_td_exit).
 */
import { Gpr, REG, type SeamContext, VMCS } from "@swtdx/cpu";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";
import { IA32_FMASK_RESET_STATE, DR6_RESET_STATE } from "../tables/td-vmcs.js";
import { CpuidFlag } from "../tables/td-cpuid.js";
import type { VpContext } from "./vp-context.js";

const MSR = {
  SPEC_CTRL: 0x48,
  UMWAIT_CONTROL: 0xe1,
  TSX_CTRL: 0x122,
  XFD: 0x1c4,
  XFD_ERR: 0x1c5,
  DS_AREA: 0x600,
  XSS: 0xda0,
  LBR_DEPTH: 0x14cf,
  UARCH_MISC_CTL: 0x1b01,
  PERF_GLOBAL_STATUS: 0x38e,
  PERF_GLOBAL_STATUS_RESET: 0x390,
  PERF_GLOBAL_STATUS_SET: 0x391,
} as const;
/** IA32_SPEC_CTRL while the module runs: SSBD and IPRED_DIS_S. */
export const TDX_MODULE_IA32_SPEC_CTRL = 0x14n;
/** IA32_TSX_CTRL for a TD without TSX: RTM_DISABLE and TSX_CPUID_CLEAR. */
const TSX_CTRL_DISABLE = 3n;

/** MSRs of a TD with PERFMON: first number, count, TDVPS field; `scrub`: zeroed at the TD exit. */
const PERFMON_MSRS: readonly { first: number; count: number; at: number; scrub: boolean }[] = [
  { first: 0x38d, count: 1, at: TDVPS.IA32_FIXED_CTR_CTRL.offset, scrub: false },
  { first: 0x309, count: 4, at: TDVPS.IA32_FIXED_CTR.offset, scrub: true },
  { first: 0x4c1, count: 8, at: TDVPS.IA32_A_PMC.offset, scrub: true },
  { first: 0x186, count: 8, at: TDVPS.IA32_PERFEVTSEL.offset, scrub: false },
  { first: 0x1a6, count: 2, at: TDVPS.IA32_OFFCORE_RSP.offset, scrub: true },
  { first: 0x3f1, count: 1, at: TDVPS.IA32_PEBS_ENABLE.offset, scrub: false },
  { first: 0x3f2, count: 1, at: TDVPS.MSR_PEBS_DATA_CFG.offset, scrub: false },
  { first: 0x3f6, count: 1, at: TDVPS.MSR_PEBS_LD_LAT.offset, scrub: false },
  { first: 0x3f7, count: 1, at: TDVPS.MSR_PEBS_FRONTEND.offset, scrub: false },
];

/** Registers that lie in TDVPS as they lie in the register file: field, register, 32-bit words. */
const BLOCKS = [
  { at: TDVPS.GPR.offset, register: REG.GPR / 4, words: 32 },
  // DR0-3 and DR6.
  { at: TDVPS.DR0.offset, register: REG.DR0 / 4, words: 10 },
  { at: TDVPS.CR2.offset, register: REG.CR2 / 4, words: 2 },
  // STAR and LSTAR.
  { at: TDVPS.IA32_STAR.offset, register: REG.STAR / 4, words: 4 },
  { at: TDVPS.IA32_FMASK.offset, register: REG.FMASK / 4, words: 2 },
  { at: TDVPS.IA32_KERNEL_GS_BASE.offset, register: REG.KERNEL_GS_BASE / 4, words: 2 },
  { at: TDVPS.IA32_TSC_AUX.offset, register: REG.TSC_AUX / 4, words: 2 },
] as const;
const RSP = { offset: TDVPS.GPR.offset + 8 * Gpr.RSP, size: 8 } as const;

/** An MSR's value; 0 for one that the processor does not have. */
export function readMsr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}

const hasFlag = (vp: VpContext, flag: number): boolean => vp.tdcs.getAt(TDCS.CPUID_FLAGS, flag) !== 0;
const XFAM_LBR = 1 << 15;
const XFAM_AMX = 3 << 17;

/** What of the VMM's state is given back at the TD exit. */
export function saveVmmState(vp: VpContext): void {
  vp.vmmSpecCtrl = readMsr(vp.lp, MSR.SPEC_CTRL);
  vp.vmmDsArea = readMsr(vp.lp, MSR.DS_AREA);
}

/** The guest's registers as they are in the processor, to TDVPS. */
export function saveGuestState(vp: VpContext): void {
  const { tdvps } = vp;
  const { u32 } = vp.regs;
  for (const { at, register, words } of BLOCKS) tdvps.store32(at, u32, register, words);
  // RSP is in the VMCS.
  tdvps.setHalves(RSP, 0, 0);
  tdvps.setHalves(TDVPS.XCR0, u32[REG.XCR0 / 4], u32[REG.XCR0 / 4 + 1]);
  tdvps.setHalves(TDVPS.IA32_XSS, u32[REG.XSS / 4], u32[REG.XSS / 4 + 1]);
  if ((vp.xfamLow & XFAM_LBR) !== 0) saveMsr(vp, TDVPS.IA32_LBR_DEPTH.offset, MSR.LBR_DEPTH);
  else tdvps.setHalves(TDVPS.IA32_LBR_DEPTH, 0, 0);
  saveMsr(vp, TDVPS.IA32_UARCH_MISC_CTL.offset, MSR.UARCH_MISC_CTL);
  saveMsr(vp, TDVPS.IA32_SPEC_CTRL.offset, MSR.SPEC_CTRL);
  saveMsr(vp, TDVPS.IA32_DS_AREA.offset, MSR.DS_AREA);
  if (hasFlag(vp, CpuidFlag.xfd_supported)) {
    saveMsr(vp, TDVPS.IA32_XFD.offset, MSR.XFD);
    saveMsr(vp, TDVPS.IA32_XFD_ERR.offset, MSR.XFD_ERR);
  }
  if (hasFlag(vp, CpuidFlag.waitpkg_supported))
    saveMsr(vp, TDVPS.IA32_UMWAIT_CONTROL.offset, MSR.UMWAIT_CONTROL);
  if (hasFlag(vp, CpuidFlag.tsx_supported)) saveMsr(vp, TDVPS.IA32_TSX_CTRL.offset, MSR.TSX_CTRL);
  if (vp.perfmon) {
    saveMsr(vp, TDVPS.IA32_PERF_GLOBAL_STATUS.offset, MSR.PERF_GLOBAL_STATUS);
    for (const { first, count, at: offset } of PERFMON_MSRS)
      for (let i = 0; i < count; i++) saveMsr(vp, offset + i * 8, first + i);
  }
}
/** An MSR to TDVPS; 0 for one that the processor does not have. */
function saveMsr({ lp, tdvps }: VpContext, offset: number, index: number): void {
  const low = lp.rdmsrLow(index);
  tdvps.set32(offset, low < 0 ? 0 : low);
  tdvps.set32(offset + 4, low < 0 ? 0 : lp.rdmsrHigh(index));
}

/** The first MSR that refused its value, or -1. */
let failedMsr = -1;
function writeMsr(lp: SeamContext, index: number, value: bigint): void {
  if (lp.wrmsr(index, value).kind === "fault" && failedMsr < 0) failedMsr = index;
}
/** An MSR from TDVPS, unless it has the value already. */
function loadMsr({ lp, tdvps }: VpContext, index: number, offset: number): void {
  const low = tdvps.get32(offset);
  const high = tdvps.get32(offset + 4);
  // One that the processor does not have reads as 0.
  if (Math.max(lp.rdmsrLow(index), 0) !== low || Math.max(lp.rdmsrHigh(index), 0) !== high)
    writeMsr(lp, index, (BigInt(high) << 32n) | BigInt(low));
}

/** Loads the guest's registers from TDVPS. @returns the number of an MSR that faulted, or -1 */
export function restoreGuestState(vp: VpContext): number {
  const { lp, tdvps } = vp;
  const { u32 } = vp.regs;
  failedMsr = -1;
  const [low, high] = [u32[Gpr.RSP * 2], u32[Gpr.RSP * 2 + 1]];
  for (const { at, register, words } of BLOCKS) tdvps.load32(at, u32, register, words);
  u32[Gpr.RSP * 2] = low;
  u32[Gpr.RSP * 2 + 1] = high;
  loadMsr(vp, MSR.DS_AREA, TDVPS.IA32_DS_AREA.offset);
  if ((vp.xfamLow & XFAM_LBR) !== 0) loadMsr(vp, MSR.LBR_DEPTH, TDVPS.IA32_LBR_DEPTH.offset);
  if (vp.perfmon) {
    for (const { first, count, at: offset } of PERFMON_MSRS)
      for (let i = 0; i < count; i++) loadMsr(vp, first + i, offset + i * 8);
    lp.wrmsr(MSR.PERF_GLOBAL_STATUS_RESET, readMsr(lp, MSR.PERF_GLOBAL_STATUS));
    lp.wrmsr(MSR.PERF_GLOBAL_STATUS_SET, tdvps.get(TDVPS.IA32_PERF_GLOBAL_STATUS));
  }
  if (hasFlag(vp, CpuidFlag.waitpkg_supported))
    loadMsr(vp, MSR.UMWAIT_CONTROL, TDVPS.IA32_UMWAIT_CONTROL.offset);
  if (hasFlag(vp, CpuidFlag.tsx_supported)) loadMsr(vp, MSR.TSX_CTRL, TDVPS.IA32_TSX_CTRL.offset);
  else if (vp.platform.tsxCtrl) {
    vp.vmmTsxCtrl = readMsr(lp, MSR.TSX_CTRL);
    if (vp.vmmTsxCtrl !== TSX_CTRL_DISABLE) writeMsr(lp, MSR.TSX_CTRL, TSX_CTRL_DISABLE);
  }
  loadMsr(vp, MSR.UARCH_MISC_CTL, TDVPS.IA32_UARCH_MISC_CTL.offset);
  return failedMsr;
}

/** Control of the extended state, after that state itself. @returns the number of an MSR that faulted, or -1 */
export function restoreExtendedStateControl(vp: VpContext): number {
  const { lp, tdvps } = vp;
  const { u32 } = vp.regs;
  if (u32[REG.XCR0 / 4] !== tdvps.low(TDVPS.XCR0) || tdvps.high(TDVPS.XCR0) !== 0)
    lp.xsetbv(tdvps.get(TDVPS.XCR0));
  if (u32[REG.XSS / 4] !== tdvps.low(TDVPS.IA32_XSS) || tdvps.high(TDVPS.IA32_XSS) !== 0)
    if (lp.wrmsr(MSR.XSS, tdvps.get(TDVPS.IA32_XSS)).kind === "fault") return MSR.XSS;
  if (hasFlag(vp, CpuidFlag.xfd_supported)) {
    if (lp.wrmsr(MSR.XFD, tdvps.get(TDVPS.IA32_XFD)).kind === "fault") return MSR.XFD;
    if (lp.wrmsr(MSR.XFD_ERR, tdvps.get(TDVPS.IA32_XFD_ERR)).kind === "fault") return MSR.XFD_ERR;
  }
  const specCtrl = tdvps.get(TDVPS.IA32_SPEC_CTRL);
  if (specCtrl !== vp.vmmSpecCtrl && lp.wrmsr(MSR.SPEC_CTRL, specCtrl).kind === "fault") return MSR.SPEC_CTRL;
  return -1;
}

function scrub(lp: SeamContext, index: number, value = 0n): void {
  const same =
    value === 0n ? lp.rdmsrLow(index) <= 0 && lp.rdmsrHigh(index) <= 0 : readMsr(lp, index) === value;
  if (!same) lp.wrmsr(index, value);
}

/** Registers that the VMM finds zero: CR2; DR0-3; STAR, LSTAR; KERNEL_GS_BASE; TSC_AUX. Words of the register file. */
const VMM_ZEROS: readonly (readonly [number, number])[] = [
  [REG.CR2 / 4, REG.CR2 / 4 + 2],
  [REG.DR0 / 4, REG.DR6 / 4],
  [REG.STAR / 4, REG.LSTAR / 4 + 2],
  [REG.KERNEL_GS_BASE / 4, REG.KERNEL_GS_BASE / 4 + 2],
  [REG.TSC_AUX / 4, REG.TSC_AUX / 4 + 2],
];

/** The VMM's state: INIT values for what the guest could have left, the VMM's own where the module keeps it. */
export function loadVmmState(vp: VpContext): void {
  const { lp } = vp;
  const { u32 } = vp.regs;
  for (const [from, to] of VMM_ZEROS) for (let i = from; i < to; i++) u32[i] = 0;
  u32[REG.DR6 / 4] = DR6_RESET;
  u32[REG.DR6 / 4 + 1] = 0;
  scrub(lp, MSR.DS_AREA, vp.vmmDsArea);
  if ((vp.xfamLow & XFAM_AMX) !== 0) {
    scrub(lp, MSR.XFD);
    scrub(lp, MSR.XFD_ERR);
  }
  if (vp.perfmon)
    for (const { first, count, scrub: zero } of PERFMON_MSRS)
      if (zero) for (let i = 0; i < count; i++) scrub(lp, first + i);
  scrub(lp, MSR.UARCH_MISC_CTL);
  if (vp.platform.tsxCtrl) scrub(lp, MSR.TSX_CTRL, vp.vmmTsxCtrl);
  u32[REG.FMASK / 4] = FMASK_RESET;
  u32[REG.FMASK / 4 + 1] = 0;
  scrub(lp, MSR.SPEC_CTRL, vp.vmmSpecCtrl);
}
const DR6_RESET = Number(DR6_RESET_STATE);
const FMASK_RESET = Number(IA32_FMASK_RESET_STATE);

const PROC3_VIRTUALIZE_SPEC_CTRL = 1 << 7;
/** Guest IA32_SPEC_CTRL_SHADOW, when the processor virtualises the MSR. */
export function writeSpecCtrlShadow(vp: VpContext): void {
  if ((vp.lp.vmreadLow(VMCS.TERTIARY_VM_EXEC_CONTROL) & PROC3_VIRTUALIZE_SPEC_CTRL) === 0) return;
  const mask = vp.tdcs.get(TDCS.IA32_SPEC_CTRL_MASK);
  vp.lp.vmwrite(VMCS.IA32_SPEC_CTRL_SHADOW, vp.tdvps.get(TDVPS.IA32_SPEC_CTRL) & ~mask);
}
