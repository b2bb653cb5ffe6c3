/** Version and limits of this module, as TDH.SYS.RD and SEAMLDR tell them. */
import { TDX_FEATURES0 } from "@swtdx/abi";

export const MODULE_VERSION = {
  VENDOR_ID: 0x8086,
  BUILD_DATE: 20261101,
  BUILD_NUM: 1000,
  MINOR: 5,
  MAJOR: 1,
  UPDATE: 24,
} as const;

/**
 * What is there, as TDX_FEATURES0: neither migration, service TDs, TD partitioning nor an update with TDs running.
 * KVM asks for NO_RBP_MOD and TOPOLOGY_ENUM.
 */
export const FEATURES0 =
  TDX_FEATURES0.TDG_VP_RDWR |
  TDX_FEATURES0.RELAXED_MEM_MNG_CONCURRENCY |
  TDX_FEATURES0.CPUID_VIRT_GUEST_CTRL |
  TDX_FEATURES0.LOCAL_ATTESTATION |
  TDX_FEATURES0.TD_ENTRY_ENHANCEMENTS |
  TDX_FEATURES0.HOST_PRIORITY_LOCKS |
  TDX_FEATURES0.CONFIG_IA32_ARCH_CAPABILITIES |
  TDX_FEATURES0.PENDING_EPT_VIOLATION_V2 |
  TDX_FEATURES0.NO_RBP_MOD |
  TDX_FEATURES0.TOPOLOGY_ENUM;

export const MAX_TDMRS = 64;
export const MAX_RESERVED_PER_TDMR = 16;

/** The one version of handoff data, TDH.SYS.RD's MODULE_HV and MIN_UPDATE_HV. */
export const MODULE_HV = 0;
