/**
 * P-SEAMLDR: leaves, status codes and structures.
 * Intel TDX Loader Interface specification, as in intel/seam-loader p-seam-loader/include/pseamldr_api_defs.h.
 */
import { addr, array, bytes, nested, struct, u16, u32, u64, u8, type StructOf } from "../struct.js";

/** RAX of SEAMCALL. */
export const SEAMLDR_LEAF = {
  "SEAMLDR.INFO": 0x8000_0000_0000_0000n,
  "SEAMLDR.INSTALL": 0x8000_0000_0000_0001n,
  "SEAMLDR.SHUTDOWN": 0x8000_0000_0000_0002n,
  "SEAMLDR.SEAMINFO": 0x8000_0000_0000_0003n,
} as const;
export type SeamldrName = keyof typeof SEAMLDR_LEAF;

const names = new Map<bigint, SeamldrName>(
  Object.entries(SEAMLDR_LEAF).map(([name, leaf]) => [leaf, name as SeamldrName]),
);
/** @returns the function's name, or null when P-SEAMLDR has no such leaf. */
export const seamldrName = (rax: bigint): SeamldrName | null => names.get(rax) ?? null;

/** RAX after a P-SEAMLDR function. */
export const PSEAMLDR_STATUS = {
  PSEAMLDR_SUCCESS: 0n,
  PSEAMLDR_EBADPARAM: 0x8000_0000_0000_0000n,
  PSEAMLDR_EBADCALL: 0x8000_0000_0000_0003n,
  /** Handoff data invalid or of an unsupported version. */
  PSEAMLDR_EBADHANDOFF: 0x8000_0000_0000_0004n,
  /** The module does not fit into the SEAM range. */
  PSEAMLDR_ENOMEM: 0x8000_0000_0001_0002n,
  PSEAMLDR_EUNSPECERR: 0x8000_0000_0001_0003n,
  /** The module does not support a CPU of this platform. */
  PSEAMLDR_EUNSUPCPU: 0x8000_0000_0001_0004n,
  PSEAMLDR_EBADSIG: 0x8000_0000_0002_0000n,
  PSEAMLDR_EBADHASH: 0x8000_0000_0002_0001n,
  /** Interrupted: call again. */
  PSEAMLDR_EINTERRUPT: 0x8000_0000_0003_0000n,
  PSEAMLDR_ENOENTROPY: 0x8000_0000_0003_0001n,
} as const;
export type PseamldrStatusName = keyof typeof PSEAMLDR_STATUS;
const statusNames = new Map<bigint, PseamldrStatusName>(
  Object.entries(PSEAMLDR_STATUS).map(([name, code]) => [code, name as PseamldrStatusName]),
);
export const pseamldrStatusName = (status: bigint): PseamldrStatusName | null =>
  statusNames.get(status) ?? null;

/** SEAMEXTEND: the platform's record of the loaded SEAM module. */
export const SEAMEXTEND = struct("SEAMEXTEND", 136, {
  VALID: u64(0),
  TEE_TCB_SVN: bytes(8, 16),
  MRSEAM: bytes(24, 48),
  MRSIGNERSEAM: bytes(72, 48),
  ATTRIBUTES: u64(120),
  SEAM_READY: u8(128),
  SYSTEM_UNDER_DEBUG: u8(129),
  P_SEAMLDR_READY: u8(130),
});
export type SeamExtend = StructOf<typeof SEAMEXTEND>;

/** Alignment of SEAMLDR_INFO in host memory, in bytes. */
export const SEAMLDR_INFO_ALIGN = 256;
/** Output of SEAMLDR.INFO. UPDATE_VERSION and NUM_REMAINING_UPDATES: later loaders (Linux arch/x86/virt/vmx/tdx). */
export const SEAMLDR_INFO = struct("SEAMLDR_INFO", 256, {
  VERSION: u32(0),
  /** Bit 31: debug loader. */
  ATTRIBUTES: u32(4),
  VENDOR_ID: u32(8),
  BUILD_DATE: u32(12),
  BUILD_NUM: u16(16),
  MINOR_VERSION: u16(18),
  MAJOR_VERSION: u16(20),
  UPDATE_VERSION: u16(22),
  ACM_X2APICID: u32(24),
  NUM_REMAINING_UPDATES: u32(28),
  SEAMEXTEND: nested(32, SEAMEXTEND),
});
export type SeamldrInfo = StructOf<typeof SEAMLDR_INFO>;

/** SEAMLDR_PARAMS.SCENARIO. */
export const SEAMLDR_SCENARIO = { LOAD: 0, UPDATE: 1 } as const;
export const SEAMLDR_MAX_MODULE_PAGES = 496;

/** Operand of SEAMLDR.INSTALL: one 4 KiB page, 4 KiB aligned. */
export const SEAMLDR_PARAMS = struct("SEAMLDR_PARAMS", 4096, {
  VERSION: u32(0),
  SCENARIO: u32(4),
  SIGSTRUCT_PA: addr(8),
  RESERVED: bytes(16, 104),
  NUM_MODULE_PAGES: addr(120),
  MOD_PAGES_PA_LIST: array(128, SEAMLDR_MAX_MODULE_PAGES, addr),
});
export type SeamldrParams = StructOf<typeof SEAMLDR_PARAMS>;
