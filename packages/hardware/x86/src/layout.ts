/**
 * Layout of what the engine keeps in linear memory: its fields in the spare end of the register file, decoded
 * records, TLB entries and the jump cache. Generated code and TypeScript share these constants.
 */
import { REG } from "./register-file.js";

/** Fields of the engine in the register file's block, behind the vector registers (64-bit unless said otherwise). */
export const ENGINE = {
  /** Always zero: the base or index of an address that has none. */
  ZERO: 1792,
  /** 2^63: makes an address miss the TLB, so that records that need the slow address computation take it. */
  POISON: 1800,
  /** RIP of the first byte of the current code page (RIP minus page offset; not linear when CS has a base). */
  RIP_BASE: 1808,
  /** Arithmetic flags, see emit/flags.ts. */
  FLAG_Z: 1816,
  FLAG_S: 1824,
  FLAG_C: 1832,
  /** 32-bit: current record, and the budget left in units of 32. */
  PC: 1840,
  BUDGET: 1844,
  /** 32-bit: address of the TLB set in use. */
  TLB: 1848,
  /** 32-bit: what a jump cache entry must match: mode, privilege, generation. */
  JUMP_KEY: 1852,
  /** 32-bit: outcome of the run so far (Status). */
  STATUS: 1856,
  /** 32-bit: 0 if FPU/SSE instructions may run, else bits FpuBlock. */
  FPU_BLOCK: 1860,
  /** Mask of the stack pointer: 2^16-1, 2^32-1 or all ones. */
  STACK_MASK: 1864,
  /** Shift whose arithmetic result is 0 or -1 for a canonical address (47 or 56); 63 outside 64-bit mode. */
  CANONICAL_SHIFT: 1872,
  /** Mask of RIP: 2^32-1 outside 64-bit mode. */
  RIP_MASK: 1880,
  /** 32-bit: a pending exception's vector (-1 none) and its error code. */
  VECTOR: 1888,
  ERROR_CODE: 1892,
  /** 32-bit: iterations of REP that were charged to the budget but are not instructions. */
  EXTRA: 1896,
  /** 32-bit: not zero while a scratch buffer must be written back (Commit). */
  COMMIT: 1900,
  /** 128-bit temporary for calls that return vectors. */
  TEMP: 1904,
  /** 32-bit each: highest offset a plain read and a plain write may reach in ES CS SS DS FS GS (0 = ask TypeScript). */
  READ_LIMIT: 1920,
  WRITE_LIMIT: 1952,
  /** 32-bit: code size and privilege facts, see Mode. */
  MODE: 1984,
  /** 32-bit: rounds of REP that one dispatch may run before the budget is looked at. */
  REP_ROUNDS: 1988,
} as const;

/** Outcome of a called operation, and what `run` returns. */
export const Status = {
  /** Go on with the next record. */
  NEXT: 0,
  /** RIP was changed: look it up. */
  JUMP: 1,
  /** An exception is pending in VECTOR; RIP is its instruction. */
  FAULT: 2,
  /** The budget is used up. */
  BUDGET: 3,
  /** The environment wants control (VM exit, reset…); RIP is where to go on. */
  STOP: 4,
  /** The instruction has completed and something else must be looked at: interrupts, shadows, mode. */
  ATTENTION: 5,
  /** The instruction is not complete and is to be executed again (REP after a chunk). */
  AGAIN: 6,
} as const;

/** A decoded instruction, 32 bytes. */
export const RECORD_SIZE = 32;
export const RECORD = {
  /** u16 handler. */
  HANDLER: 0,
  /** u8 length in bytes. */
  LENGTH: 2,
  /** u8 log2 of the index's scale. */
  SCALE: 3,
  /** u16 offset of the instruction in its page. */
  OFFSET: 4,
  /** u16 offset in the register file of operand 0 if it is a register. */
  A: 6,
  /** i32 address of operand 1 if it is a register or an immediate. */
  B: 8,
  /** u16 offsets in the register file of base and index. */
  BASE: 12,
  INDEX: 14,
  /** i32 displacement. */
  DISP: 16,
  /** u16 offset in the register file of the segment's base, or ZERO, or POISON for the slow computation. */
  SEGMENT: 20,
  /** u16 description of the address for the slow computation and for faults, see Misc. */
  MISC: 22,
  /** i64 immediate; of direct jumps i32 target relative to the page, then i32 record of the target (0 unknown). */
  IMM: 24,
  TARGET: 28,
  /** u16 offset in the register file of operand 2 if it is a register. */
  C: 30,
} as const;

/** Bits of RECORD.MISC. */
export const Misc = {
  /** Base register number, 16 none, 17 RIP. */
  BASE_SHIFT: 0,
  /** Index register number, 16 none. */
  INDEX_SHIFT: 5,
  /** Segment register number. */
  SEGMENT_SHIFT: 10,
  /** Address size: 0 16 bits, 1 32 bits, 2 64 bits. */
  ADDRESS_SHIFT: 13,
} as const;

/** A TLB entry: 32 bytes. A tag is the linear address of the page, or -1. */
export const TLB_ENTRY_SIZE = 32;
export const TLB = {
  READ: 0,
  WRITE: 8,
  /** i32: what to add to the low 32 bits of a linear address to get the address in memory. */
  ADDEND: 16,
} as const;
export const TLB_ENTRIES = 1024;
/** User, supervisor, supervisor with EFLAGS.AC or without SMAP. */
export const TLB_SETS = 3;
export const TLB_SET_SIZE = TLB_ENTRIES * TLB_ENTRY_SIZE;

/** Jump cache: 16 bytes an entry: RIP, key, record. */
export const JUMP_ENTRIES = 32768;
export const JUMP = { RIP: 0, KEY: 8, RECORD: 12 } as const;
export const JUMP_ENTRY_SIZE = 16;

/** Size of a page in bytes. */
export const PAGE_SIZE = 4096;

/** Bits of ENGINE.MODE. */
export const Mode = {
  /** 0 16-bit, 1 32-bit, 2 64-bit code. */
  CODE_MASK: 3,
  /** CR0.PE. */
  PROTECTED: 4,
  /** EFLAGS.VM. */
  V86: 8,
  /** EFER.LMA. */
  LONG: 16,
  /** CPL at bits 5 and 6. */
  CPL_SHIFT: 5,
} as const;

/** Bits of ENGINE.FPU_BLOCK. */
export const FpuBlock = {
  /** x87 and MMX instructions raise #NM (CR0.EM or CR0.TS). */
  X87_NM: 1,
  /** MMX raises #UD (CR0.EM). */
  MMX_UD: 2,
  /** SSE raises #UD (CR0.EM or not CR4.OSFXSR). */
  SSE_UD: 4,
  /** SSE and MMX raise #NM (CR0.TS). */
  SSE_NM: 8,
  /** VEX-encoded instructions raise #UD (not CR4.OSXSAVE, XCR0, real mode). */
  AVX_UD: 16,
  /** WAIT raises #NM (CR0.TS and CR0.MP). */
  WAIT_NM: 32,
} as const;

/** Access kinds; SIZE in bytes in the low byte of an access descriptor. */
export const Access = { READ: 0, WRITE: 0x100, EXECUTE: 0x200, STACK: 0x1000, ALIGNED: 0x2000 } as const;

/** Vectors raised by the engine. */
export const Vector = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  CP: 21,
} as const;

/** Offset of the end of the engine's fields; must stay within the register file. */
export const ENGINE_END = 2048;
if (REG.ZMM + 16 * 64 > ENGINE.ZERO) throw new RangeError("engine fields overlap the vector registers");
