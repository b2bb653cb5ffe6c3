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

/** GPRs, DR0-3, DR6, XCR0, CR2: contiguous in TDVPS. */
const REGISTERS_SIZE = TDVPS.CR2.offset + 8 - TDVPS.GPR.offset;
const registers = new Uint8Array(REGISTERS_SIZE);
const registers64 = new BigUint64Array(registers.buffer);
const at = (offset: number): number => (offset - TDVPS.GPR.offset) >> 3;
const DR = at(TDVPS.DR0.offset);
const DR6 = at(TDVPS.DR6.offset);
const XCR0 = at(TDVPS.XCR0.offset);
const CR2 = at(TDVPS.CR2.offset);
/** IA32_XSS, LBR_DEPTH, UARCH_MISC_CTL, STAR, LSTAR, FMASK, KERNEL_GS_BASE, TSC_AUX: contiguous in TDVPS. */
const msrs = new Uint8Array(64);
const msrs64 = new BigUint64Array(msrs.buffer);

/** An MSR's value; 0 for one that the processor does not have. */
export function readMsr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}

const hasFlag = (vp: VpContext, flag: keyof typeof CpuidFlag): boolean =>
  vp.tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag[flag]) !== 0;
const hasLbr = (vp: VpContext): boolean => (vp.xfam & (1n << 15n)) !== 0n;
const hasPerfmon = (vp: VpContext): boolean => vp.attributes >> 63n !== 0n;

/** What of the VMM's state is given back at the TD exit. */
export function saveVmmState(vp: VpContext): void {
  vp.vmmSpecCtrl = readMsr(vp.lp, MSR.SPEC_CTRL);
  vp.vmmDsArea = readMsr(vp.lp, MSR.DS_AREA);
}

/** The guest's registers as they are in the processor, to TDVPS. */
export function saveGuestState(vp: VpContext): void {
  const { lp, regs, tdvps } = vp;
  for (let i = 0; i < 16; i++) registers64[i] = i === Gpr.RSP ? 0n : regs.gpr(i);
  for (let i = 0; i < 4; i++) registers64[DR + i] = regs.get(REG.DR0 + i * 8);
  registers64[DR6] = regs.get(REG.DR6);
  registers64[XCR0] = lp.xgetbv();
  registers64[CR2] = regs.get(REG.CR2);
  lp.write(tdvps.pa(TDVPS.GPR.offset), tdvps.keyId, registers);
  msrs64[0] = readMsr(lp, MSR.XSS);
  msrs64[1] = hasLbr(vp) ? readMsr(lp, MSR.LBR_DEPTH) : 0n;
  msrs64[2] = readMsr(lp, MSR.UARCH_MISC_CTL);
  msrs64[3] = regs.get(REG.STAR);
  msrs64[4] = regs.get(REG.LSTAR);
  msrs64[5] = regs.get(REG.FMASK);
  msrs64[6] = regs.get(REG.KERNEL_GS_BASE);
  msrs64[7] = regs.get(REG.TSC_AUX);
  lp.write(tdvps.pa(TDVPS.IA32_XSS.offset), tdvps.keyId, msrs);
  tdvps.set(TDVPS.IA32_SPEC_CTRL, readMsr(lp, MSR.SPEC_CTRL));
  tdvps.set(TDVPS.IA32_DS_AREA, readMsr(lp, MSR.DS_AREA));
  if (hasFlag(vp, "xfd_supported")) {
    tdvps.set(TDVPS.IA32_XFD, readMsr(lp, MSR.XFD));
    tdvps.set(TDVPS.IA32_XFD_ERR, readMsr(lp, MSR.XFD_ERR));
  }
  if (hasFlag(vp, "waitpkg_supported")) tdvps.set(TDVPS.IA32_UMWAIT_CONTROL, readMsr(lp, MSR.UMWAIT_CONTROL));
  if (hasFlag(vp, "tsx_supported")) tdvps.set(TDVPS.IA32_TSX_CTRL, readMsr(lp, MSR.TSX_CTRL));
  if (hasPerfmon(vp)) {
    tdvps.set(TDVPS.IA32_PERF_GLOBAL_STATUS, readMsr(lp, MSR.PERF_GLOBAL_STATUS));
    for (const { first, count, at: offset } of PERFMON_MSRS)
      for (let i = 0; i < count; i++) tdvps.set({ offset: offset + i * 8, size: 8 }, readMsr(lp, first + i));
  }
}

/** The first MSR that refused its value, or -1. */
let failedMsr = -1;
function loadMsr(lp: SeamContext, index: number, value: bigint): void {
  if (readMsr(lp, index) === value) return;
  if (lp.wrmsr(index, value).kind === "fault" && failedMsr < 0) failedMsr = index;
}

/** Loads the guest's registers from TDVPS. @returns the number of an MSR that faulted, or -1 */
export function restoreGuestState(vp: VpContext): number {
  const { lp, regs, tdvps } = vp;
  failedMsr = -1;
  lp.read(tdvps.pa(TDVPS.GPR.offset), tdvps.keyId, registers);
  for (let i = 0; i < 16; i++) if (i !== Gpr.RSP) regs.setGpr(i, registers64[i]);
  for (let i = 0; i < 4; i++) regs.set(REG.DR0 + i * 8, registers64[DR + i]);
  regs.set(REG.DR6, registers64[DR6]);
  regs.set(REG.CR2, registers64[CR2]);
  lp.read(tdvps.pa(TDVPS.IA32_XSS.offset), tdvps.keyId, msrs);
  loadMsr(lp, MSR.DS_AREA, tdvps.get(TDVPS.IA32_DS_AREA));
  if (hasLbr(vp)) loadMsr(lp, MSR.LBR_DEPTH, msrs64[1]);
  if (hasPerfmon(vp)) {
    for (const { first, count, at: offset } of PERFMON_MSRS)
      for (let i = 0; i < count; i++) loadMsr(lp, first + i, tdvps.get({ offset: offset + i * 8, size: 8 }));
    lp.wrmsr(MSR.PERF_GLOBAL_STATUS_RESET, readMsr(lp, MSR.PERF_GLOBAL_STATUS));
    lp.wrmsr(MSR.PERF_GLOBAL_STATUS_SET, tdvps.get(TDVPS.IA32_PERF_GLOBAL_STATUS));
  }
  if (hasFlag(vp, "waitpkg_supported")) loadMsr(lp, MSR.UMWAIT_CONTROL, tdvps.get(TDVPS.IA32_UMWAIT_CONTROL));
  if (hasFlag(vp, "tsx_supported")) loadMsr(lp, MSR.TSX_CTRL, tdvps.get(TDVPS.IA32_TSX_CTRL));
  else if (vp.platform.tsxCtrl) {
    vp.vmmTsxCtrl = readMsr(lp, MSR.TSX_CTRL);
    loadMsr(lp, MSR.TSX_CTRL, TSX_CTRL_DISABLE);
  }
  loadMsr(lp, MSR.UARCH_MISC_CTL, msrs64[2]);
  regs.set(REG.STAR, msrs64[3]);
  regs.set(REG.LSTAR, msrs64[4]);
  regs.set(REG.FMASK, msrs64[5]);
  regs.set(REG.KERNEL_GS_BASE, msrs64[6]);
  regs.set(REG.TSC_AUX, msrs64[7]);
  return failedMsr;
}

/** Control of the extended state, after that state itself. @returns the number of an MSR that faulted, or -1 */
export function restoreExtendedStateControl(vp: VpContext): number {
  const { lp, tdvps } = vp;
  lp.xsetbv(tdvps.get(TDVPS.XCR0));
  if (lp.wrmsr(MSR.XSS, tdvps.get(TDVPS.IA32_XSS)).kind === "fault") return MSR.XSS;
  if (hasFlag(vp, "xfd_supported")) {
    if (lp.wrmsr(MSR.XFD, tdvps.get(TDVPS.IA32_XFD)).kind === "fault") return MSR.XFD;
    if (lp.wrmsr(MSR.XFD_ERR, tdvps.get(TDVPS.IA32_XFD_ERR)).kind === "fault") return MSR.XFD_ERR;
  }
  const specCtrl = tdvps.get(TDVPS.IA32_SPEC_CTRL);
  if (specCtrl !== vp.vmmSpecCtrl && lp.wrmsr(MSR.SPEC_CTRL, specCtrl).kind === "fault") return MSR.SPEC_CTRL;
  return -1;
}

function scrub(lp: SeamContext, index: number, value = 0n): void {
  if (readMsr(lp, index) !== value) lp.wrmsr(index, value);
}

/** The VMM's state: INIT values for what the guest could have left, the VMM's own where the module keeps it. */
export function loadVmmState(vp: VpContext): void {
  const { lp, regs } = vp;
  regs.set(REG.CR2, 0n);
  for (let i = 0; i < 4; i++) regs.set(REG.DR0 + i * 8, 0n);
  regs.set(REG.DR6, DR6_RESET_STATE);
  scrub(lp, MSR.DS_AREA, vp.vmmDsArea);
  if ((vp.xfam & (3n << 17n)) !== 0n) {
    scrub(lp, MSR.XFD);
    scrub(lp, MSR.XFD_ERR);
  }
  if (hasPerfmon(vp))
    for (const { first, count, scrub: zero } of PERFMON_MSRS)
      if (zero) for (let i = 0; i < count; i++) scrub(lp, first + i);
  scrub(lp, MSR.UARCH_MISC_CTL);
  if (vp.platform.tsxCtrl) scrub(lp, MSR.TSX_CTRL, vp.vmmTsxCtrl);
  regs.set(REG.STAR, 0n);
  regs.set(REG.LSTAR, 0n);
  regs.set(REG.FMASK, IA32_FMASK_RESET_STATE);
  regs.set(REG.KERNEL_GS_BASE, 0n);
  regs.set(REG.TSC_AUX, 0n);
  scrub(lp, MSR.SPEC_CTRL, vp.vmmSpecCtrl);
}

/** Guest IA32_SPEC_CTRL_SHADOW, when the processor virtualises the MSR. */
export function writeSpecCtrlShadow(vp: VpContext): void {
  if ((vp.lp.vmread(VMCS.TERTIARY_VM_EXEC_CONTROL) & (1n << 7n)) === 0n) return;
  const mask = vp.tdcs.get(TDCS.IA32_SPEC_CTRL_MASK);
  vp.lp.vmwrite(VMCS.IA32_SPEC_CTRL_SHADOW, vp.tdvps.get(TDVPS.IA32_SPEC_CTRL) & ~mask);
}
