/**
 * Values that the guest reads from the VMX capability MSRs and IA32_ARCH_CAPABILITIES: computed by TDH.MNG.INIT.
 * The VMX ones tell an L1 VMM what an L2 VM may do.
 *
 * Source: intel/tdx-module 1.5.05 src/common/helpers/virt_msr_helpers.{c,h}, src/common/x86_defs/vmcs_defs.h
 * (td_l2_vmcs_ctl_values_e).
 */
import { TD_ATTRIBUTES } from "@swtdx/abi";
import type { CrFixedBits } from "./control-registers.js";
import {
  ENTRY_LOAD_PERF_GLOBAL_CTRL,
  ENTRY_LOAD_PKRS,
  EXIT_LOAD_PERF_GLOBAL_CTRL,
  EXIT_SAVE_PERF_GLOBAL_CTRL,
  PROCBASED2_PCONFIG,
  PROCBASED2_USER_WAIT_PAUSE,
  PROCBASED_MONITOR_EXITING,
  PROCBASED_MWAIT_EXITING,
  PROCBASED_RDPMC_EXITING,
} from "./td-vmcs.js";

/** Fields of TDCS and the MSRs they answer, in TDCS order. */
export const VIRTUAL_VMX_MSRS = {
  VIRT_IA32_VMX_BASIC: 0x480,
  VIRT_IA32_VMX_MISC: 0x485,
  VIRT_IA32_VMX_CR0_FIXED0: 0x486,
  VIRT_IA32_VMX_CR0_FIXED1: 0x487,
  VIRT_IA32_VMX_CR4_FIXED0: 0x488,
  VIRT_IA32_VMX_CR4_FIXED1: 0x489,
  VIRT_IA32_VMX_PROCBASED_CTLS2: 0x48b,
  VIRT_IA32_VMX_EPT_VPID_CAP: 0x48c,
  VIRT_IA32_VMX_TRUE_PINBASED_CTLS: 0x48d,
  VIRT_IA32_VMX_TRUE_PROCBASED_CTLS: 0x48e,
  VIRT_IA32_VMX_TRUE_EXIT_CTLS: 0x48f,
  VIRT_IA32_VMX_TRUE_ENTRY_CTLS: 0x490,
  VIRT_IA32_VMX_VMFUNC: 0x491,
  VIRT_IA32_VMX_PROCBASED_CTLS3: 0x492,
} as const;
/** TDCS offset of the first, 8 bytes each; VIRT_IA32_VMX_EXIT_CTLS2 and VIRT_IA32_ARCH_CAPABILITIES follow. */
export const VIRTUAL_MSRS_OFFSET = 0x700;
export const VIRT_IA32_ARCH_CAPABILITIES_OFFSET = VIRTUAL_MSRS_OFFSET + 15 * 8;

/** Place of an MSR in TDCS, by number. */
export const VIRTUAL_VMX_MSR_OFFSET: ReadonlyMap<number, number> = new Map(
  Object.values(VIRTUAL_VMX_MSRS).map((index, i) => [index, VIRTUAL_MSRS_OFFSET + i * 8]),
);

const L2 = {
  pinbased: { init: 0x29n, l1: 0n },
  procbased: { init: 0x91220088n, l1: 0x48d99a04n },
  procbased2: { init: 0x1338b3fan, l1: 0x0c513e0cn },
  procbased3: { init: 0n, l1: 0xen },
  exit: { init: 0x1f3c8204n, l1: 0n },
  entry: { init: 0x003ec004n, l1: 0x200n },
  cr0: { init: 0x21n, l1: 0x8005001fn },
  cr4: { init: 0x2040n, l1: 0x1bff1fbfn },
} as const;

export interface VirtualMsrInput {
  readonly attributes: bigint;
  readonly xfam: bigint;
  readonly waitpkg: boolean;
  readonly pconfig: boolean;
  readonly monitorMwait: boolean;
  readonly crFixed: CrFixedBits;
  /** Bits that the processor's capability MSRs fix to 1, by control. */
  readonly fixed1: {
    readonly pinbased: bigint;
    readonly procbased: bigint;
    readonly exit: bigint;
    readonly entry: bigint;
  };
  /** IA32_VMX_EPT_VPID_CAP of the processor. */
  readonly eptVpidCap: bigint;
}

const allowed32 = (init: bigint, variable: bigint): bigint =>
  (((init | variable) & 0xffffffffn) << 32n) | (init & ~variable & 0xffffffffn);
const put = (value: bigint, mask: bigint, on: boolean): bigint => (on ? value | mask : value & ~mask);

/** Values by MSR number. */
export function virtualVmxMsrs(input: VirtualMsrInput): ReadonlyMap<number, bigint> {
  const { attributes } = input;
  const perfmon = (attributes & TD_ATTRIBUTES.PERFMON) !== 0n;
  const debug = (attributes & TD_ATTRIBUTES.DEBUG) !== 0n;
  const pks = (attributes & TD_ATTRIBUTES.PKS) !== 0n;
  let procbased = L2.procbased.init | input.fixed1.procbased;
  procbased = put(procbased, PROCBASED_MWAIT_EXITING | PROCBASED_MONITOR_EXITING, !input.monitorMwait);
  procbased = put(procbased, PROCBASED_RDPMC_EXITING, !perfmon);
  let procbased2 = put(L2.procbased2.init, PROCBASED2_USER_WAIT_PAUSE, input.waitpkg);
  procbased2 = put(procbased2, PROCBASED2_PCONFIG, input.pconfig);
  const perf = perfmon || debug;
  const exit = put(
    L2.exit.init | input.fixed1.exit,
    EXIT_LOAD_PERF_GLOBAL_CTRL | EXIT_SAVE_PERF_GLOBAL_CTRL,
    perf,
  );
  let entry = put(L2.entry.init | input.fixed1.entry, ENTRY_LOAD_PERF_GLOBAL_CTRL, perf);
  entry = put(entry, ENTRY_LOAD_PKRS, pks || debug);
  const cr4Mask = l2Cr4WriteMask(input);
  const m = VIRTUAL_VMX_MSRS;
  const procbasedMask = put(L2.procbased.l1, PROCBASED_RDPMC_EXITING, perfmon);
  let procbased2Mask = put(L2.procbased2.l1, PROCBASED2_USER_WAIT_PAUSE, input.waitpkg);
  procbased2Mask = put(procbased2Mask, PROCBASED2_PCONFIG, input.pconfig);
  return new Map<number, bigint>([
    [m.VIRT_IA32_VMX_BASIC, (1n << 54n) | (1n << 55n) | (1n << 56n)],
    [
      m.VIRT_IA32_VMX_MISC,
      (1n << 5n) | (1n << 6n) | (1n << 7n) | (1n << 14n) | (4n << 16n) | (1n << 29n) | (1n << 30n),
    ],
    [m.VIRT_IA32_VMX_CR0_FIXED0, L2.cr0.init & ~L2.cr0.l1],
    [m.VIRT_IA32_VMX_CR0_FIXED1, L2.cr0.init | L2.cr0.l1],
    [m.VIRT_IA32_VMX_CR4_FIXED0, L2.cr4.init & ~cr4Mask],
    [m.VIRT_IA32_VMX_CR4_FIXED1, L2.cr4.init | cr4Mask],
    [m.VIRT_IA32_VMX_PROCBASED_CTLS2, allowed32(procbased2, procbased2Mask)],
    [m.VIRT_IA32_VMX_EPT_VPID_CAP, eptVpidCap(input)],
    [m.VIRT_IA32_VMX_TRUE_PINBASED_CTLS, allowed32(L2.pinbased.init | input.fixed1.pinbased, L2.pinbased.l1)],
    [m.VIRT_IA32_VMX_TRUE_PROCBASED_CTLS, allowed32(procbased, procbasedMask)],
    [m.VIRT_IA32_VMX_TRUE_EXIT_CTLS, allowed32(exit, L2.exit.l1)],
    [m.VIRT_IA32_VMX_TRUE_ENTRY_CTLS, allowed32(entry, L2.entry.l1)],
    [m.VIRT_IA32_VMX_VMFUNC, 0n],
    [m.VIRT_IA32_VMX_PROCBASED_CTLS3, L2.procbased3.init | L2.procbased3.l1],
  ]);
}

/** Execute-only, 2M and 1G pages, advanced exit information; supervisor shadow stacks with CET. */
const eptVpidCap = (input: VirtualMsrInput): bigint =>
  (1n << 0n) |
  (1n << 16n) |
  (1n << 17n) |
  (1n << 22n) |
  (((input.xfam >> 12n) & 1n) << 23n) |
  (input.eptVpidCap & (0x3fn << 48n));

const l2Cr4WriteMask = ({ attributes, xfam, crFixed }: VirtualMsrInput): bigint => {
  let mask = L2.cr4.l1 & ~crFixed.cr4Fixed0 & crFixed.cr4Fixed1 & ~(1n << 19n);
  if (((xfam >> 9n) & 1n) === 0n) mask &= ~(1n << 22n);
  if (((xfam >> 11n) & 3n) !== 3n) mask &= ~(1n << 23n);
  if (((xfam >> 14n) & 1n) === 0n) mask &= ~(1n << 25n);
  if ((attributes & TD_ATTRIBUTES.PKS) === 0n) mask &= ~(1n << 24n);
  if ((attributes & TD_ATTRIBUTES.LASS) === 0n) mask &= ~(1n << 27n);
  return mask;
};

/** Bits of IA32_ARCH_CAPABILITIES that TD_PARAMS may configure: SSB_NO, RRSBA, BHI_NO, PBRSB_NO. */
export const IA32_ARCH_CAPABILITIES_CONFIG_MASK = (1n << 4n) | (1n << 19n) | (1n << 20n) | (1n << 24n);
const FIXED_0 =
  (1n << 9n) |
  (1n << 10n) |
  (1n << 11n) |
  (1n << 16n) |
  (1n << 17n) |
  (1n << 18n) |
  (1n << 22n) |
  (1n << 23n);
/** XAPIC_DISABLE_STATUS. */
const FIXED_1 = 1n << 21n;

/**
 * The TD's IA32_ARCH_CAPABILITIES.
 * @param configured TD_PARAMS.MSR_CONFIG_CTLS bit 0
 * @returns null: OPERAND_INVALID, IA32_ARCH_CAPABILITIES_CONFIG
 */
export function virtualArchCapabilities(
  native: bigint,
  configured: boolean,
  config: bigint,
  tsx: boolean,
): bigint | null {
  if (!configured && config !== 0n) return null;
  if ((config & ~IA32_ARCH_CAPABILITIES_CONFIG_MASK) !== 0n) return null;
  let value = native & 0x1ffffffn & ~FIXED_0;
  for (const n of [4n, 20n, 24n]) if (((config >> n) & 1n) === 0n) value &= ~(1n << n);
  if (((config >> 19n) & 1n) !== 0n) value |= 1n << 19n;
  if (!tsx) value &= ~(1n << 7n);
  return value | FIXED_1;
}
