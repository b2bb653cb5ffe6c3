/**
 * A TD's virtual CPUID values: what TDH.MNG.INIT computes from the processor's values, TD_PARAMS and the lookup table,
 * and stores in TDCS.CPUID_VALUES. (What depends on the moment of execution is added by exits/td-cpuid.ts.)
 *
 * Source: intel/tdx-module 1.5.05 src/vmm_dispatcher/api_calls/tdh_mng_init.c (read_and_set_cpuid_configurations),
 * src/common/helpers/helpers.c (check_cpuid_1f, complete_cpuid_handling).
 */
import { TD_ATTRIBUTES } from "@swtdx/abi";
import { XCR0_MAX_VALID_BIT } from "./attributes.js";
import {
  CPUID_CONFIGURABLE,
  CPUID_LOOKUP,
  CPUID_XFAM_MASKS,
  cpuidLeafSubleaf,
  getCpuidLookupEntry,
  MAX_POSSIBLE_CPUID_LOOKUP,
  type CpuidLookup,
  type CpuidQuad,
} from "./cpuid.js";

export type MutableQuad = [eax: number, ebx: number, ecx: number, edx: number];

/** Bytes of the TDCS array CPUID_FLAGS, by index. */
export const CpuidFlag = {
  monitor_mwait_supported: 0,
  dca_supported: 1,
  tsc_deadline_supported: 2,
  tsx_supported: 3,
  waitpkg_supported: 4,
  tme_supported: 5,
  pconfig_supported: 6,
  xfd_supported: 7,
  ddpd_supported: 8,
  la57_supported: 9,
  fred_supported: 10,
  perfmon_ext_leaf_supported: 11,
} as const;
export const CPUID_FLAGS_SIZE = 32;

export interface TdCpuidInput {
  readonly attributes: bigint;
  readonly xfam: bigint;
  /** TD_PARAMS.TSC_FREQUENCY, units of 25 MHz. */
  readonly tscFrequency: number;
  /** TD_PARAMS.CPUID_CONFIG, as many as CPUID_CONFIGURABLE has rows. */
  readonly config: readonly CpuidQuad[];
  /** The processor's values by row of CPUID_LOOKUP, as TDH.SYS.INIT sampled them. */
  readonly native: readonly CpuidQuad[];
  /** CPUID(1).EAX of the platform. */
  readonly platformFms: number;
  /** IA32_ARCH_CAPABILITIES.TSX_CTRL of the processor. */
  readonly tsxCtrl: boolean;
  /** Components with XFD, from CPUID(0xD, n).ECX[2]. */
  readonly xfdFaultingMask: bigint;
  /** CPUID(0xD,0).EBX when XCR0 holds the given features: bytes. */
  readonly xsaveAreaMaxSize: (xcr0: bigint) => number;
}

/** Values by row, CPUID_VALID by row, CPUID_FLAGS. */
export interface TdCpuid {
  readonly kind: "ok";
  readonly values: readonly CpuidQuad[];
  readonly valid: readonly boolean[];
  readonly flags: Uint8Array;
}
/** What TDH.MNG.INIT returns: `operand` CPUID_CONFIG with RCX, an MSR, or the format of leaf 0x1F. */
export type TdCpuidError =
  | { readonly kind: "config"; readonly rcx: bigint }
  | { readonly kind: "msr"; readonly index: number }
  | { readonly kind: "leaf1f" };

const u32 = (value: number): number => value >>> 0;
const isBit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) !== 0n;
const isZero = (quad: CpuidQuad): boolean => (quad[0] | quad[1] | quad[2] | quad[3]) === 0;

/** The processor's value with fixed bits applied: what the configurable bits start from. */
export function fixedCpuidValues(entry: CpuidLookup, native: CpuidQuad): MutableQuad {
  const out: MutableQuad = [0, 0, 0, 0];
  for (let i = 0; i < 4; i++) out[i] = u32((native[i] & ~entry.fixed0OrDynamic[i]) | entry.fixed1[i]);
  return out;
}

const applyXfamMasks = (entry: CpuidLookup, values: MutableQuad, xfam: bigint): void => {
  const table = CPUID_XFAM_MASKS.find((t) => t.leaf === entry.leaf && t.subleaf === entry.subleaf);
  if (table === undefined) return;
  for (const [n, mask] of table.masks)
    if (!isBit(xfam, n)) for (let i = 0; i < 4; i++) values[i] = u32(values[i] & ~mask[i]);
};

const clear = (values: MutableQuad): void => {
  values.fill(0);
};

/** Computes a TD's CPUID values, or says what is wrong with its configuration. */
export function computeTdCpuid(input: TdCpuidInput): TdCpuid | TdCpuidError {
  const values: MutableQuad[] = Array.from({ length: MAX_POSSIBLE_CPUID_LOOKUP }, () => [0, 0, 0, 0]);
  const valid = new Array<boolean>(MAX_POSSIBLE_CPUID_LOOKUP).fill(false);
  const flags = new Uint8Array(CPUID_FLAGS_SIZE);
  for (let index = 0; index < CPUID_LOOKUP.length; index++) {
    const entry = CPUID_LOOKUP[index];
    if (entry === undefined) continue;
    const final = fixedCpuidValues(entry, input.native[index] ?? [0, 0, 0, 0]);
    values[index] = final;
    const error = configure(entry, final, input) ?? special(entry, final, input, flags);
    if (error) return error;
    valid[index] = !entry.faulting;
  }
  if (!checkCpuid1f(values, input.native)) return { kind: "leaf1f" };
  return { kind: "ok", values, valid, flags };
}

/** CONFIG_DIRECT bits take the configured value, ALLOW_DIRECT ones are cleared when not configured. */
function configure(entry: CpuidLookup, final: MutableQuad, input: TdCpuidInput): TdCpuidError | null {
  if (entry.configIndex < 0) return null;
  const { configDirect, allowDirect } = CPUID_CONFIGURABLE[entry.configIndex];
  const config = input.config[entry.configIndex] ?? [0, 0, 0, 0];
  for (let i = 0; i < 4; i++) {
    if ((config[i] & ~(configDirect[i] | allowDirect[i])) !== 0) return configError(entry);
    final[i] = u32(
      ((final[i] & ~configDirect[i]) | (config[i] & configDirect[i])) & (config[i] | ~allowDirect[i]),
    );
  }
  return null;
}

const configError = (entry: CpuidLookup): TdCpuidError => ({
  kind: "config",
  rcx: cpuidLeafSubleaf(entry.leaf, entry.subleaf),
});

/** Fields that follow XFAM, ATTRIBUTES, TSC_FREQUENCY or each other. */
function special(
  entry: CpuidLookup,
  final: MutableQuad,
  input: TdCpuidInput,
  flags: Uint8Array,
): TdCpuidError | null {
  const { attributes, xfam } = input;
  const flag = (name: keyof typeof CpuidFlag, word: number, n: number): void => {
    flags[CpuidFlag[name]] = (word >>> n) & 1;
  };
  const perfmon = (attributes & TD_ATTRIBUTES.PERFMON) !== 0n;
  switch (entry.leaf) {
    case 0x1:
      // Family, model and stepping: as the platform's, unless the TD may migrate.
      if (final[0] === 0) final[0] = input.platformFms;
      if (final[0] !== input.platformFms) return configError(entry);
      applyXfamMasks(entry, final, xfam);
      flag("monitor_mwait_supported", final[2], 3);
      flag("dca_supported", final[2], 18);
      flag("tsc_deadline_supported", final[2], 24);
      break;
    case 0x5:
      // Row 63 comes after row 0.
      if (flags[CpuidFlag.monitor_mwait_supported] === 0) clear(final);
      break;
    case 0x7:
      if (entry.subleaf === 0) {
        applyXfamMasks(entry, final, xfam);
        const hle = (final[1] >>> 4) & 1;
        if (hle !== ((final[1] >>> 11) & 1)) return configError(entry);
        if (hle && !input.tsxCtrl) return { kind: "msr", index: 0x10a };
        flags[CpuidFlag.tsx_supported] = hle;
        final[2] &= ~((1 << 31) | (1 << 23));
        if ((attributes & TD_ATTRIBUTES.PKS) !== 0n) final[2] |= 1 << 31;
        final[2] = u32(final[2]);
        flag("waitpkg_supported", final[2], 5);
        flag("tme_supported", final[2], 13);
        flag("la57_supported", final[2], 16);
        flag("pconfig_supported", final[3], 18);
      } else if (entry.subleaf === 1) {
        applyXfamMasks(entry, final, xfam);
        flag("perfmon_ext_leaf_supported", final[0], 8);
        final[0] = u32(final[0] & ~(1 << 6));
        if ((attributes & TD_ATTRIBUTES.LASS) !== 0n) final[0] |= 1 << 6;
      } else {
        flag("ddpd_supported", final[3], 3);
      }
      break;
    case 0xa:
      if (!perfmon) clear(final);
      break;
    case 0xd:
      if (entry.subleaf === 0) {
        applyXfamMasks(entry, final, xfam);
        final[2] = u32(input.xsaveAreaMaxSize(xfam));
      } else if (entry.subleaf === 1) {
        applyXfamMasks(entry, final, xfam);
        if ((input.xfdFaultingMask & xfam) === 0n) final[0] = u32(final[0] & ~(1 << 4));
        flag("xfd_supported", final[0], 4);
      } else if (entry.subleaf <= XCR0_MAX_VALID_BIT && !isBit(xfam, entry.subleaf)) {
        clear(final);
      }
      break;
    case 0x14:
      if (!isBit(xfam, 8)) clear(final);
      break;
    case 0x15:
      final[1] = input.tscFrequency;
      break;
    case 0x19:
      clear(final);
      break;
    case 0x1a:
      if ((attributes & TD_ATTRIBUTES.MIGRATABLE) !== 0n) clear(final);
      break;
    case 0x1c:
      if (!isBit(xfam, 15)) clear(final);
      break;
    case 0x1d:
      if (!isBit(xfam, 17) || !isBit(xfam, 18)) clear(final);
      break;
    case 0x23:
      if (!perfmon || flags[CpuidFlag.perfmon_ext_leaf_supported] === 0) clear(final);
      break;
    case 0x80000008:
      // LA_BITS follow LA57.
      final[0] = u32((final[0] & ~0xff00) | ((flags[CpuidFlag.la57_supported] ? 57 : 48) << 8));
      break;
  }
  return null;
}

const LEVEL_INVALID = 0;
const LEVEL_SMT = 1;
const LEVEL_CORE = 2;
/** Level types end before this one. */
const LEVEL_TYPE_MAX = 6;

/**
 * Checks the configured topology, leaf 0x1F (all zero: the processor's is taken), and derives leaf 0xB from it.
 * @returns false: TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED
 */
export function checkCpuid1f(values: MutableQuad[], native: readonly CpuidQuad[]): boolean {
  const smt = getCpuidLookupEntry(0xb, 0);
  const core = getCpuidLookupEntry(0xb, 1);
  let nullConfig = false;
  let coreScanned = false;
  let level = LEVEL_INVALID;
  for (let subleaf = 0; subleaf < LEVEL_TYPE_MAX; subleaf++) {
    const index = getCpuidLookupEntry(0x1f, subleaf);
    if (subleaf === 0) nullConfig = isZero(values[index]);
    else if (nullConfig && !isZero(values[index])) return false;
    if (nullConfig) values[index] = fixedCpuidValuesOf1f(native[index] ?? [0, 0, 0, 0]);
    const quad = values[index];
    const previous = level;
    level = (quad[2] >>> 8) & 0xff;
    if (level === LEVEL_INVALID) {
      if (subleaf === 0 || !coreScanned) return false;
      continue;
    }
    if (level <= previous || level >= LEVEL_TYPE_MAX) return false;
    if (level === LEVEL_SMT) values[smt] = [...quad];
    else if (level === LEVEL_CORE) coreScanned = true;
    // 0xB's core level covers everything up to the highest level configured.
    values[core] = [quad[0], quad[1], u32(1 | (LEVEL_CORE << 8)), quad[3]];
  }
  return true;
}

/** EDX of the processor's leaf is an x2APIC id: the guest gets its own at execution. */
const fixedCpuidValuesOf1f = (native: CpuidQuad): MutableQuad => [
  u32(native[0] & 0x1f),
  u32(native[1] & 0xffff),
  u32(native[2] & 0xffff),
  0,
];
