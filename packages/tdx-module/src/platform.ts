/**
 * What TDH.SYS.INIT finds out about the platform, and its checks; TDH.SYS.LP.INIT's comparison.
 *
 * Source: intel/tdx-module 1.5.05 tdh_sys_init.c (check_platform_config_and_cpu_enumeration), tdh_sys_lp_init.c
 * (check_enumeration_and_compare_configuration); the tables are in tables/platform-checks.ts and tables/cpuid.ts.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr, type SeamContext } from "@swtdx/cpu";
import type { SysInfoTable } from "./seamldr/sysinfo-table.js";
import type { CrFixedBits } from "./tables/control-registers.js";
import { CPUID_LOOKUP, cpuidLeafSubleaf, type CpuidQuad, CPUID_SUBLEAF_NA } from "./tables/cpuid.js";
import {
  MAX_FIXED_CTR,
  MAX_HKIDS,
  MIN_CR3_TARGETS,
  MIN_LAST_BASE_LEAF,
  MIN_LAST_EXTENDED_LEAF,
  MIN_PERFMON_VERSION,
  MISC_ENABLE_CHECK,
  MISC_ENABLE_LIMIT_CPUID_MAXVAL,
  MSR,
  MSR_CHECKS,
  type MsrCheck,
  MTRRCAP_SMRR,
  MTRRCAP_SMRR_LOCK,
  SAME_MSRS_AFTER_CPUID,
  SAME_MSRS_BEFORE_CPUID,
  SMRR_LOCKED,
  SMRR_VALID,
  TME_ACTIVATE_ALGORITHMS_SHIFT,
  TME_ACTIVATE_LOCKED,
  TME_ALGORITHMS,
  VMX_BASIC_CHECK,
  VMX_CHECKS,
} from "./tables/platform-checks.js";
import { tdVmcsValues, type TdVmcsValues } from "./tables/td-vmcs.js";

const REQUIRED_MAXPA = 52;
const { TDX_SUCCESS, TDX_INCORRECT_MSR_VALUE, TDX_INCORRECT_CPUID_VALUE } = TDX_STATUS;

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

const quad = (lp: SeamContext, leaf: number, subleaf: number): CpuidQuad => {
  const { eax, ebx, ecx, edx } = lp.cpuid(leaf, subleaf === CPUID_SUBLEAF_NA ? 0 : subleaf);
  return [eax >>> 0, ebx >>> 0, ecx >>> 0, edx >>> 0];
};
const pair = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

function msr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}
const incorrectMsr = (index: number): bigint => withOperand(TDX_INCORRECT_MSR_VALUE, index);
const checkMsr = (lp: SeamContext, { msr: index, mask, value }: MsrCheck): bigint =>
  (msr(lp, index) & mask) === value ? TDX_SUCCESS : incorrectMsr(index);
function checkMsrs(lp: SeamContext, checks: readonly MsrCheck[]): bigint {
  for (const check of checks) {
    const status = checkMsr(lp, check);
    if (status !== TDX_SUCCESS) return status;
  }
  return TDX_SUCCESS;
}

// ---- CPUID

/** A CPUID leaf that is not as the module needs it: leaf, mask and value in RCX, RDX, R8-R10. */
function incorrectCpuid(
  lp: SeamContext,
  leaf: number,
  subleaf: number,
  mask: CpuidQuad,
  value: CpuidQuad,
): bigint {
  const { regs } = lp;
  regs.setGpr(Gpr.RCX, cpuidLeafSubleaf(leaf, subleaf));
  regs.setGpr(Gpr.RDX, pair(mask[0], mask[1]));
  regs.setGpr(Gpr.R8, pair(mask[2], mask[3]));
  regs.setGpr(Gpr.R9, pair(value[0], value[1]));
  regs.setGpr(Gpr.R10, pair(value[2], value[3]));
  return TDX_INCORRECT_CPUID_VALUE;
}

const LEVEL = { INVALID: 0, SMT: 1, CORE: 2, MAX: 6 } as const;

/** Topology as CPUID 0x1F tells it, level by level; the L3 cache must be the whole package's. */
class TopologyScan {
  #previous: number = LEVEL.INVALID;
  #shift = -1;
  #core = false;

  check(subleaf: number, [eax, , ecx]: CpuidQuad, lpsSharingL3: number): bigint {
    const level = (ecx >>> 8) & 0xff;
    if (level !== LEVEL.INVALID) {
      if (level <= this.#previous || level >= LEVEL.MAX)
        return TDX_STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
      this.#shift = eax & 0x1f;
      if (level === LEVEL.CORE) this.#core = true;
    } else {
      if (subleaf === 0 || !this.#core) return withOperand(TDX_STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, "RAX");
      if (this.#previous !== LEVEL.INVALID && lpsSharingL3 >>> (this.#shift - 1) !== 1)
        return TDX_STATUS.TDX_INVALID_WBINVD_SCOPE;
    }
    this.#previous = level;
    return TDX_SUCCESS;
  }
}

/** The checks of a leaf beyond those of its row. */
function checkLeaf(
  lp: SeamContext,
  row: { leaf: number; subleaf: number },
  value: CpuidQuad,
  scan: { topology: TopologyScan; lpsSharingL3: number; la57: boolean },
): bigint {
  const { leaf, subleaf } = row;
  const incorrect = (mask: CpuidQuad, expected: CpuidQuad) =>
    incorrectCpuid(lp, leaf, subleaf, mask, expected);
  switch (leaf) {
    case 4:
      if (subleaf === 3) scan.lpsSharingL3 = (value[0] >>> 14) & 0xfff;
      return TDX_SUCCESS;
    case 7:
      if (subleaf === 0) scan.la57 = (value[2] & (1 << 16)) !== 0;
      return TDX_SUCCESS;
    case 0xa:
      if ((value[0] & 0xff) < MIN_PERFMON_VERSION)
        return incorrect([0xf, 0, 0, 0], [MIN_PERFMON_VERSION, 0, 0, 0]);
      if ((value[3] & 0x1f) > MAX_FIXED_CTR) return incorrect([0, 0, 0, 0x1f], [0, 0, 0, MAX_FIXED_CTR]);
      return TDX_SUCCESS;
    case 0x15:
      return value[1] === 0 ? withOperand(TDX_STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, leaf) : TDX_SUCCESS;
    case 0x1f:
      return scan.topology.check(subleaf, value, scan.lpsSharingL3);
    case 0x8000_0008: {
      const width = scan.la57 ? 57 : 48;
      return ((value[0] >>> 8) & 0xff) === width
        ? TDX_SUCCESS
        : incorrect([0xff00, 0, 0, 0], [width << 8, 0, 0, 0]);
    }
    default:
      return TDX_SUCCESS;
  }
}

const isLeafThere = (leaf: number, lastBase: number, lastExtended: number): boolean =>
  leaf <= lastBase || (leaf >= 0x8000_0000 && leaf <= lastExtended);

/** Samples CPUID by table and checks it. @returns the values by row, or the status */
function sampleCpuid(lp: SeamContext): CpuidQuad[] | bigint {
  if ((msr(lp, MSR.MISC_ENABLE) & MISC_ENABLE_LIMIT_CPUID_MAXVAL) !== 0n)
    return TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const misc = checkMsr(lp, MISC_ENABLE_CHECK);
  if (misc !== TDX_SUCCESS) return misc;
  const [lastBase] = quad(lp, 0, 0);
  if (lastBase < MIN_LAST_BASE_LEAF)
    return withOperand(TDX_STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, MIN_LAST_BASE_LEAF);
  const [lastExtended] = quad(lp, 0x8000_0000, 0);
  if (lastExtended < MIN_LAST_EXTENDED_LEAF)
    return withOperand(TDX_STATUS.TDX_CPUID_LEAF_NOT_SUPPORTED, MIN_LAST_EXTENDED_LEAF);
  const scan = { topology: new TopologyScan(), lpsSharingL3: 0, la57: false };
  const values: CpuidQuad[] = [];
  for (const row of CPUID_LOOKUP) {
    if (!row) {
      values.push([0, 0, 0, 0]);
      continue;
    }
    const { leaf, verifyMask, verifyValue } = row;
    const value: CpuidQuad = isLeafThere(leaf, lastBase, lastExtended)
      ? quad(lp, leaf, row.subleaf)
      : [0, 0, 0, 0];
    if (value.some((word, i) => (word & verifyMask[i]) >>> 0 !== verifyValue[i] >>> 0))
      return incorrectCpuid(lp, leaf, row.subleaf, verifyMask, verifyValue);
    const status = checkLeaf(lp, row, value, scan);
    if (status !== TDX_SUCCESS) return status;
    values.push(value);
  }
  return values;
}

// ---- The rest

function checkVmx(lp: SeamContext, waitpkg: boolean): TdVmcsValues | bigint {
  const basic = checkMsr(lp, VMX_BASIC_CHECK);
  if (basic !== TDX_SUCCESS) return basic;
  const values = tdVmcsValues((index) => msr(lp, index), waitpkg);
  if ("msr" in values) return incorrectMsr(values.msr);
  if (((msr(lp, MSR.VMX_MISC) >> 16n) & 0x1ffn) < MIN_CR3_TARGETS) return incorrectMsr(MSR.VMX_MISC);
  const checked = checkMsrs(lp, VMX_CHECKS);
  return checked === TDX_SUCCESS ? values : checked;
}

function checkKeyManagement(lp: SeamContext, sysInfo: SysInfoTable): bigint {
  const activate = msr(lp, MSR.TME_ACTIVATE);
  if ((activate & TME_ACTIVATE_LOCKED) === 0n) return incorrectMsr(MSR.TME_ACTIVATE);
  const algorithms = sysInfo.tdxWithoutIntegrity
    ? TME_ALGORITHMS.WITHOUT_INTEGRITY
    : TME_ALGORITHMS.WITH_INTEGRITY;
  if ((msr(lp, MSR.TME_CAPABILITY) & algorithms) === 0n) return incorrectMsr(MSR.TME_CAPABILITY);
  if (((activate >> TME_ACTIVATE_ALGORITHMS_SHIFT) & algorithms) === 0n)
    return incorrectMsr(MSR.TME_ACTIVATE);
  const partitioning = msr(lp, MSR.MKTME_KEYID_PARTITIONING);
  const last = (partitioning & 0xffff_ffffn) + (partitioning >> 32n);
  if (last >= BigInt(MAX_HKIDS))
    return withOperand(TDX_STATUS.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, MAX_HKIDS);
  return msr(lp, MSR.WBNOINVDP) === msr(lp, MSR.WBINVDP) ? TDX_SUCCESS : incorrectMsr(MSR.WBNOINVDP);
}

/** SMRR: there, locked, a range in the first 4 GiB that no CMR overlaps. */
function checkSmrr(lp: SeamContext, sysInfo: SysInfoTable): bigint {
  const cap = msr(lp, MSR.MTRRCAP);
  if ((cap & MTRRCAP_SMRR) === 0n) return TDX_STATUS.TDX_SMRR_NOT_SUPPORTED;
  if ((cap & MTRRCAP_SMRR_LOCK) === 0n) return TDX_STATUS.TDX_SMRR_LOCK_NOT_SUPPORTED;
  const mask = msr(lp, MSR.SMRR_PHYSMASK);
  if ((mask & SMRR_LOCKED) === 0n) return TDX_STATUS.TDX_SMRR_NOT_LOCKED;
  if ((mask & SMRR_VALID) === 0n) return TDX_SUCCESS;
  const rangeMask = Number(mask & 0xffff_f000n);
  const size = 2 ** 32 - rangeMask;
  const base = Number(msr(lp, MSR.SMRR_PHYSBASE) & 0xffff_f000n);
  // Ones down to a bit, zeros from there; the base has nothing below it.
  if (rangeMask === 0 || 2 ** Math.round(Math.log2(size)) !== size || base % size !== 0)
    return TDX_STATUS.TDX_INVALID_SMRR_CONFIGURATION;
  const cmr = sysInfo.cmrs.findIndex((one) => base < one.base + one.size && one.base < base + size);
  return cmr < 0 ? TDX_SUCCESS : TDX_STATUS.TDX_SMRR_OVERLAPS_CMR | BigInt(cmr << 8);
}

/** The checks in the module's order. @returns the platform, or the status of the first that fails */
export function samplePlatform(lp: SeamContext, sysInfo: SysInfoTable): Platform | bigint {
  const first = checkMsrs(lp, MSR_CHECKS);
  if (first !== TDX_SUCCESS) return first;
  const native = sampleCpuid(lp);
  if (typeof native === "bigint") return native;
  const maxPa = quad(lp, 0x8000_0008, 0)[0] & 0xff;
  if (maxPa !== REQUIRED_MAXPA) return TDX_INCORRECT_CPUID_VALUE;
  const features = quad(lp, 7, 0);
  const vmcsValues = checkVmx(lp, (features[2] & (1 << 5)) !== 0);
  if (typeof vmcsValues === "bigint") return vmcsValues;
  const keys = checkKeyManagement(lp, sysInfo);
  if (keys !== TDX_SUCCESS) return keys;
  if (!sysInfo.valid) return TDX_STATUS.TDX_CMR_LIST_INVALID;
  const smrr = checkSmrr(lp, sysInfo);
  if (smrr !== TDX_SUCCESS) return smrr;

  const keyIdBits = Number((msr(lp, MSR.TME_ACTIVATE) >> 32n) & 0xfn);
  const partitioning = msr(lp, MSR.MKTME_KEYID_PARTITIONING);
  const [crystalDenominator, crystalNumerator, crystalHz] = quad(lp, 0x15, 0);
  const xstate = Array.from({ length: 19 }, (_, n) => quad(lp, 0xd, n));
  const xfdFaultingMask = xstate.reduce(
    (mask, words, n) => (n > 1 && (words[2] & 4) !== 0 ? mask | (1n << BigInt(n)) : mask),
    0n,
  );
  const same = [...SAME_MSRS_BEFORE_CPUID, ...SAME_MSRS_AFTER_CPUID];
  return {
    native,
    fms: quad(lp, 1, 0)[0],
    keyIdShift: maxPa - keyIdBits,
    firstPrivateHkid: Number(partitioning & 0xffff_ffffn) + 1,
    privateHkids: Number(partitioning >> 32n),
    tscAdjust: msr(lp, MSR.TSC_ADJUST),
    tscHz: crystalDenominator === 0 ? 0 : Math.round((crystalHz * crystalNumerator) / crystalDenominator),
    crFixed: {
      cr0Fixed0: msr(lp, MSR.VMX_CR0_FIXED0),
      cr0Fixed1: msr(lp, MSR.VMX_CR0_FIXED1),
      cr4Fixed0: msr(lp, MSR.VMX_CR4_FIXED0),
      cr4Fixed1: msr(lp, MSR.VMX_CR4_FIXED1),
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
    msrs: new Map(same.map((index) => [index, msr(lp, index)])),
  };
}

/** TDH.SYS.LP.INIT: this logical processor must be like the one that ran TDH.SYS.INIT. */
export function comparePlatform(lp: SeamContext, platform: Platform): bigint {
  const inconsistent = (indexes: readonly number[]): bigint => {
    const other = indexes.find((index) => msr(lp, index) !== platform.msrs.get(index));
    return other === undefined ? TDX_SUCCESS : withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, other);
  };
  const before = inconsistent(SAME_MSRS_BEFORE_CPUID);
  if (before !== TDX_SUCCESS) return before;
  if ((msr(lp, MSR.MISC_ENABLE) & MISC_ENABLE_LIMIT_CPUID_MAXVAL) !== 0n)
    return TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const [[lastBase], [lastExtended]] = [quad(lp, 0, 0), quad(lp, 0x8000_0000, 0)];
  for (let i = 0; i < CPUID_LOOKUP.length; i++) {
    const row = CPUID_LOOKUP[i];
    if (!row || !isLeafThere(row.leaf, lastBase, lastExtended)) continue;
    const { leaf, subleaf, verifySame } = row;
    if (quad(lp, leaf, subleaf).every((word, n) => ((word ^ platform.native[i][n]) & verifySame[n]) === 0))
      continue;
    lp.regs.setGpr(Gpr.RCX, cpuidLeafSubleaf(leaf, subleaf));
    lp.regs.setGpr(Gpr.RDX, pair(verifySame[0], verifySame[1]));
    lp.regs.setGpr(Gpr.R8, pair(verifySame[2], verifySame[3]));
    return TDX_STATUS.TDX_INCONSISTENT_CPUID_FIELD;
  }
  return inconsistent(SAME_MSRS_AFTER_CPUID);
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
