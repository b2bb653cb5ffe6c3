/**
 * TDVPS: the control structure of a virtual CPU, 6 pages under the TD's HKID: TDVPR page first, then TDCX pages. The
 * first page holds the HPAs of all.
 *
 * Layout and field names: TDX module 1.5 base architecture specification, TDVPS; intel/tdx-module
 * include/auto_gen/tdvps_fields_lookup.c, src/common/data_structures/tdx_tdvps.h.
 */
import type { Hpa, KeyId } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import { ControlStructure, f16, f32, f64, f8, fBytes } from "./layout.js";

export const TDVPS = {
  // VE_INFO
  VE_INFO_EXIT_REASON: f32(0x0000),
  /** 0xFFFFFFFF while valid, 0 otherwise. */
  VE_INFO_VALID: f32(0x0004),
  VE_INFO_EXIT_QUALIFICATION: f64(0x0008),
  VE_INFO_GLA: f64(0x0010),
  VE_INFO_GPA: f64(0x0018),
  VE_INFO_EPTP_INDEX: f16(0x0020),
  VE_INFO_INSTRUCTION_LENGTH: f32(0x0024),
  VE_INFO_INSTRUCTION_INFORMATION: f32(0x0028),
  // Management
  VCPU_STATE: f8(0x0100),
  LAST_TD_EXIT: f8(0x0101),
  VCPU_INDEX: f32(0x0102),
  NUM_TDVPS_PAGES: f8(0x0107),
  /** First of 15: HPAs of the pages, the TDVPR's first. */
  TDVPS_PAGE_PA: f64(0x0108),
  /** Number of the LP, 0xFFFFFFFF: none. */
  ASSOC_LPID: f32(0x01c8),
  VCPU_EPOCH: f64(0x01d0),
  CPUID_SUPERVISOR_VE: f8(0x01d8),
  CPUID_USER_VE: f8(0x01d9),
  EXPORT_COUNT: f32(0x01dc),
  LAST_EXIT_TSC: f64(0x01e0),
  PEND_NMI: f8(0x01e8),
  NMI_UNBLOCKING_DUE_TO_IRET: f8(0x01e9),
  XFAM: f64(0x01f0),
  LAST_EPF_GPA_LIST_IDX: f8(0x01f8),
  POSSIBLY_EPF_STEPPING: f8(0x01f9),
  HP_LOCK_BUSY_START: f64(0x0200),
  HP_LOCK_BUSY: f8(0x0208),
  LAST_SEAMDB_INDEX: f64(0x020e),
  CURR_VM: f16(0x0216),
  L2_EXIT_HOST_ROUTING: f8(0x0218),
  /** First of 4, by VM. */
  VM_LAUNCHED: f8(0x021a),
  LP_DEPENDENT_HPA_UPDATED: f8(0x021e),
  MODULE_DEPENDENT_FIELDS_UPDATED: f8(0x0222),
  L2_CTLS: f64(0x0228),
  TSC_DEADLINE: f64(0x0268),
  SHADOW_TSC_DEADLINE: f64(0x0288),
  BASE_L2_CR0_GUEST_HOST_MASK: f64(0x02a8),
  BASE_L2_CR0_READ_SHADOW: f64(0x02b0),
  BASE_L2_CR4_GUEST_HOST_MASK: f64(0x02b8),
  BASE_L2_CR4_READ_SHADOW: f64(0x02c0),
  SHADOW_PID_HPA: f64(0x0358),
  SHADOW_PINBASED_EXEC_CTLS: f32(0x0378),
  SHADOW_POSTED_INT_NOTIFICATION_VECTOR: f16(0x03a8),
  SHADOW_PROCBASED_EXEC_CTLS2: f32(0x03b0),
  SHADOW_SHARED_EPTP: f64(0x03c0),
  /** First of 32: GPAs of the last EPT violations at the same instruction. */
  LAST_EPF_GPA_LIST: f64(0x0700),
  /** First of 128: bit 0 supervisor #VE, bit 1 user #VE, by CPUID table index. */
  CPUID_CONTROL: f8(0x0900),
  // Guest GPR state: first of 16 in x86 order
  GPR: f64(0x0980),
  // Guest state
  DR0: f64(0x0a00),
  DR1: f64(0x0a08),
  DR2: f64(0x0a10),
  DR3: f64(0x0a18),
  DR6: f64(0x0a20),
  XCR0: f64(0x0a28),
  CR2: f64(0x0a30),
  VCPU_STATE_DETAILS: f64(0x0a78),
  // Guest MSR state
  IA32_SPEC_CTRL: f64(0x0a80),
  IA32_UMWAIT_CONTROL: f64(0x0a88),
  IA32_TSX_CTRL: f64(0x0a90),
  /** First of 8. */
  IA32_PERFEVTSEL: f64(0x0a98),
  /** First of 2. */
  IA32_OFFCORE_RSP: f64(0x0ad8),
  IA32_XFD: f64(0x0ae8),
  IA32_XFD_ERR: f64(0x0af0),
  /** First of 7. */
  IA32_FIXED_CTR: f64(0x0af8),
  IA32_PERF_METRICS: f64(0x0b30),
  IA32_FIXED_CTR_CTRL: f64(0x0b38),
  IA32_PERF_GLOBAL_STATUS: f64(0x0b40),
  IA32_PEBS_ENABLE: f64(0x0b48),
  MSR_PEBS_DATA_CFG: f64(0x0b50),
  MSR_PEBS_LD_LAT: f64(0x0b58),
  MSR_PEBS_FRONTEND: f64(0x0b60),
  /** First of 8. */
  IA32_A_PMC: f64(0x0b68),
  IA32_DS_AREA: f64(0x0ba8),
  IA32_XSS: f64(0x0c70),
  IA32_LBR_DEPTH: f64(0x0c78),
  IA32_UARCH_MISC_CTL: f64(0x0c80),
  IA32_STAR: f64(0x0c88),
  IA32_LSTAR: f64(0x0c90),
  IA32_FMASK: f64(0x0c98),
  IA32_KERNEL_GS_BASE: f64(0x0ca0),
  IA32_TSC_AUX: f64(0x0ca8),
  // Module 1.5 with TOPOLOGY_ENUM: kept in the reserved area behind the MSR state
  X2APIC_ID: f32(0x0cb0),
  // Whole pages
  TD_VMCS: fBytes(0x1000, 2048),
  VAPIC: fBytes(0x2000, 4096),
  /** XSAVES area: 3 pages. */
  XBUFF: fBytes(0x3000, 3 * 4096),
} as const;

/** Values of TDVPS.VCPU_STATE. */
export const VcpuState = {
  VCPU_UNINITIALIZED: 0,
  VCPU_READY: 2,
  VCPU_ACTIVE: 4,
  VCPU_DISABLED: 8,
  VCPU_IMPORT: 16,
} as const;
/** Values of TDVPS.LAST_TD_EXIT. */
export const LastTdExit = { ASYNC_FAULT: 0, ASYNC_TRAP: 1, TDVMCALL: 2 } as const;
/** Indices of TDVPS pages. */
export const TdvpsPage = { VE_INFO: 0, VMCS: 1, VAPIC: 2, XBUFF: 3 } as const;
export const MIN_TDVPS_PAGES = 6;
export const MAX_TDVPS_PAGES = 15;
/** ASSOC_LPID of a vCPU that is associated with no LP. */
export const VCPU_NO_LP = 0xffffffff;
export const VE_INFO_CONTENTS_VALID = 0xffffffff;

export class TdvpsStructure extends ControlStructure {
  constructor(
    lp: SeamContext,
    /** HPA of the TDVPR page: the vCPU's handle. */
    readonly tdvprPa: Hpa,
    tdHkid: KeyId,
  ) {
    super(lp, tdHkid, MAX_TDVPS_PAGES);
  }

  page(index: number): Hpa {
    if (index === TdvpsPage.VE_INFO) return this.tdvprPa;
    const at = TDVPS.TDVPS_PAGE_PA.offset + index * 8;
    return (this.get32(at + 4) * 0x1_0000_0000 + this.get32(at)) as Hpa;
  }

  /** HPA of the TD VMCS region. */
  get vmcsPa(): Hpa {
    return this.page(TdvpsPage.VMCS);
  }
}
