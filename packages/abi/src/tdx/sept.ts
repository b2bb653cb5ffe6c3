/**
 * Secure EPT and PAMT as the interface shows them: entry states, entry bits, page types and sizes.
 * TDX Module 1.5 ABI specification, "Secure EPT Entry Information"; intel/tdx-module
 * include/auto_gen/sept_state_lookup.{h,c}, src/common/x86_defs/x86_defs.h, src/common/memory_handlers.
 */

/** SEPT entry states as returned in RDX[15:8] by memory management functions. 128 | n: a non-leaf entry. */
export const SEPT_STATE = {
  FREE: 0,
  BLOCKED: 1,
  PENDING: 2,
  PENDING_BLOCKED: 3,
  MAPPED: 4,
  REMOVED: 5,
  BLOCKEDW: 8,
  EXPORTED_BLOCKEDW: 9,
  EXPORTED_DIRTY: 11,
  EXPORTED_DIRTY_BLOCKEDW: 12,
  PENDING_BLOCKEDW: 16,
  PENDING_EXPORTED_BLOCKEDW: 17,
  PENDING_EXPORTED_DIRTY: 19,
  PENDING_EXPORTED_DIRTY_BLOCKEDW: 20,
  L2_FREE: 64,
  L2_BLOCKED: 65,
  L2_MAPPED: 68,
  NL_BLOCKED: 129,
  NL_MAPPED: 132,
  L2_NL_BLOCKED: 193,
  L2_NL_MAPPED: 196,
} as const;
export type SeptStateName = keyof typeof SEPT_STATE;
const stateNames = new Map<number, SeptStateName>(
  Object.entries(SEPT_STATE).map(([name, state]) => [state, name as SeptStateName]),
);
export const septStateName = (state: number): SeptStateName | null => stateNames.get(state) ?? null;

/** How an L1 SEPT entry holds its state: bits PS (7), IPAT (6), TDP, TDB, TDBW, TDEX (56:53), D (9), from 6 to 0. */
export const SEPT_STATE_ENCODING = {
  FREE: 0x0e,
  REMOVED: 0x0c,
  NL_MAPPED: 0x00,
  NL_BLOCKED: 0x08,
  MAPPED: 0x60,
  BLOCKED: 0x68,
  BLOCKEDW: 0x64,
  EXPORTED_BLOCKEDW: 0x66,
  EXPORTED_DIRTY: 0x63,
  EXPORTED_DIRTY_BLOCKEDW: 0x67,
  PENDING: 0x70,
  PENDING_BLOCKED: 0x78,
  PENDING_BLOCKEDW: 0x74,
  PENDING_EXPORTED_BLOCKEDW: 0x76,
  PENDING_EXPORTED_DIRTY: 0x73,
  PENDING_EXPORTED_DIRTY_BLOCKEDW: 0x77,
} as const satisfies Partial<Record<SeptStateName, number>>;
export type L1SeptStateName = keyof typeof SEPT_STATE_ENCODING;

/** Bit positions in a SEPT entry. */
export const SEPT_ENTRY_BIT = {
  R: 0,
  W: 1,
  X: 2,
  /** Bits 5:3. */
  MT: 3,
  IPAT: 6,
  /** 1: leaf. */
  PS: 7,
  A: 8,
  /** Guest-side lock, at the place of A. */
  TDGL: 8,
  D: 9,
  XU: 10,
  /** Entry lock. */
  TDEL: 11,
  /** Host priority, with TDEL. */
  TDHP: 52,
  /** Exported. */
  TDEX: 53,
  /** Blocked for writing. */
  TDBW: 54,
  /** Blocked. */
  TDB: 55,
  /** Pending. */
  TDP: 56,
  VPW: 57,
  PW: 58,
  /** Saved W. */
  TDWR: 59,
  SSS: 60,
  TDIO: 62,
  /** Suppress #VE. */
  SVE: 63,
} as const;
/** Bits 51:12: HPA of the page or table. */
export const SEPT_ENTRY_HPA_MASK = 0x000f_ffff_ffff_f000n;

/** The bits of an entry that hold its state. */
export const SEPT_STATE_MASK = (0xfn << 53n) | (3n << 6n) | (1n << 9n);
/** The bits of an L1 SEPT entry in this state. */
export const septStateBits = (encoding: number): bigint =>
  (BigInt(encoding & 1) << 9n) | (BigInt((encoding >> 1) & 0xf) << 53n) | (BigInt((encoding >> 5) & 3) << 6n);
/** The state encoding that the bits of an L1 SEPT entry hold. */
export const septEncodingOf = (entry: bigint): number =>
  Number((entry >> 9n) & 1n) | (Number((entry >> 53n) & 0xfn) << 1) | (Number((entry >> 6n) & 3n) << 5);
/** A free L1 entry: state FREE and suppress #VE. */
export const SEPT_ENTRY_FREE = septStateBits(SEPT_STATE_ENCODING.FREE) | (1n << 63n);

/** Page types of PAMT: RCX of TDH.PHYMEM.PAGE.RDMD and TDH.PHYMEM.PAGE.RECLAIM. */
export const PAGE_TYPE = {
  PT_NDA: 0,
  PT_RSVD: 1,
  PT_REG: 3,
  PT_TDR: 4,
  PT_TDCX: 5,
  PT_TDVPR: 6,
  PT_EPT: 8,
} as const;
export type PageTypeName = keyof typeof PAGE_TYPE;

/** Page sizes in operands, and SEPT levels: 0 is 4K. */
export const PAGE_SIZE_LEVEL = { PT_4KB: 0, PT_2MB: 1, PT_1GB: 2 } as const;

/** An operand "GPA and level": GPA[51:12] and level[2:0]. */
export const gpaAndLevel = (gpa: number, level: number): bigint => BigInt(gpa) | BigInt(level);
export const decodeGpaAndLevel = (
  operand: bigint,
): { readonly gpa: number; readonly level: number; readonly reserved: bigint } => ({
  gpa: Number(operand & SEPT_ENTRY_HPA_MASK),
  level: Number(operand & 7n),
  reserved: operand & ~(SEPT_ENTRY_HPA_MASK | 7n),
});
/** RDX of memory functions: level[2:0], state[15:8], VM index[17:16] of the SEPT entry that RCX shows. */
export const septLevelAndState = (level: number, state: number, vm = 0): bigint =>
  BigInt(level | (state << 8) | (vm << 16));
