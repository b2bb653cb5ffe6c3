/**
 * Guest-Hypervisor Communication Interface: sub-functions of TDG.VP.VMCALL, their statuses, and the buffers.
 * Intel TDX GHCI specification; names as in Linux arch/x86/include/asm/shared/tdx.h and uapi.
 */
import { bytes, struct, u32, u64 } from "../struct.js";

/** R11 of TDG.VP.VMCALL when R10 is 0. Instruction.* have the numbers of the VM exit reasons. */
export const TDVMCALL = {
  "Instruction.CPUID": 10,
  "Instruction.HLT": 12,
  "Instruction.IO": 30,
  "Instruction.RDMSR": 31,
  "Instruction.WRMSR": 32,
  "Instruction.MWAIT": 36,
  "Instruction.MONITOR": 39,
  "Instruction.PAUSE": 40,
  "#VE.RequestMMIO": 48,
  "Instruction.WBINVD": 54,
  "Instruction.PCONFIG": 65,
  GetTdVmCallInfo: 0x10000,
  MapGPA: 0x10001,
  GetQuote: 0x10002,
  ReportFatalError: 0x10003,
  SetupEventNotifyInterrupt: 0x10004,
  Service: 0x10005,
  MigTD: 0x10006,
} as const;
export type TdvmcallName = keyof typeof TDVMCALL;
const names = new Map<number, TdvmcallName>(
  Object.entries(TDVMCALL).map(([name, number]) => [number, name as TdvmcallName]),
);
/** @returns the sub-function's name, or null for an unknown one. */
export const tdvmcallName = (r11: bigint): TdvmcallName | null =>
  r11 > 0xffff_ffffn ? null : (names.get(Number(r11)) ?? null);

/** R10 after TDG.VP.VMCALL. */
export const TDVMCALL_STATUS = {
  SUCCESS: 0n,
  /** MapGPA did a part: call again from R11 on. */
  RETRY: 1n,
  INVALID_OPERAND: 0x8000_0000_0000_0000n,
  GPA_INUSE: 0x8000_0000_0000_0001n,
  ALIGN_ERROR: 0x8000_0000_0000_0002n,
  SUBFUNC_UNSUPPORTED: 0x8000_0000_0000_0003n,
} as const;

/** RCX of TDG.VP.VMCALL: bit i of 15:0 passes GPR i (x86 numbering), bit 16 + i passes XMMi. */
export const TDVMCALL_GPR_MASK = 0xffffn;
/** GPRs that are never passed: RAX, RCX, RSP. */
export const TDVMCALL_GPR_FORBIDDEN = 0x0013n;
/** RBP: forbidden too when CONFIG_FLAGS.NO_RBP_MOD. */
export const TDVMCALL_GPR_RBP = 0x0020n;
/** What Linux always passes: RDX, RBX, RSI, RDI, R8-R15. */
export const TDVMCALL_EXPOSE_REGS_MASK = 0xffccn;

/** R13 of Instruction.IO and #VE.RequestMMIO. */
export const TDVMCALL_DIRECTION = { READ: 0n, WRITE: 1n } as const;

/** R12 of ReportFatalError: bits 31:0 code, bits 62:32 TD-specific extended code, bit 63: R13 has a GPA. */
export const FATAL_ERROR_GPA_VALID = 1n << 63n;
/** Registers that carry ReportFatalError's text, 8 bytes each, in this order. */
export const FATAL_ERROR_TEXT_REGISTERS = ["r14", "r15", "rbx", "rdi", "rsi", "r8", "r9", "rdx"] as const;

/** GetTdVmCallInfo with R12 = 1: bits of R11 and R12 on return, sub-functions beyond the base GHCI. */
export const GET_TD_VMCALL_INFO_R11 = { GetQuote: 1n << 0n, SetupEventNotifyInterrupt: 1n << 1n } as const;

/** Header of the shared buffer of GetQuote; the TDREPORT, then the quote, follow at offset 24. */
export const GET_QUOTE_HEADER = struct("GET_QUOTE_HEADER", 24, {
  VERSION: u64(0),
  STATUS: u64(8),
  /** Bytes of data in. */
  IN_LEN: u32(16),
  /** Bytes of data out. */
  OUT_LEN: u32(20),
});
export const GET_QUOTE_HEADER_SIZE = 24;
export const GET_QUOTE_VERSION = 1n;
export const GET_QUOTE_STATUS = {
  SUCCESS: 0n,
  IN_FLIGHT: 0xffff_ffff_ffff_ffffn,
  ERROR: 0x8000_0000_0000_0000n,
  SERVICE_UNAVAILABLE: 0x8000_0000_0000_0001n,
} as const;

/** Header of Service's command and response buffers. */
export const SERVICE_HEADER = struct("SERVICE_HEADER", 24, {
  GUID: bytes(0, 16),
  /** Of the whole buffer, in bytes. */
  LENGTH: u32(16),
  /** Response only; reserved in a command. */
  STATUS: u32(20),
});
