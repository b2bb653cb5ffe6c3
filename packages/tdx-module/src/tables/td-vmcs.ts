/**
 * Initial values of a TD VMCS: controls (with what TDH.SYS.INIT checks of the processor for them) and fields.
 *
 * Source: intel/tdx-module 1.5.05 src/common/x86_defs/vmcs_defs.h (td_vmcs_ctl_values_e),
 * src/common/data_structures/td_vmcs_init.c, src/vmm_dispatcher/api_calls/tdh_sys_init.c (check_allowed_vmx_ctls).
 */
import { GUEST_CR0_INIT, GUEST_CR4_INIT } from "./control-registers.js";
import { VMCS } from "@swtdx/cpu";

/** A control word: its value, bits that may be either, bits whose value the processor says. */
export interface VmcsControl {
  /** The capability MSR: allowed-0 settings in bits 31:0, allowed-1 in 63:32. */
  readonly msr: number;
  readonly init: bigint;
  readonly variable: bigint;
  readonly unknown: bigint;
}

export const TD_VMCS_CONTROLS = {
  pinbased: { msr: 0x48d, init: 0x29n, variable: 0x80n, unknown: 0xffffff16n },
  procbased: { msr: 0x48e, init: 0x91220088n, variable: 0x20400c00n, unknown: 0x04046173n },
  procbased2: { msr: 0x48b, init: 0x133cb3fan, variable: 0xcc000400n, unknown: 0n },
  /** Tertiary controls: the MSR has 64 allowed-1 bits. */
  procbased3: { msr: 0x492, init: 0n, variable: 0xa0n, unknown: 0xffffffffffffff40n },
  exit: { msr: 0x48f, init: 0x1f3c8204n, variable: 0x40001000n, unknown: 0x00036dfbn },
  entry: { msr: 0x490, init: 0x003ec004n, variable: 0x00402200n, unknown: 0xff8011fbn },
} as const satisfies Record<string, VmcsControl>;
export type TdVmcsControlName = keyof typeof TD_VMCS_CONTROLS;

/** Base values of the controls on this platform: what TDH.SYS.INIT keeps. */
export type TdVmcsValues = { readonly [K in TdVmcsControlName]: bigint };

/**
 * The value a control starts from on this processor, or null when the processor cannot do what the module needs
 * (TDX_INCORRECT_MSR_VALUE with the MSR's number).
 */
export function checkAllowedVmxCtls(capability: bigint, init: bigint, control: VmcsControl): bigint | null {
  const notAllowed0 = capability & 0xffffffffn;
  const allowed1 = (capability >> 32n) & 0xffffffffn;
  if ((notAllowed0 & ~(init | control.unknown)) !== 0n) return null;
  if ((init & ~allowed1) !== 0n) return null;
  if (((notAllowed0 | (~allowed1 & 0xffffffffn)) & control.variable) !== 0n) return null;
  return init | notAllowed0;
}

/** Bits of secondary controls that depend on the processor. */
export const PROCBASED2_USER_WAIT_PAUSE = 1n << 26n;
export const PROCBASED2_ENCLV_EXITING = 1n << 28n;
export const PROCBASED2_PCONFIG = 1n << 27n;
/** Tertiary control: GPAW, the width of guest-physical addresses in a TD. */
export const PROCBASED3_GPAW = 1n << 5n;
export const PROCBASED3_VIRT_SPEC_CTRL = 1n << 7n;
export const PROCBASED_RDPMC_EXITING = 1n << 11n;
export const PROCBASED_MWAIT_EXITING = 1n << 10n;
export const PROCBASED_MONITOR_EXITING = 1n << 29n;
export const PROCBASED_NMI_WINDOW_EXITING = 1n << 22n;
export const EXIT_LOAD_PERF_GLOBAL_CTRL = 1n << 12n;
export const EXIT_SAVE_PERF_GLOBAL_CTRL = 1n << 30n;
export const ENTRY_LOAD_PERF_GLOBAL_CTRL = 1n << 13n;
export const ENTRY_LOAD_PKRS = 1n << 22n;

/**
 * All controls as TDH.SYS.INIT checks them.
 * @returns the base values, or the number of the MSR that does not allow them
 */
export function tdVmcsValues(
  rdmsr: (index: number) => bigint,
  waitpkg: boolean,
): TdVmcsValues | { msr: number } {
  const out: Partial<Record<TdVmcsControlName, bigint>> = {};
  for (const name of ["pinbased", "procbased", "procbased2", "exit", "entry"] as const) {
    const control = TD_VMCS_CONTROLS[name];
    const capability = rdmsr(control.msr);
    let init: bigint = control.init;
    if (name === "procbased2") {
      if (waitpkg) init |= PROCBASED2_USER_WAIT_PAUSE;
      if (((capability >> 32n) & PROCBASED2_ENCLV_EXITING) === 0n) init &= ~PROCBASED2_ENCLV_EXITING;
    }
    const value = checkAllowedVmxCtls(capability, init, control);
    if (value === null) return { msr: control.msr };
    out[name] = value;
  }
  const tertiary = TD_VMCS_CONTROLS.procbased3;
  const allowed1 = rdmsr(tertiary.msr);
  if ((tertiary.variable & ~PROCBASED3_VIRT_SPEC_CTRL & ~allowed1) !== 0n) return { msr: tertiary.msr };
  out.procbased3 = tertiary.init;
  return out as TdVmcsValues;
}

const ALL_ONES = (1n << 64n) - 1n;

/** Guest state of a new vCPU: 32-bit protected mode at the reset vector. Zero fields are not listed. */
export const TD_VMCS_GUEST_STATE: readonly (readonly [field: number, value: bigint])[] = [
  [VMCS.GUEST_DR7, 0x400n],
  [VMCS.GUEST_RIP, 0xfffffff0n],
  [VMCS.GUEST_RFLAGS, 0x2n],
  [VMCS.GUEST_CS_LIMIT, 0xffffffffn],
  [VMCS.GUEST_CS_AR_BYTES, 0xc09bn],
  [VMCS.GUEST_DS_LIMIT, 0xffffffffn],
  [VMCS.GUEST_DS_AR_BYTES, 0xc093n],
  [VMCS.GUEST_ES_LIMIT, 0xffffffffn],
  [VMCS.GUEST_ES_AR_BYTES, 0xc093n],
  [VMCS.GUEST_FS_LIMIT, 0xffffffffn],
  [VMCS.GUEST_FS_AR_BYTES, 0xc093n],
  [VMCS.GUEST_GS_LIMIT, 0xffffffffn],
  [VMCS.GUEST_GS_AR_BYTES, 0xc093n],
  [VMCS.GUEST_SS_LIMIT, 0xffffffffn],
  [VMCS.GUEST_SS_AR_BYTES, 0xc093n],
  [VMCS.GUEST_LDTR_LIMIT, 0xffffn],
  [VMCS.GUEST_LDTR_AR_BYTES, 0x10082n],
  [VMCS.GUEST_TR_LIMIT, 0xffffn],
  [VMCS.GUEST_TR_AR_BYTES, 0x8bn],
  [VMCS.GUEST_GDTR_LIMIT, 0xffffn],
  [VMCS.GUEST_IA32_PERF_GLOBAL_CTRL, 0xffn],
  [VMCS.GUEST_IA32_PAT, 0x0007040600070406n],
  [VMCS.GUEST_IA32_EFER, 0x901n],
];

/** What every TD VMCS starts with, also an imported one. */
export const TD_VMCS_CONSTANTS: readonly (readonly [field: number, value: bigint])[] = [
  [VMCS.GUEST_CR0, GUEST_CR0_INIT],
  [VMCS.GUEST_CR4, GUEST_CR4_INIT],
  [VMCS.APIC_ACCESS_ADDR, ALL_ONES],
  [VMCS.POSTED_INTR_NV, 0xffffn],
  [VMCS.POSTED_INTR_DESC_ADDR, ALL_ONES],
  // #MC
  [VMCS.EXCEPTION_BITMAP, 1n << 18n],
  [VMCS.IO_BITMAP_A, ALL_ONES],
  [VMCS.IO_BITMAP_B, ALL_ONES],
  [VMCS.EPTP_LIST_ADDRESS, ALL_ONES],
  [VMCS.VMREAD_BITMAP, ALL_ONES],
  [VMCS.VMWRITE_BITMAP, ALL_ONES],
  [VMCS.ENCLS_EXITING_BITMAP, ALL_ONES],
  [VMCS.PML_ADDRESS, ALL_ONES],
  [VMCS.PCONFIG_EXITING_BITMAP, ALL_ONES],
  [VMCS.EXECUTIVE_VMCS_POINTER, ALL_ONES],
  [VMCS.VM_EXIT_MSR_STORE_ADDR, ALL_ONES],
  [VMCS.VM_EXIT_MSR_LOAD_ADDR, ALL_ONES],
  [VMCS.VM_ENTRY_MSR_LOAD_ADDR, ALL_ONES],
  [VMCS.VMCS_LINK_POINTER, ALL_ONES],
  [VMCS.GUEST_PDPTR0, ALL_ONES],
  [VMCS.GUEST_PDPTR1, ALL_ONES],
  [VMCS.GUEST_PDPTR2, ALL_ONES],
  [VMCS.GUEST_PDPTR3, ALL_ONES],
];

/** Value of the posted-interrupt notification vector while the host has set none. */
export const POSTED_INTERRUPT_NOTIFICATION_VECTOR_INIT = 0xffff;
/** "No address" in shadow fields and in TDX-specific address fields. */
export const NULL_PA = ALL_ONES;

/** VPID of a TD: HKID in bits 15:2, VM in 1:0. */
export const composeVpid = (vm: number, hkid: number): number =>
  vm >= 4 || hkid >= 4096 ? 0 : (hkid << 2) | vm;

/** Registers of a new vCPU outside the VMCS. */
export const XCR0_RESET_STATE = 0x1n;
export const DR6_RESET_STATE = 0xffff0ff0n;
export const IA32_FMASK_RESET_STATE = 0x20200n;
