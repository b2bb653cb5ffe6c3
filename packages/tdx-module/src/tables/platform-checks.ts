/**
 * What TDH.SYS.INIT demands of the processor and its configuration, and TDH.SYS.LP.INIT of all logical processors.
 *
 * Source: intel/tdx-module 1.5.05 src/vmm_dispatcher/api_calls/tdh_sys_init.c (check_msrs, check_vmx_msrs,
 * check_key_management_config, check_and_store_smrr_smrr2), tdh_sys_lp_init.c, src/common/helpers/virt_msr_helpers.h.
 */
import { GUEST_CR0_INIT, GUEST_CR4_INIT } from "./control-registers.js";

export const MSR = {
  TSC_ADJUST: 0x3b,
  MKTME_KEYID_PARTITIONING: 0x87,
  WBINVDP: 0x98,
  WBNOINVDP: 0x99,
  MISC_PACKAGE_CTLS: 0xbc,
  XAPIC_DISABLE_STATUS: 0xbd,
  CORE_CAPABILITIES: 0xcf,
  MTRRCAP: 0xfe,
  ARCH_CAPABILITIES: 0x10a,
  MISC_ENABLE: 0x1a0,
  SMRR_PHYSBASE: 0x1f2,
  SMRR_PHYSMASK: 0x1f3,
  PERF_CAPABILITIES: 0x345,
  VMX_BASIC: 0x480,
  VMX_MISC: 0x485,
  VMX_CR0_FIXED0: 0x486,
  VMX_CR0_FIXED1: 0x487,
  VMX_CR4_FIXED0: 0x488,
  VMX_CR4_FIXED1: 0x489,
  VMX_PROCBASED_CTLS2: 0x48b,
  VMX_EPT_VPID_CAP: 0x48c,
  VMX_TRUE_PINBASED_CTLS: 0x48d,
  VMX_TRUE_PROCBASED_CTLS: 0x48e,
  VMX_TRUE_EXIT_CTLS: 0x48f,
  VMX_TRUE_ENTRY_CTLS: 0x490,
  VMX_PROCBASED_CTLS3: 0x492,
  TME_CAPABILITY: 0x981,
  TME_ACTIVATE: 0x982,
} as const;

/** Bits of an MSR that must have a value. */
export interface MsrCheck {
  readonly msr: number;
  readonly mask: bigint;
  readonly value: bigint;
}
const bits = (...positions: number[]): bigint =>
  positions.reduce((sum, position) => sum | (1n << BigInt(position)), 0n);
const must = (msr: number, set: bigint, clear = 0n): MsrCheck => ({ msr, mask: set | clear, value: set });

/** Before CPUID is looked at. */
export const MSR_CHECKS: readonly MsrCheck[] = [
  // RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, MISC_PACKAGE_CTLS,
  // ENERGY_FILTERING_CTL, DOITM, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, XAPIC_DISABLE_STATUS; not RSBA, FB_CLEAR_CTRL.
  must(MSR.ARCH_CAPABILITIES, bits(0, 1, 3, 5, 6, 8, 10, 11, 12, 13, 14, 15, 21), bits(2, 18)),
  // The legacy xAPIC mode is off for good.
  { msr: MSR.XAPIC_DISABLE_STATUS, mask: (1n << 64n) - 1n, value: 1n },
  // ENERGY_FILTERING_ENABLE
  must(MSR.MISC_PACKAGE_CTLS, bits(0)),
  // Freezing while in SMM, full-width writes
  must(MSR.PERF_CAPABILITIES, bits(12, 13)),
];
/** LIMIT_CPUID_MAXVAL has a status of its own. */
export const MISC_ENABLE_LIMIT_CPUID_MAXVAL = bits(22);
/** With CPUID: performance monitoring and branch trace storage are there. */
export const MISC_ENABLE_CHECK = must(MSR.MISC_ENABLE, bits(7), bits(11));

/** After the controls of the TD VMCS. */
export const VMX_BASIC_CHECK = must(MSR.VMX_BASIC, bits(54, 55));
export const VMX_CHECKS: readonly MsrCheck[] = [
  // Unrestricted guest, HLT and shutdown states, Intel PT in VMX, VMWRITE to any field
  must(MSR.VMX_MISC, bits(5, 6, 7, 14, 29)),
  must(MSR.VMX_EPT_VPID_CAP, 0x101_0633_4041n),
  // What a TD starts with must be allowed; PE and PG are the guest's in an unrestricted guest.
  must(MSR.VMX_CR0_FIXED0, 0n, ~(GUEST_CR0_INIT | bits(0, 31)) & ((1n << 64n) - 1n)),
  must(MSR.VMX_CR0_FIXED1, GUEST_CR0_INIT),
  must(MSR.VMX_CR4_FIXED0, 0n, ~GUEST_CR4_INIT & ((1n << 64n) - 1n)),
  must(MSR.VMX_CR4_FIXED1, GUEST_CR4_INIT),
];
/** Least number of CR3-target values, VMX_MISC[24:16]. */
export const MIN_CR3_TARGETS = 4n;

/** MTRRCAP: SMRR, and that it can be locked. */
export const MTRRCAP_SMRR = bits(11);
export const MTRRCAP_SMRR_LOCK = bits(14);
/** SMRR_PHYSMASK. */
export const SMRR_LOCKED = bits(10);
export const SMRR_VALID = bits(11);

/** Encryption algorithms: bits of TME_CAPABILITY, and from bit 48 of TME_ACTIVATE. */
export const TME_ALGORITHMS = { WITHOUT_INTEGRITY: bits(0, 2), WITH_INTEGRITY: bits(1, 3) } as const;
export const TME_ACTIVATE_LOCKED = bits(0);
export const TME_ACTIVATE_ALGORITHMS_SHIFT = 48n;

/** Least of the greatest basic and extended CPUID leaves. */
export const MIN_LAST_BASE_LEAF = 0x1f;
export const MIN_LAST_EXTENDED_LEAF = 0x8000_0008;
export const MAX_HKIDS = 2048;
export const MAX_FIXED_CTR = 7;
export const MIN_PERFMON_VERSION = 5;

/** MSRs that are alike on all logical processors, in the order of TDH.SYS.LP.INIT: before CPUID, and after it. */
export const SAME_MSRS_BEFORE_CPUID = [
  MSR.CORE_CAPABILITIES,
  MSR.ARCH_CAPABILITIES,
  MSR.MISC_PACKAGE_CTLS,
  MSR.XAPIC_DISABLE_STATUS,
] as const;
export const SAME_MSRS_AFTER_CPUID = [
  MSR.TSC_ADJUST,
  MSR.MTRRCAP,
  MSR.SMRR_PHYSBASE,
  MSR.SMRR_PHYSMASK,
  MSR.VMX_BASIC,
  MSR.VMX_TRUE_PINBASED_CTLS,
  MSR.VMX_TRUE_PROCBASED_CTLS,
  MSR.VMX_PROCBASED_CTLS2,
  MSR.VMX_PROCBASED_CTLS3,
  MSR.VMX_TRUE_EXIT_CTLS,
  MSR.VMX_TRUE_ENTRY_CTLS,
  MSR.VMX_MISC,
  MSR.VMX_EPT_VPID_CAP,
  MSR.VMX_CR0_FIXED0,
  MSR.VMX_CR0_FIXED1,
  MSR.VMX_CR4_FIXED0,
  MSR.VMX_CR4_FIXED1,
  MSR.PERF_CAPABILITIES,
  MSR.TME_CAPABILITY,
  MSR.TME_ACTIVATE,
  MSR.MKTME_KEYID_PARTITIONING,
  MSR.WBINVDP,
  MSR.WBNOINVDP,
] as const;
