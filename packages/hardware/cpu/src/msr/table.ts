/**
 * The MSRs of a logical processor: number, value at reset, and the rule that a WRMSR has to satisfy.
 * Intel SDM vol. 4 (architectural MSRs, table 2-2; Xeon Scalable 4th generation), vol. 3D appendix A (VMX).
 * An MSR that is not here, or a rule that is not kept, gives #GP(0).
 */
import { VMX_CAPABILITY_MSRS } from "../vmx/controls.js";

/**
 * How an MSR behaves.
 * - "ro": WRMSR gives #GP.
 * - "mask": bits outside `writable` must be 0.
 * - "keep": bits outside `writable` keep their value.
 * - "canonical": the value must be a canonical address.
 * - "lock": as "mask", and #GP once bit `lock` is set.
 * - a name: special, see `msr-file.ts`.
 */
export type MsrRule =
  | "ro"
  | "mask"
  | "keep"
  | "canonical"
  | "lock"
  | "tsc"
  | "tscAdjust"
  | "tscDeadline"
  | "apicBase"
  | "efer"
  | "pat"
  | "mtrrType"
  | "mtrrFixed"
  | "debugctl"
  | "tmeActivate"
  | "keyIdPartitioning"
  | "seamrrBase"
  | "seamrrMask"
  | "predCmd"
  | "command"
  | "interruptPending"
  | "xss"
  | "seamOnly"
  | "mcStatus"
  | "register"
  | "segmentBase";

export interface MsrDefinition {
  readonly index: number;
  readonly name: string;
  readonly rule: MsrRule;
  readonly reset: bigint;
  readonly writable: bigint;
  readonly lock: number;
  /** One for the package, not per logical processor. */
  readonly package: boolean;
}

const ALL = 0xffff_ffff_ffff_ffffn;
const definitions: MsrDefinition[] = [];
const msr = (
  index: number,
  name: string,
  rule: MsrRule,
  options: { reset?: bigint; writable?: bigint; lock?: number; package?: boolean } = {},
): void => {
  definitions.push({
    index,
    name,
    rule,
    reset: options.reset ?? 0n,
    writable: options.writable ?? ALL,
    lock: options.lock ?? -1,
    package: options.package ?? false,
  });
};

msr(0x0, "IA32_P5_MC_ADDR", "mask");
msr(0x1, "IA32_P5_MC_TYPE", "mask");
msr(0x10, "IA32_TIME_STAMP_COUNTER", "tsc");
msr(0x17, "IA32_PLATFORM_ID", "ro", { reset: 0x10000000000000n });
msr(0x1b, "IA32_APIC_BASE", "apicBase", { reset: 0xfee00c00n });
msr(0x33, "MSR_TEST_CTRL", "mask", { writable: 0xf0000000n });
msr(0x34, "MSR_SMI_COUNT", "ro");
msr(0x3a, "IA32_FEATURE_CONTROL", "lock", { writable: 0x16ff07n, lock: 0 });
msr(0x3b, "IA32_TSC_ADJUST", "tscAdjust");
// IBRS, STIBP, SSBD, IPRED_DIS_U/S, RRSBA_DIS_U/S, PSFD, DDPD_U, BHI_DIS_S.
msr(0x48, "IA32_SPEC_CTRL", "mask", { writable: 0x5ffn });
msr(0x49, "IA32_PRED_CMD", "predCmd", { writable: 1n });
msr(0x79, "IA32_BIOS_UPDT_TRIG", "command");
msr(0x87, "IA32_MKTME_KEYID_PARTITIONING", "keyIdPartitioning", { package: true });
msr(0x8b, "IA32_BIOS_SIGN_ID", "keep", { reset: 0x2b00_0620_0000_0000n, writable: 0n });
for (let i = 0; i < 4; i++) msr(0x8c + i, `IA32_SGXLEPUBKEYHASH${i}`, "mask");
msr(0x98, "IA32_WBINVDP", "seamOnly", { reset: 1n });
msr(0x99, "IA32_WBNOINVDP", "seamOnly", { reset: 1n });
msr(0x9a, "IA32_INTR_PENDING", "interruptPending");
msr(0x9b, "IA32_SMM_MONITOR_CTL", "mask", { writable: 0n });
msr(0x9e, "IA32_SMBASE", "ro", { reset: 0x30000n });
// The energy filter is on: firmware of TDX servers enables it and the TDX module insists on it.
msr(0xbc, "IA32_MISC_PACKAGE_CTLS", "mask", { reset: 1n, writable: 1n, package: true });
msr(0xbd, "IA32_XAPIC_DISABLE_STATUS", "ro", { reset: 1n, package: true });
for (let i = 0; i < 8; i++) msr(0xc1 + i, `IA32_PMC${i}`, "mask", { writable: 0xffff_ffff_ffffn });
msr(0xce, "MSR_PLATFORM_INFO", "ro", { reset: 0x1400n });
// Split-lock disable is supported.
msr(0xcf, "IA32_CORE_CAPABILITIES", "ro", { reset: 0x20n });
msr(0xe1, "IA32_UMWAIT_CONTROL", "mask", { writable: 0xfffffffdn });
msr(0xe7, "IA32_MPERF", "mask");
msr(0xe8, "IA32_APERF", "mask");
// 10 variable ranges, fixed ranges, WC, SMRR and its lock, SEAMRR.
msr(0xfe, "IA32_MTRRCAP", "ro", { reset: 0xcd0an });
// RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, MISC_PACKAGE_CTLS, ENERGY_FILTERING_CTL,
// DOITM, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, RRSBA, XAPIC_DISABLE_STATUS, PBRSB_NO.
msr(0x10a, "IA32_ARCH_CAPABILITIES", "ro", { reset: 0x128fd6bn });
msr(0x10b, "IA32_FLUSH_CMD", "predCmd", { writable: 1n });
msr(0x140, "MSR_MISC_FEATURES_ENABLES", "mask", { writable: 1n });
msr(0x174, "IA32_SYSENTER_CS", "register");
msr(0x175, "IA32_SYSENTER_ESP", "register");
msr(0x176, "IA32_SYSENTER_EIP", "register");
// 8 banks, no MCG_CTL; CMCI, TES, SER, LMCE.
msr(0x179, "IA32_MCG_CAP", "ro", { reset: 0x9000c08n });
msr(0x17a, "IA32_MCG_STATUS", "mask", { writable: 0xfn });
for (let i = 0; i < 8; i++) msr(0x186 + i, `IA32_PERFEVTSEL${i}`, "mask", { writable: 0xffffffffn });
msr(0x198, "IA32_PERF_STATUS", "ro", { reset: 0x1400n });
msr(0x199, "IA32_PERF_CTL", "mask");
msr(0x19a, "IA32_CLOCK_MODULATION", "mask", { writable: 0x1fn });
msr(0x19b, "IA32_THERM_INTERRUPT", "mask", { writable: 0x3fff_ffffn });
msr(0x19c, "IA32_THERM_STATUS", "mask", { reset: 0x883c0000n });
msr(0x1a0, "IA32_MISC_ENABLE", "mask", { reset: 0x850089n, writable: 0x4_00c5_0089n });
msr(0x1a2, "MSR_TEMPERATURE_TARGET", "ro", { reset: 0x640000n });
msr(0x1a4, "MSR_MISC_FEATURE_CONTROL", "mask", { writable: 0x3fn });
msr(0x1a6, "MSR_OFFCORE_RSP_0", "mask");
msr(0x1a7, "MSR_OFFCORE_RSP_1", "mask");
msr(0x1ad, "MSR_TURBO_RATIO_LIMIT", "ro", { reset: 0x2323232323232323n });
msr(0x1b0, "IA32_ENERGY_PERF_BIAS", "mask", { reset: 6n, writable: 0xfn });
msr(0x1b1, "IA32_PACKAGE_THERM_STATUS", "mask", { reset: 0x883c0000n });
msr(0x1b2, "IA32_PACKAGE_THERM_INTERRUPT", "mask", { writable: 0x3ffffffn });
msr(0x1d9, "IA32_DEBUGCTL", "debugctl", { writable: 0xffc7n });
msr(0x1f2, "IA32_SMRR_PHYSBASE", "mask", { writable: 0xfffff0ffn });
msr(0x1f3, "IA32_SMRR_PHYSMASK", "lock", { writable: 0xfffffc00n, lock: 10 });
msr(0x1fc, "MSR_POWER_CTL", "mask");
for (let i = 0; i < 10; i++) {
  msr(0x200 + 2 * i, `IA32_MTRR_PHYSBASE${i}`, "mtrrType", { writable: 0xf_ffff_ffff_f0ffn });
  msr(0x201 + 2 * i, `IA32_MTRR_PHYSMASK${i}`, "mask", { writable: 0xf_ffff_ffff_f800n });
}
for (const index of [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f])
  msr(index, `IA32_MTRR_FIX_${index.toString(16)}`, "mtrrFixed");
msr(0x277, "IA32_PAT", "pat", { reset: 0x0007040600070406n });
for (let i = 0; i < 8; i++) msr(0x280 + i, `IA32_MC${i}_CTL2`, "mask", { writable: 0x40007fffn });
msr(0x2ff, "IA32_MTRR_DEF_TYPE", "mtrrType", { writable: 0xcffn });
for (let i = 0; i < 4; i++) msr(0x309 + i, `IA32_FIXED_CTR${i}`, "mask", { writable: 0xffff_ffff_ffffn });
msr(0x329, "MSR_PERF_METRICS", "mask");
// Full-width counter writes, architectural LBR format.
msr(0x345, "IA32_PERF_CAPABILITIES", "ro", { reset: 0x303fn });
msr(0x38d, "IA32_FIXED_CTR_CTRL", "mask", { writable: 0xbbbbn });
msr(0x38e, "IA32_PERF_GLOBAL_STATUS", "ro");
msr(0x38f, "IA32_PERF_GLOBAL_CTRL", "mask", { reset: 0xffn, writable: 0x1_000f_0000_00ffn });
msr(0x390, "IA32_PERF_GLOBAL_STATUS_RESET", "command");
msr(0x391, "IA32_PERF_GLOBAL_STATUS_SET", "command");
msr(0x3f1, "IA32_PEBS_ENABLE", "mask");
msr(0x3f2, "MSR_PEBS_DATA_CFG", "mask");
msr(0x3f6, "MSR_PEBS_LD_LAT", "mask", { writable: 0xffffn });
msr(0x3f7, "MSR_PEBS_FRONTEND", "mask");
for (let i = 0; i < 8; i++) {
  msr(0x400 + 4 * i, `IA32_MC${i}_CTL`, "mask", { reset: ALL });
  msr(0x401 + 4 * i, `IA32_MC${i}_STATUS`, "mcStatus");
  msr(0x402 + 4 * i, `IA32_MC${i}_ADDR`, "mcStatus");
  msr(0x403 + 4 * i, `IA32_MC${i}_MISC`, "mcStatus");
}
for (const [index, value] of VMX_CAPABILITY_MSRS)
  msr(index, `IA32_VMX_${index.toString(16)}`, "ro", { reset: value });
for (let i = 0; i < 8; i++) msr(0x4c1 + i, `IA32_A_PMC${i}`, "mask", { writable: 0xffff_ffff_ffffn });
msr(0x560, "IA32_RTIT_OUTPUT_BASE", "mask");
msr(0x561, "IA32_RTIT_OUTPUT_MASK_PTRS", "mask", { reset: 0x7fn });
msr(0x570, "IA32_RTIT_CTL", "mask");
msr(0x571, "IA32_RTIT_STATUS", "mask");
msr(0x572, "IA32_RTIT_CR3_MATCH", "mask");
for (let i = 0; i < 4; i++) msr(0x580 + i, `IA32_RTIT_ADDR${i}`, "canonical");
msr(0x600, "IA32_DS_AREA", "canonical");
msr(0x6a0, "IA32_U_CET", "mask", { writable: 0xffff_ffff_ffff_fc3fn });
msr(0x6a2, "IA32_S_CET", "mask", { writable: 0xffff_ffff_ffff_fc3fn });
for (let i = 0; i < 4; i++) msr(0x6a4 + i, `IA32_PL${i}_SSP`, "canonical");
msr(0x6a8, "IA32_INTERRUPT_SSP_TABLE_ADDR", "canonical");
msr(0x6e0, "IA32_TSC_DEADLINE", "tscDeadline");
msr(0x6e1, "IA32_PKRS", "mask", { writable: 0xffffffffn });
// AES-XTS-128 with and without integrity; 6 KeyID bits, 63 keys.
msr(0x981, "IA32_TME_CAPABILITY", "ro", { reset: 0x3f6_0000_0003n, package: true });
msr(0x982, "IA32_TME_ACTIVATE", "tmeActivate", { package: true });
msr(0x983, "IA32_TME_EXCLUDE_MASK", "mask", { package: true });
msr(0x984, "IA32_TME_EXCLUDE_BASE", "mask", { package: true });
msr(0xda0, "IA32_XSS", "xss");
for (let i = 0; i < 32; i++) {
  msr(0x1200 + i, `IA32_LBR_${i}_INFO`, "mask");
  msr(0x1500 + i, `IA32_LBR_${i}_FROM_IP`, "mask");
  msr(0x1600 + i, `IA32_LBR_${i}_TO_IP`, "mask");
}
msr(0x1400, "IA32_SEAMRR_BASE", "seamrrBase", { writable: 0xf_ffff_fe00_0008n, package: true });
msr(0x1401, "IA32_SEAMRR_MASK", "seamrrMask", { writable: 0xf_ffff_fe00_0c00n, package: true });
msr(0x14ce, "IA32_LBR_CTL", "mask", { writable: 0x7f000fn });
msr(0x14cf, "IA32_LBR_DEPTH", "mask", { reset: 32n, writable: 0x38n });
msr(0x1b01, "IA32_UARCH_MISC_CTL", "mask", { writable: 1n });
msr(0xc0000080, "IA32_EFER", "efer");
msr(0xc0000081, "IA32_STAR", "register");
msr(0xc0000082, "IA32_LSTAR", "register");
msr(0xc0000083, "IA32_CSTAR", "register");
msr(0xc0000084, "IA32_FMASK", "register");
msr(0xc0000100, "IA32_FS_BASE", "segmentBase");
msr(0xc0000101, "IA32_GS_BASE", "segmentBase");
msr(0xc0000102, "IA32_KERNEL_GS_BASE", "register");
msr(0xc0000103, "IA32_TSC_AUX", "register");

export const MSR_TABLE: readonly MsrDefinition[] = definitions;
