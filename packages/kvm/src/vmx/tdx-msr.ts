/** MSRs that KVM answers for a TD. Source: Linux arch/x86/kvm/vmx/tdx.c (tdx_has_emulated_msr, tdx_is_read_only_msr). */
import type { Vcpu } from "../vcpu.js";
import { IA32_TSC_DEADLINE } from "../x86/lapic.js";

const APIC_BASE = 0x1b;
/** Enabled, x2APIC. */
const APIC_BASE_VALUE = 0xfee0_0c00n;
const BSP = 0x100n;
const X2APIC = { FIRST: 0x800, LAST: 0x83f } as const;

interface Msr {
  readonly reset: bigint;
  readonly readOnly?: boolean;
}
const range = (first: number, count: number, msr: Msr): [number, Msr][] =>
  Array.from({ length: count }, (_, i) => [first + i, msr]);

/** Those with a value of their own; local APIC and APIC base are apart. */
const MSRS: ReadonlyMap<number, Msr> = new Map<number, Msr>([
  [0x3a, { reset: 1n, readOnly: true }], // IA32_FEAT_CTL: locked
  [0x8b, { reset: 0x1_0000_0000n, readOnly: true }], // IA32_UCODE_REV
  [0xce, { reset: 0n }], // MSR_PLATFORM_INFO
  [0xfe, { reset: 0x508n, readOnly: true }], // IA32_MTRRCAP
  [0x140, { reset: 0n }], // MSR_MISC_FEATURES_ENABLES
  [0x179, { reset: 0x900_0020n, readOnly: true }], // IA32_MCG_CAP
  [0x17a, { reset: 0n }], // IA32_MCG_STATUS
  [0x17b, { reset: ~0n & 0xffff_ffff_ffff_ffffn }], // IA32_MCG_CTL
  [0x1a0, { reset: 0x1001n }], // IA32_MISC_ENABLE
  [0x1fc, { reset: 0n }], // MSR_POWER_CTL
  ...range(0x200, 16, { reset: 0n }), // variable MTRRs
  [0x250, { reset: 0x0606_0606_0606_0606n }],
  [0x258, { reset: 0x0606_0606_0606_0606n }],
  [0x259, { reset: 0n }],
  ...range(0x268, 8, { reset: 0x0606_0606_0606_0606n }),
  [0x277, { reset: 0x0007_0406_0007_0406n }], // IA32_PAT
  [0x2ff, { reset: 0xc06n }], // IA32_MTRR_DEF_TYPE
  ...range(0x280, 32, { reset: 0n }), // IA32_MCi_CTL2
  ...range(0x400, 32 * 4, { reset: 0n }), // machine-check banks
  [0xc000_0080, { reset: 0xd01n, readOnly: true }], // EFER
  [0x4b56_4d05, { reset: 1n }], // KVM_POLL_CONTROL
]);
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const MC0_CTL_LEFT_OUT = (1n << 10n) | 1n;
const values = new WeakMap<Vcpu, Map<number, bigint>>();

const isLapic = (index: number): boolean =>
  (index >= X2APIC.FIRST && index <= X2APIC.LAST) || index === IA32_TSC_DEADLINE;

/** An MSR that is no more than a value; null: there is none. */
export function readPlainMsr(vcpu: Vcpu, index: number): bigint | null {
  const msr = MSRS.get(index);
  return msr ? (values.get(vcpu)?.get(index) ?? msr.reset) : null;
}

/** Machine-check banks: all of CTL or nothing (firmware leaves out two bits); STATUS can only be cleared (set_msr_mce). */
function bankTakes(index: number, value: bigint): boolean {
  if (index < 0x400 || index >= 0x480) return true;
  if ((index & 3) === 0) return value === 0n || (value | MC0_CTL_LEFT_OUT) === ALL_ONES;
  return (index & 3) !== 1 || value === 0n;
}

/** @returns false: there is no such MSR, or it is read only */
export function writePlainMsr(vcpu: Vcpu, index: number, value: bigint): boolean {
  const msr = MSRS.get(index);
  if (!msr || msr.readOnly || !bankTakes(index, value)) return false;
  let own = values.get(vcpu);
  if (!own) values.set(vcpu, (own = new Map<number, bigint>()));
  own.set(index, value);
  return true;
}

/** The value, or null: KVM has no such MSR for a TD. */
export function readGuestMsr(vcpu: Vcpu, index: number): bigint | null {
  if (isLapic(index)) return vcpu.lapic.read(index);
  if (index === APIC_BASE) return APIC_BASE_VALUE | (vcpu.id === 0 ? BSP : 0n);
  return readPlainMsr(vcpu, index);
}

/** @returns false: KVM has no such MSR for a TD, or it is read only */
export function writeGuestMsr(vcpu: Vcpu, index: number, value: bigint): boolean {
  return isLapic(index) ? vcpu.lapic.write(index, value) : writePlainMsr(vcpu, index, value);
}
