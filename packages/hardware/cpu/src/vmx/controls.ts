/**
 * VMX controls: their bits and what this processor allows (IA32_VMX_* capability MSRs).
 * Intel SDM vol. 3C section 25.6-25.8, vol. 3D appendix A. What is allowed covers what Intel's TDX module wants of a
 * processor (src/common/x86_defs/vmcs_defs.h); bits whose feature is not modelled at all (APIC accesses, VMCS shadowing, PML,
 * sub-page permissions) are not offered.
 */
import { VMCS_REGION_SIZE, VMCS_REVISION } from "./vmcs.js";

export const PIN = {
  EXTERNAL_INTERRUPT_EXITING: 0x1,
  NMI_EXITING: 0x8,
  VIRTUAL_NMIS: 0x20,
  PREEMPTION_TIMER: 0x40,
  PROCESS_POSTED_INTERRUPTS: 0x80,
} as const;

export const PROC = {
  INTERRUPT_WINDOW_EXITING: 0x4,
  USE_TSC_OFFSETTING: 0x8,
  HLT_EXITING: 0x80,
  INVLPG_EXITING: 0x200,
  MWAIT_EXITING: 0x400,
  RDPMC_EXITING: 0x800,
  RDTSC_EXITING: 0x1000,
  CR3_LOAD_EXITING: 0x8000,
  CR3_STORE_EXITING: 0x10000,
  ACTIVATE_TERTIARY: 0x20000,
  CR8_LOAD_EXITING: 0x80000,
  CR8_STORE_EXITING: 0x100000,
  TPR_SHADOW: 0x200000,
  NMI_WINDOW_EXITING: 0x400000,
  MOV_DR_EXITING: 0x800000,
  UNCONDITIONAL_IO_EXITING: 0x1000000,
  USE_IO_BITMAPS: 0x2000000,
  MONITOR_TRAP_FLAG: 0x8000000,
  USE_MSR_BITMAPS: 0x10000000,
  MONITOR_EXITING: 0x20000000,
  PAUSE_EXITING: 0x40000000,
  ACTIVATE_SECONDARY: 0x80000000,
} as const;

export const PROC2 = {
  VIRTUALIZE_APIC_ACCESSES: 0x1,
  ENABLE_EPT: 0x2,
  DESCRIPTOR_TABLE_EXITING: 0x4,
  ENABLE_RDTSCP: 0x8,
  VIRTUALIZE_X2APIC_MODE: 0x10,
  ENABLE_VPID: 0x20,
  WBINVD_EXITING: 0x40,
  UNRESTRICTED_GUEST: 0x80,
  APIC_REGISTER_VIRTUALIZATION: 0x100,
  VIRTUAL_INTERRUPT_DELIVERY: 0x200,
  PAUSE_LOOP_EXITING: 0x400,
  RDRAND_EXITING: 0x800,
  ENABLE_INVPCID: 0x1000,
  ENABLE_VMFUNC: 0x2000,
  ENCLS_EXITING: 0x8000,
  RDSEED_EXITING: 0x10000,
  EPT_VIOLATION_VE: 0x40000,
  CONCEAL_VMX_FROM_PT: 0x80000,
  ENABLE_XSAVES: 0x100000,
  PASID_TRANSLATION: 0x200000,
  MODE_BASED_EXECUTE: 0x400000,
  PT_USES_GPA: 0x1000000,
  TSC_SCALING: 0x2000000,
  ENABLE_USER_WAIT_PAUSE: 0x4000000,
  ENABLE_PCONFIG: 0x8000000,
  ENCLV_EXITING: 0x10000000,
  BUS_LOCK_DETECTION: 0x40000000,
  NOTIFICATION_EXITING: 0x80000000,
} as const;

export const PROC3 = {
  LOADIWKEY_EXITING: 0x1,
  ENABLE_HLAT: 0x2,
  EPT_PAGING_WRITE: 0x4,
  GUEST_PAGING_VERIFICATION: 0x8,
  IPI_VIRTUALIZATION: 0x10,
  /** Guest-physical address width of a TD: 0 is 48 bits (shared bit 47), 1 is 52 bits (shared bit 51). */
  GPAW: 0x20,
  VIRTUALIZE_SPEC_CTRL: 0x80,
} as const;

export const EXIT = {
  SAVE_DEBUG_CONTROLS: 0x4,
  HOST_ADDRESS_SPACE_SIZE: 0x200,
  LOAD_PERF_GLOBAL_CTRL: 0x1000,
  ACK_INTERRUPT: 0x8000,
  SAVE_PAT: 0x40000,
  LOAD_PAT: 0x80000,
  SAVE_EFER: 0x100000,
  LOAD_EFER: 0x200000,
  SAVE_PREEMPTION_TIMER: 0x400000,
  CONCEAL_VMX_FROM_PT: 0x1000000,
  CLEAR_RTIT_CTL: 0x2000000,
  CLEAR_LBR_CTL: 0x4000000,
  CLEAR_UINV: 0x8000000,
  LOAD_CET: 0x10000000,
  LOAD_PKRS: 0x20000000,
  SAVE_PERF_GLOBAL_CTRL: 0x40000000,
} as const;

export const ENTRY = {
  LOAD_DEBUG_CONTROLS: 0x4,
  IA32E_MODE_GUEST: 0x200,
  ENTRY_TO_SMM: 0x400,
  DEACTIVATE_DUAL_MONITOR: 0x800,
  LOAD_PERF_GLOBAL_CTRL: 0x2000,
  LOAD_PAT: 0x4000,
  LOAD_EFER: 0x8000,
  CONCEAL_VMX_FROM_PT: 0x20000,
  LOAD_RTIT_CTL: 0x40000,
  LOAD_UINV: 0x80000,
  LOAD_CET: 0x100000,
  LOAD_LBR_CTL: 0x200000,
  LOAD_PKRS: 0x400000,
} as const;

/** What may be 0 and what may be 1: bits of `fixed1` must be 1, bits outside `allowed1` must be 0. */
export interface AllowedControls {
  readonly fixed1: number;
  readonly allowed1: number;
}
/** The TRUE capability MSRs. */
export const ALLOWED = {
  pin: { fixed1: 0x16, allowed1: 0xff },
  proc: { fixed1: 0x04006172, allowed1: 0xfffbfffe },
  proc2: { fixed1: 0, allowed1: 0xdf7dbffe },
  exit: { fixed1: 0x00036dfb, allowed1: 0x7f7fffff },
  entry: { fixed1: 0x000011fb, allowed1: 0x007ef3ff },
} as const satisfies Record<string, AllowedControls>;
/** Without the TRUE MSRs more bits must be 1. */
const DEFAULT1 = { pin: 0x16, proc: 0x0401e172, exit: 0x00036dff, entry: 0x000011ff } as const;
/** Tertiary controls, 64 bits: low half; nothing above. */
export const ALLOWED_PROC3 = 0xae;

const pair = (fixed1: number, allowed1: number): bigint =>
  (BigInt(allowed1 >>> 0) << 32n) | BigInt(fixed1 >>> 0);

export const CR0_FIXED0 = 0x80000021;
export const CR0_FIXED1 = 0xffffffff;
export const CR4_FIXED0 = 0x2000;
/** VME..PCE, OSFXSR, OSXMMEXCPT, UMIP, LA57, VMXE, SMXE, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, CET, PKS, UINTR. */
export const CR4_FIXED1 = 0x3f77fff;

/** CR3-target values, IA32_VMX_MISC[24:16]. */
export const CR3_TARGETS = 4;
/** The preemption timer counts when this bit of the TSC changes, IA32_VMX_MISC[4:0]. */
export const PREEMPTION_TIMER_SHIFT = 5;
/** Recommended maximum number of MSRs in a list: 512. */
export const MSR_LIST_MAX = 512;

/** Values of the capability MSRs, by number. */
export const VMX_CAPABILITY_MSRS: ReadonlyMap<number, bigint> = new Map([
  // Revision, region size, memory type WB, INS/OUTS information, TRUE controls, no error code consistency for #CP.
  [
    0x480,
    BigInt(VMCS_REVISION) |
      (BigInt(VMCS_REGION_SIZE) << 32n) |
      (6n << 50n) |
      (1n << 54n) |
      (1n << 55n) |
      (1n << 56n),
  ],
  [0x481, pair(DEFAULT1.pin, ALLOWED.pin.allowed1)],
  [0x482, pair(DEFAULT1.proc, ALLOWED.proc.allowed1)],
  [0x483, pair(DEFAULT1.exit, ALLOWED.exit.allowed1)],
  [0x484, pair(DEFAULT1.entry, ALLOWED.entry.allowed1)],
  // EFER.LMA stored on exit, HLT, shutdown, wait-for-SIPI, PT in VMX, CR3 targets, VMWRITE to any field, zero length.
  [
    0x485,
    BigInt(PREEMPTION_TIMER_SHIFT) |
      0x1e0n |
      (1n << 14n) |
      (BigInt(CR3_TARGETS) << 16n) |
      (1n << 29n) |
      (1n << 30n),
  ],
  [0x486, BigInt(CR0_FIXED0)],
  [0x487, BigInt(CR0_FIXED1)],
  [0x488, BigInt(CR4_FIXED0)],
  [0x489, BigInt(CR4_FIXED1)],
  [0x48a, 0x2en],
  [0x48b, pair(ALLOWED.proc2.fixed1, ALLOWED.proc2.allowed1)],
  // Execute-only, 4 and 5 levels, UC, WB, 2M, 1G, INVEPT (single, all), A/D, advanced information, INVVPID (all types).
  [0x48c, 0xf01_067341c1n],
  [0x48d, pair(ALLOWED.pin.fixed1, ALLOWED.pin.allowed1)],
  [0x48e, pair(ALLOWED.proc.fixed1, ALLOWED.proc.allowed1)],
  [0x48f, pair(ALLOWED.exit.fixed1, ALLOWED.exit.allowed1)],
  [0x490, pair(ALLOWED.entry.fixed1, ALLOWED.entry.allowed1)],
  [0x491, 0n],
  [0x492, BigInt(ALLOWED_PROC3)],
]);

/** Basic exit reasons. Intel SDM vol. 3D appendix C. */
export const ExitReason = {
  EXCEPTION_OR_NMI: 0,
  EXTERNAL_INTERRUPT: 1,
  TRIPLE_FAULT: 2,
  INIT: 3,
  SIPI: 4,
  INTERRUPT_WINDOW: 7,
  NMI_WINDOW: 8,
  TASK_SWITCH: 9,
  CPUID: 10,
  GETSEC: 11,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  RSM: 17,
  VMCALL: 18,
  VMCLEAR: 19,
  VMLAUNCH: 20,
  VMPTRLD: 21,
  VMPTRST: 22,
  VMREAD: 23,
  VMRESUME: 24,
  VMWRITE: 25,
  VMXOFF: 26,
  VMXON: 27,
  CR_ACCESS: 28,
  DR_ACCESS: 29,
  IO_INSTRUCTION: 30,
  MSR_READ: 31,
  MSR_WRITE: 32,
  INVALID_GUEST_STATE: 33,
  MSR_LOADING: 34,
  MWAIT: 36,
  MONITOR_TRAP_FLAG: 37,
  MONITOR: 39,
  PAUSE: 40,
  MCE_DURING_ENTRY: 41,
  TPR_BELOW_THRESHOLD: 43,
  APIC_ACCESS: 44,
  VIRTUALIZED_EOI: 45,
  GDTR_IDTR: 46,
  LDTR_TR: 47,
  EPT_VIOLATION: 48,
  EPT_MISCONFIG: 49,
  INVEPT: 50,
  RDTSCP: 51,
  PREEMPTION_TIMER: 52,
  INVVPID: 53,
  WBINVD: 54,
  XSETBV: 55,
  APIC_WRITE: 56,
  RDRAND: 57,
  INVPCID: 58,
  VMFUNC: 59,
  ENCLS: 60,
  RDSEED: 61,
  PML_FULL: 62,
  XSAVES: 63,
  XRSTORS: 64,
  PCONFIG: 65,
  SPP: 66,
  UMWAIT: 67,
  TPAUSE: 68,
  LOADIWKEY: 69,
  ENCLV: 70,
  BUS_LOCK: 74,
  NOTIFY: 75,
  SEAMCALL: 76,
  TDCALL: 77,
} as const;
export const EXIT_REASON_NAMES: readonly string[] = (() => {
  const names: string[] = [];
  for (const [name, value] of Object.entries(ExitReason)) names[value] = name;
  return names;
})();

/** VM-instruction error numbers. Intel SDM vol. 3C section 31.4. */
export const VmxError = {
  VMCALL_IN_ROOT: 1,
  VMCLEAR_INVALID_ADDRESS: 2,
  VMCLEAR_VMXON_POINTER: 3,
  VMLAUNCH_NOT_CLEAR: 4,
  VMRESUME_NOT_LAUNCHED: 5,
  VMRESUME_AFTER_VMXOFF: 6,
  ENTRY_INVALID_CONTROL: 7,
  ENTRY_INVALID_HOST_STATE: 8,
  VMPTRLD_INVALID_ADDRESS: 9,
  VMPTRLD_VMXON_POINTER: 10,
  VMPTRLD_WRONG_REVISION: 11,
  UNSUPPORTED_FIELD: 12,
  VMWRITE_READ_ONLY: 13,
  VMXON_IN_ROOT: 15,
  ENTRY_EVENTS_BLOCKED_BY_MOVSS: 26,
  INVALID_INVEPT_INVVPID_OPERAND: 28,
} as const;
