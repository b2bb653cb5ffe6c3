/** MSRs of an ordinary VM. Source: Linux arch/x86/kvm/vmx/vmx.c (vmx_get_msr, vmx_set_msr), x86.c (kvm_get_msr_common). */
import { REG, type VmcsFieldName } from "@swtdx/cpu";
import { IA32_TSC_DEADLINE } from "../x86/lapic.js";
import { readPlainMsr, writePlainMsr } from "./tdx-msr.js";
import type { VmxVcpu } from "./vmx.js";

const MSR = {
  TSC: 0x10,
  APIC_BASE: 0x1b,
  TSC_ADJUST: 0x3b,
  SPEC_CTRL: 0x48,
  PRED_CMD: 0x49,
  UCODE_REV: 0x8b,
  UMWAIT_CONTROL: 0xe1,
  ARCH_CAPABILITIES: 0x10a,
  FLUSH_CMD: 0x10b,
  PAT: 0x277,
  XSS: 0xda0,
  EFER: 0xc000_0080,
} as const;

/** MSRs that are VMCS fields. */
const FIELDS: ReadonlyMap<number, VmcsFieldName> = new Map([
  [0x174, "GUEST_SYSENTER_CS"],
  [0x175, "GUEST_SYSENTER_ESP"],
  [0x176, "GUEST_SYSENTER_EIP"],
  [0x1d9, "GUEST_IA32_DEBUGCTL"],
  [MSR.PAT, "GUEST_IA32_PAT"],
  [0xc000_0100, "GUEST_FS_BASE"],
  [0xc000_0101, "GUEST_GS_BASE"],
]);
/** MSRs that stay in the processor. */
const REGISTERS: ReadonlyMap<number, number> = new Map([
  [0xc000_0081, REG.STAR],
  [0xc000_0082, REG.LSTAR],
  [0xc000_0083, REG.CSTAR],
  [0xc000_0084, REG.FMASK],
  [0xc000_0102, REG.KERNEL_GS_BASE],
  [0xc000_0103, REG.TSC_AUX],
]);
/**
 * Bits of IA32_ARCH_CAPABILITIES that a guest may see (KVM_SUPPORTED_ARCH_CAP): RDCL_NO, IBRS_ALL, RSBA,
 * SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TSX_CTRL, TAA_NO; SBDR_SSDP_NO, FBSDP_NO, PSDP_NO; FB_CLEAR;
 * RRSBA, BHI_NO; PBRSB_NO; GDS_NO, RFDS_NO, RFDS_CLEAR; ITS_NO.
 */
const SUPPORTED_ARCH_CAPABILITIES =
  0x1ffn | (7n << 13n) | (1n << 17n) | (3n << 19n) | (1n << 24n) | (7n << 26n) | (1n << 62n);

/** MSRs that read as constants and ignore writes, for guests that probe them (kvm_get_msr_common). */
const CONSTANTS: ReadonlyMap<number, bigint> = new Map([
  [0x17, 0n], // IA32_PLATFORM_ID
  [0x2a, 0n], // MSR_IA32_EBL_CR_POWERON
  [0x2c, 1n << 24n], // MSR_EBC_FREQUENCY_ID
  [0x79, 0n], // MSR_IA32_UCODE_WRITE
  [0xc1, 0n], // MSR_P6_PERFCTR0
  [0xc2, 0n],
  [0xcd, 3n], // MSR_FSB_FREQ
  [0x11e, 0xbe70_2111n], // MSR_IA32_BBL_CR_CTL3
  [0x186, 0n], // MSR_P6_EVNTSEL0
  [0x187, 0n],
  [0x198, 1000n | (4n << 40n)], // MSR_IA32_PERF_STATUS
  [0x1db, 0n], // last branch and last exception
  [0x1dc, 0n],
  [0x1dd, 0n],
  [0x1de, 0n],
  [0x606, 0n], // RAPL
  [0x611, 0n],
  [0x619, 0n],
  [0x639, 0n],
  [0x641, 0n],
]);
/** Those that the guest accesses without an exit. */
const PASSED_THROUGH = [0x174, 0x175, 0x176, 0xc000_0100, 0xc000_0101, 0xc000_0102] as const;

/** Bit 1 and the upper half are reserved. */
const UMWAIT_CONTROL_BITS = 0xffff_fffdn;
const EFER_SCE = 0x1n;
const EFER_LME = 0x100n;
const EFER_LMA = 0x400n;
const EFER_NXE = 0x800n;
const CR0_PG = 1n << 31n;
const PAT_TYPES: readonly number[] = [0, 1, 4, 5, 6, 7];
const isLapic = (index: number): boolean => (index >= 0x800 && index <= 0x8ff) || index === IA32_TSC_DEADLINE;
const canonical = (value: bigint): boolean => BigInt.asIntN(57, value) === BigInt.asIntN(64, value);

/** The MSR bitmap: 4096 bytes, a set bit exits. */
export function msrBitmap(): Uint8Array {
  const bitmap = new Uint8Array(4096).fill(0xff);
  for (const index of PASSED_THROUGH) {
    const high = index >= 0xc000_0000;
    const bit = index & 0x1fff;
    for (const base of high ? [1024, 3072] : [0, 2048]) bitmap[base + (bit >> 3)] &= ~(1 << (bit & 7));
  }
  return bitmap;
}

/** RDMSR; null: #GP. */
export function getMsr(vcpu: VmxVcpu, index: number): bigint | null {
  const field = FIELDS.get(index);
  if (field) return vcpu.vmcs.get(field);
  const register = REGISTERS.get(index);
  if (register !== undefined) return vcpu.registers.get(register);
  if (isLapic(index)) return vcpu.apic.readMsr(index);
  switch (index) {
    case MSR.TSC:
      return vcpu.guestTsc();
    case MSR.TSC_ADJUST:
      return vcpu.tscAdjust;
    case MSR.APIC_BASE:
      return vcpu.apic.base;
    case MSR.SPEC_CTRL:
      return vcpu.specCtrl;
    case MSR.ARCH_CAPABILITIES: {
      const host = vcpu.vcpu.lp.rdmsr(index);
      return host.kind === "ok" ? host.value & SUPPORTED_ARCH_CAPABILITIES : null;
    }
    case MSR.UMWAIT_CONTROL:
      return vcpu.hasUserWait ? vcpu.umwaitControl : null;
    case MSR.XSS:
      return vcpu.registers.get(REG.XSS);
    case MSR.EFER:
      return vcpu.vmcs.get("GUEST_IA32_EFER");
    default:
      return readPlainMsr(vcpu.vcpu, index) ?? CONSTANTS.get(index) ?? null;
  }
}

/** WRMSR. @returns false: #GP */
export function setMsr(vcpu: VmxVcpu, index: number, value: bigint): boolean {
  if (index === MSR.PAT && !validPat(value)) return false;
  const field = FIELDS.get(index);
  if (field) {
    if (index >= 0xc000_0000 && !canonical(value)) return false;
    vcpu.vmcs.set(field, value);
    return true;
  }
  const register = REGISTERS.get(index);
  if (register !== undefined) {
    const address = register !== REG.STAR && register !== REG.FMASK && register !== REG.TSC_AUX;
    if (address && !canonical(value)) return false;
    vcpu.registers.set(register, value);
    return true;
  }
  if (isLapic(index)) return vcpu.apic.writeMsr(index, value);
  switch (index) {
    case MSR.TSC:
      vcpu.setGuestTsc(value);
      return true;
    case MSR.TSC_ADJUST:
      vcpu.setGuestTsc(BigInt.asUintN(64, vcpu.guestTsc() + value - vcpu.tscAdjust));
      vcpu.tscAdjust = value;
      return true;
    case MSR.APIC_BASE:
      return vcpu.apic.setBase(value);
    case MSR.SPEC_CTRL:
      vcpu.specCtrl = value;
      return true;
    case MSR.PRED_CMD:
    case MSR.FLUSH_CMD:
      return (value & ~1n) === 0n;
    case MSR.UCODE_REV:
      // Only user space sets the revision; a guest's write, part of reading it, does nothing.
      return true;
    case MSR.UMWAIT_CONTROL:
      if (!vcpu.hasUserWait || (value & ~UMWAIT_CONTROL_BITS) !== 0n) return false;
      vcpu.umwaitControl = value;
      return true;
    case MSR.ARCH_CAPABILITIES:
      return false;
    case MSR.XSS:
      if (value !== 0n) return false;
      vcpu.registers.set(REG.XSS, value);
      return true;
    case MSR.EFER:
      return setEfer(vcpu, value);
    default:
      return CONSTANTS.has(index) || writePlainMsr(vcpu.vcpu, index, value);
  }
}

function setEfer(vcpu: VmxVcpu, value: bigint): boolean {
  const { vmcs } = vcpu;
  if ((value & ~(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)) !== 0n) return false;
  const old = vmcs.get("GUEST_IA32_EFER");
  // LME cannot change while paging is on; LMA is the processor's.
  if (((value ^ old) & EFER_LME) !== 0n && (vmcs.get("GUEST_CR0") & CR0_PG) !== 0n) return false;
  vmcs.set("GUEST_IA32_EFER", (value & ~EFER_LMA) | (old & EFER_LMA));
  return true;
}

function validPat(value: bigint): boolean {
  for (let i = 0n; i < 64n; i += 8n) if (!PAT_TYPES.includes(Number((value >> i) & 0xffn))) return false;
  return true;
}
