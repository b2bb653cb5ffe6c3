/**
 * TD_PARAMS: operand of TDH.MNG.INIT.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h.
 */
import { array, bytes, struct, u16, u32, u64, u8, nested, type StructOf } from "../struct.js";

/** TD_PARAMS must be aligned to its size, in bytes. */
export const TD_PARAMS_ALIGN = 1024;
/** Entries that fit in CPUID_CONFIG; the module says how many it takes and for which leaves. */
export const TD_PARAMS_CPUID_CONFIG_MAX = 48;

/** One entry of TD_PARAMS.CPUID_CONFIG; leaf and sub-leaf are implied by its position. */
export const CPUID_CONFIG_VALUES = struct("CPUID_CONFIG_VALUES", 16, {
  EAX: u32(0),
  EBX: u32(4),
  ECX: u32(8),
  EDX: u32(12),
});

/** All that is not listed is reserved and must be zero. */
export const TD_PARAMS = struct("TD_PARAMS", 1024, {
  ATTRIBUTES: u64(0),
  XFAM: u64(8),
  MAX_VCPUS: u16(16),
  NUM_L2_VMS: u8(18),
  /** Bit 0: IA32_ARCH_CAPABILITIES_CONFIG is valid. */
  MSR_CONFIG_CTLS: u8(19),
  RESERVED_0: bytes(20, 4),
  EPTP_CONTROLS: u64(24),
  CONFIG_FLAGS: u64(32),
  /** In units of 25 MHz. */
  TSC_FREQUENCY: u16(40),
  RESERVED_1: bytes(42, 38),
  MRCONFIGID: bytes(80, 48),
  MROWNER: bytes(128, 48),
  MROWNERCONFIG: bytes(176, 48),
  IA32_ARCH_CAPABILITIES_CONFIG: u64(224),
  RESERVED_2: bytes(232, 24),
  CPUID_CONFIG: array(256, TD_PARAMS_CPUID_CONFIG_MAX, (at) => nested(at, CPUID_CONFIG_VALUES)),
});
export type TdParams = StructOf<typeof TD_PARAMS>;
