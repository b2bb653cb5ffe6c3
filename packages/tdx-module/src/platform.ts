/**
 * What TDH.SYS.INIT finds out about the platform, and its checks: CPUID by table, key management, SMRR, VMX controls.
 *
 * Source: intel/tdx-module tdh_sys_init.c (check_platform_config_and_cpu_enumeration).
 */
import { type KeyId, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr, type SeamContext } from "@swtdx/cpu";
import type { CrFixedBits } from "./tables/control-registers.js";
import { CPUID_LOOKUP, type CpuidQuad, CPUID_SUBLEAF_NA } from "./tables/cpuid.js";
import { tdVmcsValues, type TdVmcsValues } from "./tables/td-vmcs.js";

const MSR = {
  TSC_ADJUST: 0x3b,
  MKTME_KEYID_PARTITIONING: 0x87,
  MTRRCAP: 0xfe,
  ARCH_CAPABILITIES: 0x10a,
  SMRR_PHYSBASE: 0x1f2,
  SMRR_PHYSMASK: 0x1f3,
  PERF_CAPABILITIES: 0x345,
  VMX_BASIC: 0x480,
  VMX_CR0_FIXED0: 0x486,
  VMX_CR4_FIXED0: 0x488,
  VMX_EPT_VPID_CAP: 0x48c,
  TME_CAPABILITY: 0x981,
  TME_ACTIVATE: 0x982,
} as const;
const TME_LOCKED = 1n << 0n;
const TME_ENABLED = 1n << 1n;
const SMRR_VALID = 1n << 11n;
const SMRR_LOCKED = 1n << 10n;
const REQUIRED_MAXPA = 52;

export interface Platform {
  /** The processor's CPUID values, by row of CPUID_LOOKUP. */
  readonly native: readonly CpuidQuad[];
  readonly fms: number;
  readonly keyIdShift: number;
  readonly firstPrivateHkid: number;
  readonly privateHkids: number;
  readonly tscAdjust: bigint;
  /** Hz, from CPUID 0x15. */
  readonly tscHz: number;
  readonly crFixed: CrFixedBits;
  readonly vmcsValues: TdVmcsValues;
  readonly vmcsRevisionId: number;
  readonly xcr0Supported: bigint;
  readonly xssSupported: bigint;
  readonly archCapabilities: bigint;
  readonly perfCapabilities: bigint;
  readonly eptVpidCap: bigint;
  /** CPUID(7,2).EDX.DDPD_U. */
  readonly ddpdSupported: boolean;
  readonly maxLbrDepth: number;
  readonly xfdFaultingMask: bigint;
  /** CPUID(0xD, n): size, offset of each component; by n. */
  readonly xstate: readonly CpuidQuad[];
  /** MSRs that every logical processor must have alike. */
  readonly msrs: ReadonlyMap<number, bigint>;
}
const COMPARED_MSRS = [
  MSR.TSC_ADJUST,
  MSR.MKTME_KEYID_PARTITIONING,
  MSR.ARCH_CAPABILITIES,
  MSR.SMRR_PHYSBASE,
  MSR.SMRR_PHYSMASK,
  MSR.VMX_BASIC,
  MSR.TME_ACTIVATE,
] as const;

const quad = (lp: SeamContext, leaf: number, subleaf: number): CpuidQuad => {
  const { eax, ebx, ecx, edx } = lp.cpuid(leaf, subleaf === CPUID_SUBLEAF_NA ? 0 : subleaf);
  return [eax >>> 0, ebx >>> 0, ecx >>> 0, edx >>> 0];
};

function msr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}

/** The first CPUID row that is not as the module needs it: reported in RCX, RDX, R8-R10 as SYS.INIT does. */
function checkCpuid(lp: SeamContext, native: readonly CpuidQuad[]): bigint {
  for (let i = 0; i < CPUID_LOOKUP.length; i++) {
    const row = CPUID_LOOKUP[i];
    if (!row) continue;
    const value = native[i];
    for (let word = 0; word < 4; word++) {
      if ((value[word] & row.verifyMask[word]) >>> 0 === row.verifyValue[word] >>> 0) continue;
      const { regs } = lp;
      regs.setGpr(Gpr.RCX, (BigInt(row.subleaf >>> 0) << 32n) | BigInt(row.leaf >>> 0));
      const pair = (a: number, b: number) => (BigInt(b >>> 0) << 32n) | BigInt(a >>> 0);
      regs.setGpr(Gpr.RDX, pair(row.verifyMask[0], row.verifyMask[1]));
      regs.setGpr(Gpr.R8, pair(row.verifyMask[2], row.verifyMask[3]));
      regs.setGpr(Gpr.R9, pair(row.verifyValue[0], row.verifyValue[1]));
      regs.setGpr(Gpr.R10, pair(row.verifyValue[2], row.verifyValue[3]));
      return TDX_STATUS.TDX_INCORRECT_CPUID_VALUE;
    }
  }
  return TDX_STATUS.TDX_SUCCESS;
}

const sampleCpuid = (lp: SeamContext): CpuidQuad[] =>
  CPUID_LOOKUP.map((row) => (row ? quad(lp, row.leaf, row.subleaf) : ([0, 0, 0, 0] as const)));

/** The checks in the module's order. @returns the platform, or the status of the first that fails */
export function samplePlatform(lp: SeamContext): Platform | bigint {
  const native = sampleCpuid(lp);
  const cpuid = checkCpuid(lp, native);
  if (cpuid !== TDX_STATUS.TDX_SUCCESS) return cpuid;
  const maxPa = quad(lp, 0x8000_0008, 0)[0] & 0xff;
  if (maxPa !== REQUIRED_MAXPA) return TDX_STATUS.TDX_INCORRECT_CPUID_VALUE;

  const tscAdjust = msr(lp, MSR.TSC_ADJUST);
  const smrrMask = msr(lp, MSR.SMRR_PHYSMASK);
  if ((smrrMask & SMRR_VALID) === 0n) return TDX_STATUS.TDX_INVALID_SMRR_CONFIGURATION;
  if ((smrrMask & SMRR_LOCKED) === 0n) return TDX_STATUS.TDX_SMRR_NOT_LOCKED;

  const activate = msr(lp, MSR.TME_ACTIVATE);
  if ((activate & TME_LOCKED) === 0n || (activate & TME_ENABLED) === 0n)
    return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, MSR.TME_ACTIVATE);
  const keyIdBits = Number((activate >> 32n) & 0xfn);
  const tdxKeyIdBits = Number((activate >> 36n) & 0xfn);
  if (keyIdBits === 0 || tdxKeyIdBits === 0)
    return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, MSR.TME_ACTIVATE);
  const partitioning = msr(lp, MSR.MKTME_KEYID_PARTITIONING);
  const firstPrivateHkid = Number(partitioning & 0xffff_ffffn) + 1;
  const privateHkids = Number(partitioning >> 32n);
  if (privateHkids === 0)
    return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, MSR.MKTME_KEYID_PARTITIONING);

  const [crystalDenominator, crystalNumerator, crystalHz] = quad(lp, 0x15, 0);
  const features = quad(lp, 7, 0);
  const vmcsValues = tdVmcsValues((index) => msr(lp, index), (features[2] & (1 << 5)) !== 0);
  if ("msr" in vmcsValues) return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, vmcsValues.msr);
  const xstate = Array.from({ length: 19 }, (_, n) => quad(lp, 0xd, n));
  const xfdFaultingMask = xstate.reduce(
    (mask, words, n) => (n > 1 && (words[2] & 4) !== 0 ? mask | (1n << BigInt(n)) : mask),
    0n,
  );
  const pair = (low: number, high: number) => (BigInt(high) << 32n) | BigInt(low);
  return {
    native,
    fms: quad(lp, 1, 0)[0],
    keyIdShift: maxPa - keyIdBits,
    firstPrivateHkid,
    privateHkids,
    tscAdjust,
    tscHz: crystalDenominator === 0 ? 0 : Math.round((crystalHz * crystalNumerator) / crystalDenominator),
    crFixed: {
      cr0Fixed0: msr(lp, MSR.VMX_CR0_FIXED0),
      cr0Fixed1: msr(lp, MSR.VMX_CR0_FIXED0 + 1),
      cr4Fixed0: msr(lp, MSR.VMX_CR4_FIXED0),
      cr4Fixed1: msr(lp, MSR.VMX_CR4_FIXED0 + 1),
    },
    vmcsValues,
    vmcsRevisionId: Number(msr(lp, MSR.VMX_BASIC) & 0x7fff_ffffn),
    xcr0Supported: pair(xstate[0][0], xstate[0][3]),
    xssSupported: pair(xstate[1][2], xstate[1][3]),
    archCapabilities: msr(lp, MSR.ARCH_CAPABILITIES),
    perfCapabilities: msr(lp, MSR.PERF_CAPABILITIES),
    eptVpidCap: msr(lp, MSR.VMX_EPT_VPID_CAP),
    ddpdSupported: (quad(lp, 7, 2)[3] & 8) !== 0,
    maxLbrDepth: (32 - Math.clz32(quad(lp, 0x1c, 0)[0] & 0xff)) << 3,
    xfdFaultingMask,
    xstate,
    msrs: new Map(COMPARED_MSRS.map((index) => [index, msr(lp, index)])),
  };
}

/** TDH.SYS.LP.INIT: this logical processor must be like the one that ran TDH.SYS.INIT. */
export function comparePlatform(lp: SeamContext, platform: Platform): bigint {
  const native = sampleCpuid(lp);
  for (let i = 0; i < CPUID_LOOKUP.length; i++) {
    const row = CPUID_LOOKUP[i];
    if (!row) continue;
    for (let word = 0; word < 4; word++) {
      if (((native[i][word] ^ platform.native[i][word]) & row.verifySame[word]) === 0) continue;
      lp.regs.setGpr(Gpr.RCX, (BigInt(row.subleaf >>> 0) << 32n) | BigInt(row.leaf >>> 0));
      return TDX_STATUS.TDX_INCONSISTENT_CPUID_FIELD;
    }
  }
  for (const [index, value] of platform.msrs)
    if (msr(lp, index) !== value) return withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, index);
  return TDX_STATUS.TDX_SUCCESS;
}

/** Bytes of an XSAVE area (standard format) for the components in `xfam`. */
export function xsaveAreaSize(platform: Platform, xfam: bigint): number {
  let size = 512 + 64;
  for (let n = 2; n < platform.xstate.length; n++) {
    // Supervisor components (ECX[0]) have no place in the standard format.
    if (((xfam >> BigInt(n)) & 1n) === 0n || (platform.xstate[n][2] & 1) !== 0) continue;
    size = Math.max(size, platform.xstate[n][1] + platform.xstate[n][0]);
  }
  return size;
}

/** A KeyID's number of the platform as a KeyId. */
export const asKeyId = (value: number): KeyId => value as KeyId;
