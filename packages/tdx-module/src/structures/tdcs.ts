/**
 * TDCS: the control structure of a TD, 6 pages (9 with three L2 VMs) under the TD's HKID. The TDR holds the HPAs of its
 * pages.
 *
 * Layout and field names: TDX module 1.5 base architecture specification, TDCS; intel/tdx-module
 * include/auto_gen/tdr_tdcs_fields_lookup.c, src/common/data_structures/td_control_structures.h.
 */
import { type Hpa, OP_STATE } from "@swtdx/abi";
import type { TdrStructure } from "./tdr.js";
import { ControlStructure, f16, f32, f64, f8, fBytes } from "./layout.js";

export const TDCS = {
  // TD management
  NUM_VCPUS: f32(0x0000),
  NUM_ASSOC_VCPUS: f32(0x0004),
  OP_STATE: f32(0x0008),
  /** Shared/exclusive lock with host priority. */
  OP_STATE_LOCK: f16(0x000c),
  NUM_L2_VMS: f16(0x0010),
  // Execution controls
  ATTRIBUTES: f64(0x0080),
  XFAM: f64(0x0088),
  MAX_VCPUS: f32(0x0090),
  GPAW: f8(0x0094),
  EPTP: f64(0x0098),
  /** Shared/exclusive lock of the Secure EPT tree. */
  SECURE_EPT_LOCK: f16(0x00a0),
  TSC_OFFSET: f64(0x00a8),
  TSC_MULTIPLIER: f64(0x00b0),
  TSC_FREQUENCY: f16(0x00b8),
  /** First of 32 bytes: CPUID_FLAGS. */
  CPUID_FLAGS: f8(0x00ba),
  XBUFF_SIZE: f32(0x00dc),
  NOTIFY_ENABLES: f64(0x00e0),
  HP_LOCK_TIMEOUT: f64(0x00e8),
  /** First of 4. */
  VM_CTLS: f64(0x00f0),
  IA32_SPEC_CTRL_MASK: f64(0x0110),
  CONFIG_FLAGS: f64(0x0118),
  TD_CTLS: f64(0x0120),
  /** First of 80. */
  CPUID_VALID: f8(0x0134),
  /** First of 19. */
  XBUFF_OFFSETS: f32(0x0190),
  // TLB epoch tracking
  TD_EPOCH: f64(0x0200),
  /** First of 2. */
  REFCOUNT: f16(0x0208),
  EPOCH_LOCK: f16(0x0210),
  // Measurement
  MRTD: fBytes(0x0240, 48),
  MRCONFIGID: fBytes(0x0270, 48),
  MROWNER: fBytes(0x02a0, 48),
  MROWNERCONFIG: fBytes(0x02d0, 48),
  RTMR0: fBytes(0x0300, 48),
  RTMR1: fBytes(0x0330, 48),
  RTMR2: fBytes(0x0360, 48),
  RTMR3: fBytes(0x0390, 48),
  LAST_TEEINFO_HASH: fBytes(0x03c0, 48),
  /** Shared/exclusive lock with host priority. */
  RTMR_LOCK: f16(0x03f0),
  LAST_TEEINFO_HASH_VALID: f8(0x03f2),
  // Migration
  EXPORT_COUNT: f32(0x0584),
  IMPORT_COUNT: f32(0x0588),
  MIG_EPOCH: f32(0x058c),
  BW_EPOCH: f64(0x0590),
  TOTAL_MB_COUNT: f64(0x0598),
  DIRTY_COUNT: f64(0x0628),
  MIG_COUNT: f64(0x0630),
  NUM_MIGS: f16(0x0638),
  NUM_MIGRATED_VCPUS: f32(0x063c),
  // Virtual MSR values
  VIRT_IA32_VMX_BASIC: f64(0x0700),
  VIRT_IA32_ARCH_CAPABILITIES: f64(0x0778),
  /** First of 80 entries of 16 bytes (EAX EBX ECX EDX), in the order of the CPUID lookup table. */
  CPUID_VALUES: fBytes(0x0800, 16),
  // Service TDs
  SERVTD_HASH: fBytes(0x0d00, 48),
  SERVTD_NUM: f16(0x0d30),
  // Whole pages
  MSR_BITMAPS: fBytes(0x2000, 4096),
  SEPT_ROOT: fBytes(0x3000, 4096),
  /** Where shared EPTP points until the host sets one. */
  ZERO_PAGE: fBytes(0x4000, 4096),
} as const;

/** Byte offsets within CPUID_FLAGS. */
export const CPUID_FLAGS = {
  monitor_mwait_supported: 0,
  dca_supported: 1,
  tsc_deadline_supported: 2,
  tsx_supported: 3,
  waitpkg_supported: 4,
  tme_supported: 5,
  mktme_supported: 6,
  xfd_supported: 7,
  ddpd_supported: 8,
  la57_supported: 9,
} as const;

/** Indices of TDCS pages. */
export const TdcsPage = { MSR_BITMAPS: 2, SEPT_ROOT: 3, ZERO: 4, MIGSC_LINKS: 5 } as const;
export const MIN_NUM_TDCS_PAGES = 6;
export const MAX_NUM_TDCS_PAGES = 9;
/** CPUID table entries that a TDCS has room for. */
export const MAX_POSSIBLE_CPUID_LOOKUP = 80;

/** Values of TDCS.OP_STATE. */
export const OpState = OP_STATE;

export class TdcsStructure extends ControlStructure {
  /** HPAs of the pages, -1: not read yet. */
  readonly #pages = new Float64Array(MAX_NUM_TDCS_PAGES).fill(-1);

  constructor(readonly tdr: TdrStructure) {
    super(tdr.lp, tdr.hkid, MAX_NUM_TDCS_PAGES);
  }

  page(index: number): Hpa {
    const known = this.#pages[index];
    if (known >= 0) return known as Hpa;
    const pa = this.tdr.tdcxPa(index);
    this.#pages[index] = pa;
    return pa;
  }

  /** Where its pages are is read from the TDR again. */
  forget(): void {
    this.#pages.fill(-1);
    this.unmap();
  }

  get debug(): boolean {
    return (this.lp.readU8(this.pa(TDCS.ATTRIBUTES.offset), this.keyId) & 1) !== 0;
  }
}
