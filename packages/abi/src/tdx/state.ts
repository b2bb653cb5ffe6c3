/**
 * States that metadata fields show, and limits of a 1.5 module.
 * intel/tdx-module src/common/data_structures/td_control_structures.h, tdx_global_data.h; include/auto_gen/op_state_lookup.h.
 */

/** TDR.LIFECYCLE_STATE. */
export const LIFECYCLE_STATE = {
  TD_HKID_ASSIGNED: 0,
  TD_KEYS_CONFIGURED: 1,
  TD_BLOCKED: 2,
  TD_TEARDOWN: 3,
} as const;

/** TDCS.OP_STATE. */
export const OP_STATE = {
  UNINITIALIZED: 0,
  INITIALIZED: 1,
  RUNNABLE: 2,
  LIVE_EXPORT: 3,
  PAUSED_EXPORT: 4,
  POST_EXPORT: 5,
  MEMORY_IMPORT: 6,
  STATE_IMPORT: 7,
  POST_IMPORT: 8,
  LIVE_IMPORT: 9,
  FAILED_IMPORT: 10,
} as const;

/** Control pages of a TD and of a vCPU, 4 KiB each, in a 1.5 module without L2 VMs. */
export const TDX_1_5_PAGES = { TDR: 1, TDCS: 6, TDVPS: 6 } as const;

/** RDX of TDH.VP.ENTER's asynchronous exits: extended exit qualification, type in bits 3:0, info in 63:32. */
export const VMX_EEQ_TYPE = {
  NONE: 0,
  ACCEPT: 1,
  GPA_DETAILS: 2,
  TD_ENTRY_MSR_LOAD_FAILURE: 3,
  TD_ENTRY_XSTATE_LOAD_FAILURE: 4,
  ATTR_WR: 5,
  PENDING_EPT_VIOLATION: 6,
} as const;
