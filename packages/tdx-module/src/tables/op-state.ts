/**
 * Which interface functions a TD's OP_STATE allows. Functions in no row do not depend on it.
 *
 * Source: intel/tdx-module 1.5.05 include/auto_gen/op_state_lookup.c.
 */

/** Columns: UNINITIALIZED, INITIALIZED, RUNNABLE, LIVE_EXPORT, PAUSED_EXPORT, POST_EXPORT, MEMORY_IMPORT, STATE_IMPORT, POST_IMPORT, LIVE_IMPORT, FAILED_IMPORT. */
// prettier-ignore
const SEAMCALL_OP_STATE: Readonly<Record<number, string>> = {
  0: "00110000010",
  1: "10000000000",
  2: "01000000000",
  3: "01110011110",
  4: "01000001000",
  5: "01111100110",
  6: "01110000010",
  7: "01111100110",
  10: "01000001000",
  11: "01111111111",
  12: "01111111111",
  13: "01110011111",
  14: "01110011111",
  15: "01111100110",
  16: "01000000000",
  17: "01000000000",
  18: "11111111111",
  21: "10000000000",
  22: "01000000000",
  23: "01111100110",
  25: "01111111111",
  26: "01111111111",
  29: "01111100111",
  30: "01111111111",
  38: "01111111110",
  39: "01111100110",
  43: "01110011111",
  48: "11110000110",
  49: "11000000000",
  64: "00011100000",
  65: "00010000000",
  66: "00100000000",
  68: "00011100000",
  70: "00010000000",
  71: "00011000000",
  72: "00100000010",
  73: "00001000000",
  74: "00001000000",
  75: "00111100000",
  80: "00000011101",
  81: "00000000110",
  82: "00000000100",
  83: "00000011110",
  84: "00000011000",
  85: "10000000000",
  86: "00000010000",
  87: "00000001000",
  96: "11100000000",
};

/** Of the TD that a service TD's TDCALL addresses. */
const TDCALL_OP_STATE: Readonly<Record<number, string>> = {
  18: "11111111111",
  20: "11110011111",
};

/** Whether SEAMCALL leaf `leaf` may work on a TD in this OP_STATE. */
export const opStateIsSeamcallAllowed = (leaf: number, opState: number): boolean =>
  SEAMCALL_OP_STATE[leaf]?.[opState] === "1";
export const opStateIsTdcallAllowed = (leaf: number, opState: number): boolean =>
  TDCALL_OP_STATE[leaf]?.[opState] === "1";

/** RUNNABLE, LIVE_EXPORT, LIVE_IMPORT: the guest may run, so removing memory needs TLB tracking. */
export const opStateNeedsTlbTracking = (opState: number): boolean =>
  opState === 2 || opState === 3 || opState === 9;
