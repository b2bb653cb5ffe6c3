/**
 * Which interface functions work on a Secure EPT entry in which state, and what blocking makes of it.
 * Source: intel/tdx-module 1.5.05 include/auto_gen/sept_state_lookup.c (seamcall_sept_state_lookup),
 * src/vmm_dispatcher/api_calls/tdh_mem_range_block.c, src/common/memory_handlers/sept_manager.h (sept_unblock).
 */
import { SEPT_STATES, SeptState } from "../structures/sept.js";

/** By SEAMCALL leaf; columns are the states in the order of SEPT_STATES. */
// prettier-ignore
const SEAMCALL_SEPT_STATE: Readonly<Record<number, string>> = {
  2: "1000000000000000",
  3: "1010000000000000",
  5: "0000111111111111",
  6: "1100000000000000",
  7: "0010101000101000",
  12: "0000101111000000",
  14: "0000100010000000",
  15: "0000110000110000",
  16: "0000100000000000",
  23: "0011000000000000",
  25: "1111111111111111",
  29: "0000111000111000",
  30: "0011000000000000",
  39: "0001010000010000",
};

const ALLOWED = new Map<number, boolean[]>(
  Object.entries(SEAMCALL_SEPT_STATE).map(([leaf, row]) => {
    const allowed: boolean[] = [];
    SEPT_STATES.forEach(({ name }, i) => (allowed[SeptState[name]] = row[i] === "1"));
    return [Number(leaf), allowed];
  }),
);

type Transitions = Readonly<Partial<Record<SeptState, SeptState>>>;
/** What TDH.MEM.RANGE.BLOCK makes of each state. */
export const SEPT_BLOCKED: Transitions = {
  [SeptState.NL_MAPPED]: SeptState.NL_BLOCKED,
  [SeptState.MAPPED]: SeptState.BLOCKED,
  [SeptState.BLOCKEDW]: SeptState.BLOCKED,
  [SeptState.PENDING]: SeptState.PENDING_BLOCKED,
  [SeptState.PENDING_BLOCKEDW]: SeptState.PENDING_BLOCKED,
};
/** What it was: TDH.MEM.RANGE.UNBLOCK, and functions that end with an entry that is not blocked. */
export const SEPT_UNBLOCKED: Transitions = {
  [SeptState.NL_BLOCKED]: SeptState.NL_MAPPED,
  [SeptState.BLOCKED]: SeptState.MAPPED,
  [SeptState.PENDING_BLOCKED]: SeptState.PENDING,
};

/** Whether SEAMCALL leaf `leaf` may work on an entry in this state. */
export const septStateIsSeamcallAllowed = (leaf: number, state: SeptState): boolean =>
  ALLOWED.get(leaf)?.[state] ?? false;
