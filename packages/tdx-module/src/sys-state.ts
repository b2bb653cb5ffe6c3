/** SYS_STATE: how far the module's initialization has come. Source: intel/tdx-module tdx_global_data.h. */

/** Global state of the module. */
export const SysState = {
  SYSINIT_PENDING: 0,
  SYSINIT_DONE: 1,
  SYSCONFIG_DONE: 2,
  SYS_READY: 3,
  SYS_SHUTDOWN: 4,
} as const;
export type SysState = (typeof SysState)[keyof typeof SysState];
