/**
 * How MSRs are virtualised: for each range what RDMSR and WRMSR by the guest do. An MSR in no row raises #VE both ways.
 *
 * Source: intel/tdx-module 1.5.05 include/auto_gen/msr_config_lookup.c.
 */
import type { TdFeatures } from "./td-features.js";

/** What an access that is not native comes to. OTHER: emulated by the module, see exits/td-msr-access.ts. */
export type MsrAction = "GP" | "VE" | "GP_OR_VE" | "OTHER";
/** The feature of the TD that makes an access native. OTHER: see `isMsrNative`. */
export type MsrFeature =
  "PERFMON" | "XFAM_CET" | "XFAM_PT" | "XFAM_ULI" | "XFAM_LBR" | "UMWAIT" | "PKS" | "XFD" | "TSX" | "OTHER";
/** "F:A": native if the TD has feature F, else action A. */
export type MsrBehaviour = "NATIVE" | MsrAction | `${MsrFeature}:${MsrAction}`;

/** First and last index of the range, name, RDMSR, WRMSR (when different). */
export type MsrRow = readonly [
  first: number,
  last: number,
  name: string,
  read: MsrBehaviour,
  write?: MsrBehaviour,
];

/** Ascending, without overlap. */
// prettier-ignore
export const MSR_LOOKUP: readonly MsrRow[] = [
  [0x10, 0x10, "IA32_TIME_STAMP_COUNTER", "NATIVE", "VE"],
  [0x48, 0x48, "IA32_SPEC_CTRL", "NATIVE"],
  [0x49, 0x49, "IA32_PRED_CMD", "NATIVE"],
  [0x87, 0x87, "IA32_MKTME_PARTITIONING", "GP_OR_VE"],
  [0x8c, 0x8f, "IA32_SGXLEPUBKEYHASHx", "GP"],
  [0x98, 0x98, "MSR_WBINVDP", "GP"],
  [0x99, 0x99, "MSR_WBNOINVDP", "GP"],
  [0x9a, 0x9a, "MSR_INTR_PENDING", "GP"],
  [0x9b, 0x9b, "IA32_SMM_MONITOR_CTL", "GP"],
  [0x9e, 0x9e, "IA32_SMBASE", "GP"],
  [0xbc, 0xbc, "IA32_MISC_PACKAGE_CTLS", "NATIVE", "VE"],
  [0xbd, 0xbd, "IA32_XAPIC_DISABLE_STATUS", "OTHER", "NATIVE"],
  [0xc1, 0xc8, "IA32_PMCx", "PERFMON:GP"],
  [0xe1, 0xe1, "IA32_UMWAIT_CONTROL", "UMWAIT:GP"],
  [0x10a, 0x10a, "IA32_ARCH_CAPABILITIES", "OTHER", "NATIVE"],
  [0x10b, 0x10b, "IA32_FLUSH_CMD", "NATIVE"],
  [0x122, 0x122, "IA32_TSX_CTRL", "TSX:GP"],
  [0x174, 0x174, "IA32_SYSENTER_CS", "NATIVE"],
  [0x175, 0x175, "IA32_SYSENTER_ESP", "NATIVE"],
  [0x176, 0x176, "IA32_SYSENTER_EIP", "NATIVE"],
  [0x186, 0x18d, "IA32_PERFEVTSELx", "PERFMON:GP"],
  [0x195, 0x195, "IA32_OVERCLOCKING_STATUS", "GP"],
  [0x1a0, 0x1a0, "IA32_MISC_ENABLE", "PERFMON:OTHER", "VE"],
  [0x1a6, 0x1a7, "MSR_OFFCORE_RSPx", "PERFMON:GP"],
  [0x1c4, 0x1c4, "IA32_XFD", "XFD:GP"],
  [0x1c5, 0x1c5, "IA32_XFD_ERR", "XFD:GP"],
  [0x1d9, 0x1d9, "IA32_DEBUGCTL", "OTHER"],
  [0x1f8, 0x1f8, "IA32_PLATFORM_DCA_CAP", "GP_OR_VE"],
  [0x1f9, 0x1f9, "IA32_CPU_DCA_CAP", "GP_OR_VE"],
  [0x1fa, 0x1fa, "IA32_DCA_0_CAP", "GP_OR_VE"],
  [0x276, 0x276, "MSR_SLAM_ENABLE", "GP"],
  [0x277, 0x277, "IA32_PAT", "NATIVE"],
  [0x309, 0x310, "IA32_FIXED_CTRx", "PERFMON:GP"],
  [0x329, 0x329, "IA32_PERF_METRICS", "OTHER:GP"],
  [0x345, 0x345, "IA32_PERF_CAPABILITIES", "OTHER:OTHER", "PERFMON:GP"],
  [0x38d, 0x38d, "IA32_FIXED_CTR_CTRL", "PERFMON:GP"],
  [0x38e, 0x38e, "IA32_PERF_GLOBAL_STATUS", "PERFMON:GP"],
  [0x38f, 0x38f, "IA32_PERF_GLOBAL_CTRL", "PERFMON:GP"],
  [0x390, 0x390, "IA32_PERF_GLOBAL_STATUS_RESET", "PERFMON:GP"],
  [0x391, 0x391, "IA32_PERF_GLOBAL_STATUS_SET", "PERFMON:GP"],
  [0x392, 0x392, "IA32_PERF_GLOBAL_INUSE", "PERFMON:GP"],
  [0x3f1, 0x3f1, "IA32_PEBS_ENABLE", "PERFMON:GP"],
  [0x3f2, 0x3f2, "MSR_PEBS_MATRIX_VECT", "PERFMON:GP"],
  [0x3f6, 0x3f6, "MSR_PEBS_LD_LATENCY", "PERFMON:GP"],
  [0x3f7, 0x3f7, "MSR_PEBS_FRONTEND", "PERFMON:GP"],
  [0x480, 0x480, "IA32_VMX_BASIC", "OTHER", "GP"],
  [0x481, 0x481, "IA32_VMX_PINBASED_CTLS", "VE", "GP"],
  [0x482, 0x482, "IA32_VMX_PROCBASED_CTLS", "VE", "GP"],
  [0x483, 0x483, "IA32_VMX_EXIT_CTLS", "VE", "GP"],
  [0x484, 0x484, "IA32_VMX_ENTRY_CTLS", "VE", "GP"],
  [0x485, 0x485, "IA32_VMX_MISC", "OTHER", "GP"],
  [0x486, 0x486, "IA32_VMX_CR0_FIXED0", "OTHER", "GP"],
  [0x487, 0x487, "IA32_VMX_CR0_FIXED1", "OTHER", "GP"],
  [0x488, 0x488, "IA32_VMX_CR4_FIXED0", "OTHER", "GP"],
  [0x489, 0x489, "IA32_VMX_CR4_FIXED1", "OTHER", "GP"],
  [0x48a, 0x48a, "IA32_VMX_VMCS_ENUM", "VE", "GP"],
  [0x48b, 0x48b, "IA32_VMX_PROCBASED_CTLS2", "OTHER", "GP"],
  [0x48c, 0x48c, "IA32_VMX_EPT_VPID_CAP", "OTHER", "GP"],
  [0x48d, 0x48d, "IA32_VMX_TRUE_PINBASED_CTLS", "OTHER", "GP"],
  [0x48e, 0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS", "OTHER", "GP"],
  [0x48f, 0x48f, "IA32_VMX_TRUE_EXIT_CTLS", "OTHER", "GP"],
  [0x490, 0x490, "IA32_VMX_TRUE_ENTRY_CTLS", "OTHER", "GP"],
  [0x491, 0x491, "IA32_VMX_VMFUNC", "OTHER", "GP"],
  [0x492, 0x492, "IA32_VMX_PROCBASED_CTLS3", "OTHER", "GP"],
  [0x4c1, 0x4c8, "IA32_A_PMCx", "PERFMON:GP"],
  [0x500, 0x500, "IA32_SGX_SVN_STATUS", "GP"],
  [0x560, 0x560, "IA32_RTIT_OUTPUT_BASE", "XFAM_PT:GP"],
  [0x561, 0x561, "IA32_RTIT_OUTPUT_MASK_PTRS", "XFAM_PT:GP"],
  [0x570, 0x570, "IA32_RTIT_CTL", "XFAM_PT:GP"],
  [0x571, 0x571, "IA32_RTIT_STATUS", "XFAM_PT:GP"],
  [0x572, 0x572, "IA32_RTIT_CR3_MATCH", "XFAM_PT:GP"],
  [0x580, 0x580, "IA32_RTIT_ADDR0_A", "XFAM_PT:GP"],
  [0x581, 0x581, "IA32_RTIT_ADDR0_B", "XFAM_PT:GP"],
  [0x582, 0x582, "IA32_RTIT_ADDR1_A", "XFAM_PT:GP"],
  [0x583, 0x583, "IA32_RTIT_ADDR1_B", "XFAM_PT:GP"],
  [0x584, 0x584, "IA32_RTIT_ADDR2_A", "XFAM_PT:GP"],
  [0x585, 0x585, "IA32_RTIT_ADDR2_B", "XFAM_PT:GP"],
  [0x586, 0x586, "IA32_RTIT_ADDR3_A", "XFAM_PT:GP"],
  [0x587, 0x587, "IA32_RTIT_ADDR3_B", "XFAM_PT:GP"],
  [0x600, 0x600, "IA32_DS_AREA", "NATIVE"],
  [0x6a0, 0x6a0, "IA32_U_CET", "XFAM_CET:GP"],
  [0x6a2, 0x6a2, "IA32_S_CET", "XFAM_CET:GP"],
  [0x6a4, 0x6a4, "IA32_PL0_SSP", "XFAM_CET:GP"],
  [0x6a5, 0x6a5, "IA32_PL1_SSP", "XFAM_CET:GP"],
  [0x6a6, 0x6a6, "IA32_PL2_SSP", "XFAM_CET:GP"],
  [0x6a7, 0x6a7, "IA32_PL3_SSP", "XFAM_CET:GP"],
  [0x6a8, 0x6a8, "IA32_INTERRUPT_SSP_TABLE_ADDR", "XFAM_CET:GP"],
  [0x6e0, 0x6e0, "IA32_TSC_DEADLINE", "GP_OR_VE"],
  [0x6e1, 0x6e1, "IA32_PKRS", "PKS:GP"],
  [0x800, 0x801, "Reserved for xAPIC MSRs", "GP"],
  [0x802, 0x802, "IA32_X2APIC_APICID", "OTHER", "GP"],
  [0x804, 0x807, "Reserved for xAPIC MSRs", "GP"],
  [0x808, 0x808, "IA32_X2APIC_TPR", "NATIVE"],
  [0x809, 0x809, "Reserved for xAPIC MSRs", "NATIVE"],
  [0x80a, 0x80a, "IA32_X2APIC_PPR", "NATIVE"],
  [0x80b, 0x80b, "IA32_X2APIC_EOI", "NATIVE"],
  [0x80c, 0x80c, "Reserved for xAPIC MSRs", "NATIVE"],
  [0x80e, 0x80e, "Reserved for xAPIC MSRs", "NATIVE"],
  [0x810, 0x817, "IA32_X2APIC_ISRx", "NATIVE"],
  [0x818, 0x81f, "IA32_X2APIC_TMRx", "NATIVE"],
  [0x820, 0x827, "IA32_X2APIC_IRRx", "NATIVE"],
  [0x829, 0x82e, "Reserved for xAPIC MSRs", "GP"],
  [0x831, 0x831, "Reserved for xAPIC MSRs", "GP"],
  [0x83f, 0x83f, "IA32_X2APIC_SELF_IPI", "NATIVE"],
  [0x840, 0x87f, "Reserved for xAPIC MSRs", "GP"],
  [0x880, 0x8bf, "Reserved for xAPIC MSRs", "GP"],
  [0x8c0, 0x8ff, "Reserved for xAPIC MSRs", "GP"],
  [0x981, 0x981, "IA32_TME_CAPABILITY", "GP_OR_VE"],
  [0x982, 0x982, "IA32_TME_ACTIVATE", "GP_OR_VE"],
  [0x983, 0x983, "IA32_TME_EXCLUDE_MASK", "GP_OR_VE"],
  [0x984, 0x984, "IA32_TME_EXCLUDE_BASE", "GP_OR_VE"],
  [0x985, 0x985, "IA32_UINTR_RR", "XFAM_ULI:GP"],
  [0x986, 0x986, "IA32_UINTR_HANDLER", "XFAM_ULI:GP"],
  [0x987, 0x987, "IA32_UINTR_STACKADJUST", "XFAM_ULI:GP"],
  [0x988, 0x988, "IA32_UINTR_MISC", "XFAM_ULI:GP"],
  [0x989, 0x989, "IA32_UINTR_PD", "XFAM_ULI:GP"],
  [0x98a, 0x98a, "IA32_UINTR_TT", "XFAM_ULI:GP"],
  [0xc80, 0xc80, "IA32_DEBUG_INTERFACE", "NATIVE", "VE"],
  [0xd90, 0xd90, "IA32_BNDCFGS", "GP"],
  [0xd93, 0xd93, "IA32_PASID", "GP"],
  [0xda0, 0xda0, "IA32_XSS", "NATIVE", "OTHER"],
  [0x1200, 0x12ff, "IA32_LBR_INFO", "XFAM_LBR:GP"],
  [0x14ce, 0x14ce, "IA32_LBR_CTL", "XFAM_LBR:GP"],
  [0x14cf, 0x14cf, "IA32_LBR_DEPTH", "XFAM_LBR:GP"],
  [0x1500, 0x15ff, "IA32_LBR_x_FROM_IP", "XFAM_LBR:GP"],
  [0x1600, 0x16ff, "IA32_LBR_x_TO_IP", "XFAM_LBR:GP"],
  [0x1b01, 0x1b01, "IA32_UARCH_MISC_CTL", "NATIVE"],
  [0xc0000080, 0xc0000080, "IA32_EFER", "NATIVE", "OTHER"],
  [0xc0000081, 0xc0000081, "IA32_STAR", "NATIVE"],
  [0xc0000082, 0xc0000082, "IA32_LSTAR", "NATIVE"],
  [0xc0000084, 0xc0000084, "IA32_FMASK", "NATIVE"],
  [0xc0000100, 0xc0000100, "IA32_FSBASE", "NATIVE"],
  [0xc0000101, 0xc0000101, "IA32_GSBASE", "NATIVE"],
  [0xc0000102, 0xc0000102, "IA32_KERNEL_GS_BASE", "NATIVE"],
  [0xc0000103, 0xc0000103, "IA32_TSC_AUX", "NATIVE"],
];

/** The row of an MSR, or null. */
export function findMsrEntry(index: number): MsrRow | null {
  let low = 0;
  let high = MSR_LOOKUP.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    const row = MSR_LOOKUP[middle];
    if (index < row[0]) high = middle - 1;
    else if (index > row[1]) low = middle + 1;
    else return row;
  }
  return null;
}

/** The bitmaps cover 0..0x1FFF and 0xC0000000..0xC0001FFF; any other MSR exits and raises #VE. */
export const isMsrCoveredByBitmap = (index: number): boolean =>
  index < 0x2000 || (index >= 0xc0000000 && index < 0xc0002000);

const hasFeature = (feature: MsrFeature, index: number, td: TdFeatures): boolean => {
  switch (feature) {
    case "PERFMON":
      return td.perfmon;
    case "XFAM_CET":
      return td.cet;
    case "XFAM_PT":
      return td.pt;
    case "XFAM_ULI":
      return td.uli;
    case "XFAM_LBR":
      return td.lbr;
    case "UMWAIT":
      return td.waitpkg;
    case "PKS":
      return td.pks;
    case "XFD":
      return td.xfd;
    case "TSX":
      return td.tsx;
    case "OTHER":
      // IA32_PERF_CAPABILITIES and IA32_PERF_METRICS depend on two things each.
      return index === 0x345 ? td.perfmon && td.pt : td.perfmon && td.perfMetrics;
  }
};

/** Whether an access runs without a VM exit. */
export function isMsrNative(behaviour: MsrBehaviour, index: number, td: TdFeatures): boolean {
  if (behaviour === "NATIVE") return true;
  const colon = behaviour.indexOf(":");
  return colon >= 0 && hasFeature(behaviour.slice(0, colon) as MsrFeature, index, td);
}

/** What an access that exits comes to. */
export const msrActionOf = (behaviour: MsrBehaviour): MsrAction =>
  behaviour.slice(behaviour.indexOf(":") + 1) as MsrAction;

/**
 * The TD's MSR bitmap page: bit set: the access exits. Read bitmaps for low and high MSRs, then write bitmaps, 1 KiB
 * each (SDM vol. 3C 25.6.9).
 */
export function buildMsrBitmaps(td: TdFeatures): Uint8Array {
  const page = new Uint8Array(4096).fill(0xff);
  for (const [first, last, , read, write = read] of MSR_LOOKUP) {
    const clearRead = isMsrNative(read, first, td);
    const clearWrite = isMsrNative(write, first, td);
    if (!clearRead && !clearWrite) continue;
    for (let index = first; index <= last; index++) {
      const at = (index >= 0xc0000000 ? 1024 : 0) + ((index & 0x1fff) >> 3);
      const mask = ~(1 << (index & 7));
      if (clearRead) page[at] &= mask;
      if (clearWrite) page[at + 2048] &= mask;
    }
  }
  return page;
}
