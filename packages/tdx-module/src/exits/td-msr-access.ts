/**
 * VM exits of RDMSR and WRMSR: by table, with a few MSRs emulated.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_msr_access.c.
 */
import { TD_CTLS } from "@swtdx/abi";
import { Gpr, VMCS } from "@swtdx/cpu";
import { readMsr } from "../entry/guest-state.js";
import type { VpContext } from "../entry/vp-context.js";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";
import { findMsrEntry, isMsrCoveredByBitmap, msrActionOf } from "../tables/msr.js";
import { CpuidFlag } from "../tables/td-cpuid.js";
import { VIRT_IA32_ARCH_CAPABILITIES_OFFSET, VIRTUAL_VMX_MSR_OFFSET } from "../tables/virtual-msrs.js";

/** What becomes of the instruction: done, #GP(0) or #VE. */
export type MsrAccess = "done" | "GP" | "VE";

const MSR = {
  MKTME_KEYID_PARTITIONING: 0x87,
  XAPIC_DISABLE_STATUS: 0xbd,
  ARCH_CAPABILITIES: 0x10a,
  MISC_ENABLE: 0x1a0,
  DEBUGCTL: 0x1d9,
  PLATFORM_DCA_CAP: 0x1f8,
  DCA_0_CAP: 0x1fa,
  PERF_CAPABILITIES: 0x345,
  TSC_DEADLINE: 0x6e0,
  X2APIC_APICID: 0x802,
  XSS: 0xda0,
  EFER: 0xc0000080,
} as const;

const PERFMON = 1n << 63n;
const flag = (vp: VpContext, name: keyof typeof CpuidFlag): boolean =>
  vp.tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag[name]) !== 0;

function result(vp: VpContext, value: bigint): MsrAccess {
  vp.regs.setGpr(Gpr.RAX, value & 0xffff_ffffn);
  vp.regs.setGpr(Gpr.RDX, value >> 32n);
  return "done";
}
const operand = (vp: VpContext): bigint =>
  (BigInt(vp.regs.get32(Gpr.RDX * 8)) << 32n) | BigInt(vp.regs.get32(Gpr.RAX * 8));

export function tdRdmsrExit(vp: VpContext): MsrAccess {
  const index = vp.regs.get32(Gpr.RCX * 8);
  if (!isMsrCoveredByBitmap(index)) return "VE";
  const perfmon = (vp.attributes & PERFMON) !== 0n;
  switch (index) {
    case MSR.DEBUGCTL:
      // Bit 13, ENABLE_UNCORE_PMI, is the VMM's.
      return result(vp, vp.lp.vmread(VMCS.GUEST_IA32_DEBUGCTL) & ~(1n << 13n));
    case MSR.MISC_ENABLE:
      if (perfmon) vp.fatalError("RDMSR of IA32_MISC_ENABLE exited");
      // Bit 7: performance monitoring, bit 12: PEBS unavailable.
      return result(vp, (readMsr(vp.lp, index) & ~(1n << 7n)) | (1n << 12n));
    case MSR.PERF_CAPABILITIES:
      // Bit 16: PEBS output to PT.
      return result(vp, perfmon ? vp.platform.perfCapabilities & ~(1n << 16n) : 0n);
    case MSR.ARCH_CAPABILITIES:
      return result(vp, vp.tdcs.get({ offset: VIRT_IA32_ARCH_CAPABILITIES_OFFSET, size: 8 }));
    case MSR.XAPIC_DISABLE_STATUS:
      return result(vp, 1n);
    case MSR.X2APIC_APICID:
      if ((vp.tdcs.get(TDCS.TD_CTLS) & TD_CTLS.ENUM_TOPOLOGY) === 0n) return "VE";
      return result(vp, BigInt(vp.tdvps.get(TDVPS.X2APIC_ID)));
  }
  const virtual = VIRTUAL_VMX_MSR_OFFSET.get(index);
  if (virtual !== undefined) return result(vp, vp.tdcs.get({ offset: virtual, size: 8 }));
  return genericCase(vp, index, false);
}

export function tdWrmsrExit(vp: VpContext): MsrAccess {
  const index = vp.regs.get32(Gpr.RCX * 8);
  if (!isMsrCoveredByBitmap(index)) return "VE";
  switch (index) {
    case MSR.XSS:
      return wrmsrXss(vp, operand(vp));
    case MSR.DEBUGCTL:
      return wrmsrDebugctl(vp, operand(vp));
    case MSR.EFER:
      return wrmsrEfer(vp, operand(vp));
    default:
      return genericCase(vp, index, true);
  }
}

function genericCase(vp: VpContext, index: number, write: boolean): MsrAccess {
  const row = findMsrEntry(index);
  if (row === null) return "VE";
  const behaviour = write ? (row[4] ?? row[3]) : row[3];
  if (behaviour === "NATIVE") vp.fatalError(`exit of MSR 0x${index.toString(16)}, which is native`);
  switch (msrActionOf(behaviour)) {
    case "VE":
      return "VE";
    case "GP":
      return "GP";
    case "GP_OR_VE":
      return msrExistsForTd(vp, index) ? "VE" : "GP";
    default:
      return vp.fatalError(`MSR 0x${index.toString(16)} has no handler`);
  }
}

/** MSRs that virtual CPUID says exist are for the VMM to emulate. */
function msrExistsForTd(vp: VpContext, index: number): boolean {
  if (index >= MSR.PLATFORM_DCA_CAP && index <= MSR.DCA_0_CAP) return flag(vp, "dca_supported");
  if (index === MSR.MKTME_KEYID_PARTITIONING) return flag(vp, "pconfig_supported");
  if (index === MSR.TSC_DEADLINE) return flag(vp, "tsc_deadline_supported");
  return flag(vp, "tme_supported");
}

function wrmsrXss(vp: VpContext, value: bigint): MsrAccess {
  if ((value & ~(vp.platform.xssSupported & vp.xfam)) !== 0n) return "GP";
  vp.lp.wrmsr(MSR.XSS, value);
  vp.tdvps.set(TDVPS.IA32_XSS, value);
  return "done";
}

/** Reserved: bits 5:3 (with bit 2 bus-lock detect allowed) and 63:16. */
const DEBUGCTL_RESERVED = 0xffff_ffff_ffff_0038n;

function wrmsrDebugctl(vp: VpContext, value: bigint): MsrAccess {
  const { lp } = vp;
  if ((value & DEBUGCTL_RESERVED) !== 0n) return "GP";
  // TR without BTS: LBRs to be sent as messages.
  if ((value & (1n << 6n)) !== 0n && (value & (1n << 7n)) === 0n) return "VE";
  if ((value & (1n << 14n)) !== 0n && (vp.attributes & PERFMON) === 0n) return "GP";
  if ((value & (1n << 15n)) !== 0n && !flag(vp, "tsx_supported")) return "GP";
  const old = lp.vmread(VMCS.GUEST_IA32_DEBUGCTL);
  lp.vmwrite(VMCS.GUEST_IA32_DEBUGCTL, (value & ~(1n << 13n)) | (old & (1n << 13n)));
  if ((lp.vmread(VMCS.GUEST_RFLAGS) & (1n << 8n)) !== 0n && ((value ^ old) & 2n) !== 0n) {
    const pending = lp.vmread(VMCS.GUEST_PENDING_DBG_EXCEPTIONS) & ~(1n << 14n);
    lp.vmwrite(VMCS.GUEST_PENDING_DBG_EXCEPTIONS, pending | (((old >> 1n) & 1n) << 14n));
  }
  return "done";
}

const EFER_SCE = 1n;
const EFER_LMA = 1n << 10n;

/** Only SCE may change; LMA is read-only. */
function wrmsrEfer(vp: VpContext, value: bigint): MsrAccess {
  const old = vp.lp.vmread(VMCS.GUEST_IA32_EFER);
  const next = (value & ~EFER_LMA) | (old & EFER_LMA);
  if ((next & ~EFER_SCE) !== (old & ~EFER_SCE)) return "VE";
  vp.lp.vmwrite(VMCS.GUEST_IA32_EFER, next);
  return "done";
}
