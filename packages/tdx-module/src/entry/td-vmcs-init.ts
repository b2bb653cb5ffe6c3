/**
 * Initialization of a TD VMCS at TDH.VP.INIT (and of its host part when the vCPU moves to another logical processor).
 *
 * Source: intel/tdx-module 1.5.05 src/common/data_structures/td_vmcs_init.c, src/common/helpers/helpers.c
 * (prepare_td_vmcs).
 */
import { TD_ATTRIBUTES, type Hpa, type HpaAndKeyId } from "@swtdx/abi";
import { REG, type SeamContext, VMCS } from "@swtdx/cpu";
import { TDCS, TdcsPage, type TdcsStructure } from "../structures/tdcs.js";
import { TdvpsPage, TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import {
  cr0GuestHostMask,
  cr0ReadShadow,
  cr4GuestHostMask,
  cr4ReadShadow,
  type CrFixedBits,
} from "../tables/control-registers.js";
import { CpuidFlag } from "../tables/td-cpuid.js";
import {
  composeVpid,
  ENTRY_LOAD_PERF_GLOBAL_CTRL,
  ENTRY_LOAD_PKRS,
  EXIT_LOAD_PERF_GLOBAL_CTRL,
  EXIT_SAVE_PERF_GLOBAL_CTRL,
  NULL_PA,
  PROCBASED2_ENCLV_EXITING,
  PROCBASED2_PCONFIG,
  PROCBASED2_USER_WAIT_PAUSE,
  PROCBASED3_GPAW,
  PROCBASED3_VIRT_SPEC_CTRL,
  PROCBASED_MONITOR_EXITING,
  PROCBASED_MWAIT_EXITING,
  PROCBASED_RDPMC_EXITING,
  TD_VMCS_CONSTANTS,
  TD_VMCS_GUEST_STATE,
  type TdVmcsValues,
} from "../tables/td-vmcs.js";

/** What of the platform a TD VMCS depends on. */
export interface TdVmcsPlatform {
  readonly tdVmcsValues: TdVmcsValues;
  readonly crFixed: CrFixedBits;
  /** CPUID(7,2).EDX.DDPD_U of the processor. */
  readonly ddpdSupported: boolean;
  readonly keyIdShift: number;
  /** IA32_VMX_BASIC[30:0]. */
  readonly vmcsRevisionId: number;
}

const put = (value: bigint, mask: bigint, on: boolean): bigint => (on ? value | mask : value & ~mask);

/** HPA of the TD VMCS with the TD's HKID. */
export const tdVmcsAddress = (tdvps: TdvpsStructure, keyIdShift: number): HpaAndKeyId =>
  (tdvps.vmcsPa + tdvps.keyId * 2 ** keyIdShift) as HpaAndKeyId;

/** Writes the revision identifier into the VMCS region and clears the VMCS: not launched. */
export function prepareTdVmcs(lp: SeamContext, tdvps: TdvpsStructure, platform: TdVmcsPlatform): void {
  lp.writeU32(tdvps.vmcsPa, tdvps.keyId, platform.vmcsRevisionId & 0x7fff_ffff);
  lp.writeU32((tdvps.vmcsPa + 4) as Hpa, tdvps.keyId, 0);
  lp.vmclear(tdVmcsAddress(tdvps, platform.keyIdShift));
  tdvps.setAt(TDVPS.VM_LAUNCHED, 0, 0);
}

/** Fills the VMCS, which is current. Fields of value 0 keep the zeros that TDH.VP.ADDCX wrote. */
export function initTdVmcs(
  lp: SeamContext,
  tdcs: TdcsStructure,
  tdvps: TdvpsStructure,
  platform: TdVmcsPlatform,
): void {
  for (const [field, value] of TD_VMCS_GUEST_STATE) lp.vmwrite(field, value);
  for (const [field, value] of TD_VMCS_CONSTANTS) lp.vmwrite(field, value);
  if ((platform.tdVmcsValues.procbased2 & PROCBASED2_ENCLV_EXITING) !== 0n)
    lp.vmwrite(VMCS.ENCLV_EXITING_BITMAP, (1n << 64n) - 1n);
  initHostState(lp);
  initAddressFields(lp, tdcs, tdvps, platform.keyIdShift);
  initControls(lp, tdcs, platform);
  initControlRegisterMasks(lp, tdcs, platform.crFixed);
  lp.vmwrite(VMCS.TSC_MULTIPLIER, tdcs.get(TDCS.TSC_MULTIPLIER));
  lp.vmwrite(VMCS.TSC_OFFSET, tdcs.get(TDCS.TSC_OFFSET));
  // The walk's KeyID is the HKID field's; the address has none.
  lp.vmwrite(VMCS.EPT_POINTER, BigInt.asUintN(platform.keyIdShift, tdcs.get(TDCS.EPTP)));
  lp.vmwrite(VMCS.VIRTUAL_PROCESSOR_ID, BigInt(composeVpid(0, tdcs.tdr.hkid)));
}

/** The module's own state, for VM exits. */
export function initHostState(lp: SeamContext): void {
  const { regs } = lp;
  lp.vmwrite(VMCS.HOST_CR0, regs.get(REG.CR0));
  lp.vmwrite(VMCS.HOST_CR3, regs.get(REG.CR3));
  lp.vmwrite(VMCS.HOST_CR4, regs.get(REG.CR4));
  lp.vmwrite(VMCS.HOST_CS_SELECTOR, 0x8n);
  lp.vmwrite(VMCS.HOST_SS_SELECTOR, 0x10n);
  lp.vmwrite(VMCS.HOST_FS_SELECTOR, 0n);
  lp.vmwrite(VMCS.HOST_GS_SELECTOR, 0n);
  lp.vmwrite(VMCS.HOST_TR_SELECTOR, 0x18n);
  lp.vmwrite(VMCS.HOST_IA32_PAT, regs.get(REG.PAT));
  lp.vmwrite(VMCS.HOST_IA32_EFER, regs.get(REG.EFER));
  lp.vmwrite(VMCS.HOST_RSP, regs.gpr(4));
  lp.vmwrite(VMCS.HOST_RIP, regs.get(REG.RIP));
}

/** Pages of TDCS and TDVPS that the processor itself reads and writes, under the TD's key. */
export function initAddressFields(
  lp: SeamContext,
  tdcs: TdcsStructure,
  tdvps: TdvpsStructure,
  keyIdShift: number,
): void {
  const key = BigInt(tdvps.keyId) << BigInt(keyIdShift);
  const zeroPage = BigInt(tdcs.page(TdcsPage.ZERO)) | key;
  lp.vmwrite(VMCS.VIRTUAL_APIC_PAGE_ADDR, BigInt(tdvps.page(TdvpsPage.VAPIC)) | key);
  lp.vmwrite(VMCS.MSR_BITMAP, BigInt(tdcs.page(TdcsPage.MSR_BITMAPS)) | key);
  lp.vmwrite(VMCS.VE_INFORMATION_ADDRESS, BigInt(tdvps.page(TdvpsPage.VE_INFO)) | key);
  lp.vmwrite(VMCS.LOW_PASID_DIRECTORY, zeroPage);
  lp.vmwrite(VMCS.HIGH_PASID_DIRECTORY, zeroPage);
  lp.vmwrite(VMCS.SHARED_EPT_POINTER, zeroPage);
  lp.vmwrite(VMCS.TD_HKID, BigInt(tdvps.keyId));
}

function initControls(lp: SeamContext, tdcs: TdcsStructure, platform: TdVmcsPlatform): void {
  const base = platform.tdVmcsValues;
  const attributes = tdcs.get(TDCS.ATTRIBUTES);
  const has = (bit: bigint): boolean => (attributes & bit) !== 0n;
  const flag = (name: keyof typeof CpuidFlag): boolean => tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag[name]) !== 0;
  const perf = has(TD_ATTRIBUTES.PERFMON) || has(TD_ATTRIBUTES.DEBUG);
  const pkrs = has(TD_ATTRIBUTES.PKS) || has(TD_ATTRIBUTES.DEBUG);
  lp.vmwrite(
    VMCS.VM_EXIT_CONTROLS,
    put(base.exit, EXIT_LOAD_PERF_GLOBAL_CTRL | EXIT_SAVE_PERF_GLOBAL_CTRL, perf),
  );
  lp.vmwrite(
    VMCS.VM_ENTRY_CONTROLS,
    put(put(base.entry, ENTRY_LOAD_PERF_GLOBAL_CTRL, perf), ENTRY_LOAD_PKRS, pkrs),
  );
  lp.vmwrite(VMCS.PIN_BASED_VM_EXEC_CONTROL, base.pinbased);
  let procbased = put(
    base.procbased,
    PROCBASED_MWAIT_EXITING | PROCBASED_MONITOR_EXITING,
    !flag("monitor_mwait_supported"),
  );
  procbased = put(procbased, PROCBASED_RDPMC_EXITING, !has(TD_ATTRIBUTES.PERFMON));
  lp.vmwrite(VMCS.CPU_BASED_VM_EXEC_CONTROL, procbased);
  let procbased2 = put(base.procbased2, PROCBASED2_USER_WAIT_PAUSE, flag("waitpkg_supported"));
  procbased2 = put(procbased2, PROCBASED2_PCONFIG, flag("pconfig_supported"));
  lp.vmwrite(VMCS.SECONDARY_VM_EXEC_CONTROL, procbased2);
  let procbased3 = put(base.procbased3, PROCBASED3_GPAW, tdcs.get(TDCS.GPAW) !== 0);
  if (platform.ddpdSupported !== flag("ddpd_supported")) procbased3 |= PROCBASED3_VIRT_SPEC_CTRL;
  lp.vmwrite(VMCS.TERTIARY_VM_EXEC_CONTROL, procbased3);
  if ((procbased3 & PROCBASED3_VIRT_SPEC_CTRL) !== 0n)
    lp.vmwrite(VMCS.IA32_SPEC_CTRL_MASK, tdcs.get(TDCS.IA32_SPEC_CTRL_MASK));
}

function initControlRegisterMasks(lp: SeamContext, tdcs: TdcsStructure, fixed: CrFixedBits): void {
  lp.vmwrite(VMCS.CR0_GUEST_HOST_MASK, cr0GuestHostMask(fixed));
  lp.vmwrite(VMCS.CR0_READ_SHADOW, cr0ReadShadow(fixed));
  lp.vmwrite(
    VMCS.CR4_GUEST_HOST_MASK,
    cr4GuestHostMask(fixed, tdcs.get(TDCS.ATTRIBUTES), tdcs.get(TDCS.XFAM)),
  );
  lp.vmwrite(VMCS.CR4_READ_SHADOW, cr4ReadShadow(fixed));
}

/** Shadow fields of a new TDVPS: what TDH.VP.RD shows of VMCS fields, and "no address" where there is none. */
export function initTdvpsFields(tdvps: TdvpsStructure, platform: TdVmcsPlatform): void {
  tdvps.set(TDVPS.SHADOW_PID_HPA, NULL_PA);
  tdvps.set(TDVPS.SHADOW_PINBASED_EXEC_CTLS, Number(platform.tdVmcsValues.pinbased));
  tdvps.set(TDVPS.SHADOW_POSTED_INT_NOTIFICATION_VECTOR, 0xffff);
  tdvps.setAt(TDVPS.SHADOW_PROCBASED_EXEC_CTLS2, 0, Number(platform.tdVmcsValues.procbased2));
  tdvps.setAt(TDVPS.SHADOW_SHARED_EPTP, 0, NULL_PA);
  tdvps.setAt(TDVPS.TSC_DEADLINE, 0, NULL_PA);
}
