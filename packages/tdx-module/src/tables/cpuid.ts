/**
 * How CPUID is virtualised: for each leaf and sub-leaf what TDH.SYS.INIT demands of the processor, which bits the
 * module forces to 0 or 1 (or computes when the guest asks), and which the VMM may configure in TD_PARAMS.
 *
 * Source: intel/tdx-module 1.5.05 include/auto_gen/cpuid_configurations.c (values and order of rows; the order is
 * part of the ABI: it numbers CPUID_CONFIG and the metadata arrays CPUID_VALUES and CPUID_CONTROL); row 72 is of
 * 1.5.06 (TD_CTLS.VIRT_CPUID2).
 */

/** EAX, EBX, ECX, EDX, each 32 bits unsigned. */
export type CpuidQuad = readonly [eax: number, ebx: number, ecx: number, edx: number];

/** Sub-leaf of a row that serves every sub-leaf. */
export const CPUID_SUBLEAF_NA = 0xffffffff;
/** Elements of the TDCS array CPUID_VALUES. */
export const MAX_POSSIBLE_CPUID_LOOKUP = 80;

/** One leaf or sub-leaf. Bits in no mask are native: copied from the processor. */
export interface CpuidLookup {
  readonly leaf: number;
  readonly subleaf: number;
  /** The guest's CPUID raises #VE. */
  readonly faulting: boolean;
  /** Row of CPUID_CONFIGURABLE, or -1. */
  readonly configIndex: number;
  /** TDH.SYS.INIT: (native & verifyMask) must equal verifyValue. */
  readonly verifyMask: CpuidQuad;
  readonly verifyValue: CpuidQuad;
  /** TDH.SYS.LP.INIT: these bits must be the same on all logical processors. */
  readonly verifySame: CpuidQuad;
  /** Zero, or filled in at MNG.INIT or when the guest executes CPUID. */
  readonly fixed0OrDynamic: CpuidQuad;
  readonly fixed1: CpuidQuad;
}

/** What TD_PARAMS.CPUID_CONFIG may say about a row. */
export interface CpuidConfigurable {
  readonly leaf: number;
  readonly subleaf: number;
  /** Bits the guest sees as configured. */
  readonly configDirect: CpuidQuad;
  /** Bits the guest sees as configured and native. */
  readonly allowDirect: CpuidQuad;
  /** Row of CPUID_LOOKUP. */
  readonly lookupIndex: number;
}

const NA = CPUID_SUBLEAF_NA;
const ALL = 0xffffffff;
const ZERO: CpuidQuad = [0, 0, 0, 0];

function row(
  leaf: number,
  subleaf: number,
  rest: Partial<Omit<CpuidLookup, "leaf" | "subleaf">>,
): CpuidLookup {
  return {
    leaf,
    subleaf,
    faulting: rest.faulting ?? false,
    configIndex: rest.configIndex ?? -1,
    verifyMask: rest.verifyMask ?? ZERO,
    verifyValue: rest.verifyValue ?? ZERO,
    verifySame: rest.verifySame ?? ZERO,
    fixed0OrDynamic: rest.fixed0OrDynamic ?? ZERO,
    fixed1: rest.fixed1 ?? ZERO,
  };
}

/** Rows in the module's order; undefined where a number is not used. */
// prettier-ignore
export const CPUID_LOOKUP: readonly (CpuidLookup | undefined)[] = [
  row(0x1, NA, { configIndex: 0, verifyMask: [0, 0xff00, 0x47faa217, 0x1fa9fbff], verifyValue: [0, 0x800, 0x47faa217, 0x1fa9fbff], verifySame: [0xf000c000, 0xffff, 0xf7ffff9f, ALL], fixed0OrDynamic: [0xf000c000, 0xff0000ff, 0x8010060, 0x40120400], fixed1: [0, 0, 0x80000000, 0x200] }), // 0
  row(0x4, 0, { configIndex: 1, verifyMask: [0, 0xfff, 0, 0], verifyValue: [0, 0x3f, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0x3c00, 0, 0, 0x4] }), // 1
  row(0x4, 1, { configIndex: 2, verifyMask: [0, 0xfff, 0, 0], verifyValue: [0, 0x3f, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0x3c00, 0, 0, 0x4] }), // 2
  row(0x4, 2, { configIndex: 3, verifyMask: [0, 0xfff, 0, 0], verifyValue: [0, 0x3f, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0x3c00, 0, 0, 0x4] }), // 3
  row(0x4, 3, { configIndex: 4, verifyMask: [0xe0, 0xfff, 0, 0x1], verifyValue: [0x60, 0x3f, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0x3c00, 0, 0, 0xfffffff8] }), // 4
  row(0x7, 0, { configIndex: 5, verifyMask: [ALL, 0x219424c3, 0x99000000, 0xfc082600], verifyValue: [0x2, 0x219424c3, 0x99000000, 0xfc080400], verifySame: [ALL, 0xfffffffb, 0xbfc1ff6f, 0xffebffff], fixed0OrDynamic: [0, 0x404006, 0x643e8010, 0x2298c3] }), // 5
  row(0x7, 1, { configIndex: 6, verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xfbffe28f, ALL, ALL, 0xfffffbcf] }), // 6
  row(0xa, NA, { configIndex: 7, verifyMask: [0xff00, 0, 0xfffffff0, 0x8000], verifyValue: [0x800, 0, 0, 0x8000], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, 0xffff6000] }), // 7
  row(0x1c, NA, { configIndex: 8, verifySame: [ALL, ALL, ALL, ALL] }), // 8
  row(0x80000008, NA, { configIndex: 9, verifyMask: [0xff, 0x200, 0, 0], verifyValue: [0x34, 0x200, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xffff0000, 0xfffffdff, ALL, ALL] }), // 9
  row(0x0, NA, { verifyMask: [0, ALL, ALL, ALL], verifyValue: [0, 0x756e6547, 0x6c65746e, 0x49656e69], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xffffffdc, 0, 0, 0], fixed1: [0x23, 0, 0, 0] }), // 10
  row(0x3, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 11
  row(0x4, 4, { verifyMask: [0x1f, 0, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 12
  row(0x6, NA, { faulting: true, verifyMask: [0x800000, 0, 0, 0], verifySame: [0x800000, 0, 0, 0] }), // 13
  row(0x7, 2, { configIndex: 10, verifyMask: [0, 0, 0, 0x17], verifyValue: [0, 0, 0, 0x17], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [ALL, ALL, ALL, 0xffffffc0] }), // 14
  row(0x8, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 15
  row(0xd, 0, { verifyMask: [0x3, 0, 0, 0], verifyValue: [0x3, 0, 0, 0], verifySame: [ALL, 0, ALL, ALL], fixed0OrDynamic: [0xfff9fd18, ALL, 0, ALL] }), // 16
  row(0xd, 1, { verifyMask: [0xf, 0, 0x1800, 0], verifyValue: [0xf, 0, 0x1800, 0], verifySame: [ALL, 0, ALL, ALL], fixed0OrDynamic: [0xffffffe0, ALL, 0xffff26ff, ALL] }), // 17
  row(0xd, 2, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 18
  row(0xd, 3, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 19
  row(0xd, 4, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 20
  row(0xd, 5, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 21
  row(0xd, 6, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 22
  row(0xd, 7, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 23
  row(0xd, 8, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 24
  row(0xd, 9, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 25
  row(0xd, 10, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 26
  row(0xd, 11, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 27
  row(0xd, 12, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 28
  row(0xd, 13, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 29
  row(0xd, 14, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 30
  row(0xd, 15, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 31
  row(0xd, 16, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 32
  row(0xd, 17, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 33
  row(0xd, 18, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, 0, ALL] }), // 34
  row(0xe, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 35
  row(0x11, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 36
  row(0x12, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 37
  row(0x13, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 38
  row(0x14, 0, { verifyMask: [ALL, 0, 0, 0], verifyValue: [0x1, 0, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0xfffffe00, 0x7ffffff0, ALL] }), // 39
  row(0x14, 1, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xfff8, 0, ALL, ALL] }), // 40
  row(0x15, NA, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xfffffffe, 0, 0xfe8287bf, ALL], fixed1: [0x1, 0, 0x17d7840, 0] }), // 41
  row(0x19, NA, { verifySame: [ALL, 0xfffffffe, ALL, ALL], fixed0OrDynamic: [0xfffffff8, 0xffffffeb, 0xfffffffd, ALL] }), // 42
  row(0x1d, 0, { verifySame: [ALL, ALL, ALL, ALL] }), // 43
  row(0x1d, 1, { verifySame: [ALL, ALL, ALL, ALL] }), // 44
  row(0x1e, NA, { verifySame: [ALL, ALL, ALL, ALL] }), // 45
  row(0x1f, 0, { configIndex: 12, verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 46
  row(0x1f, 1, { configIndex: 13, verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 47
  row(0x1f, 2, { configIndex: 14, verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 48
  row(0x1f, 3, { configIndex: 15, verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 49
  row(0x1f, 4, { configIndex: 16, verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 50
  row(0x1f, 5, { configIndex: 17, verifyMask: [0, 0, 0xff00, 0], verifySame: [ALL, ALL, ALL, 0], fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 51
  row(0x20, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 52
  row(0x21, 0, { fixed0OrDynamic: [ALL, 0x9a8b91b6, 0xdfdfdfdf, 0xa7bbab93], fixed1: [0, 0x65746e49, 0x20202020, 0x5844546c] }), // 53
  row(0x80000000, NA, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0x7ffffff7, ALL, ALL, ALL], fixed1: [0x80000008, 0, 0, 0] }), // 54
  row(0x80000001, NA, { verifyMask: [0, 0, 0x121, 0x2c100800], verifyValue: [0, 0, 0x121, 0x2c100800], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [ALL, ALL, 0xfffffede, 0xd3efffff] }), // 55
  row(0x80000006, NA, { faulting: true, verifyMask: [0, 0, 0xff, 0], verifyValue: [0, 0, 0x40, 0], verifySame: [0, 0, 0xff, 0] }), // 56
  row(0x80000007, NA, { verifyMask: [0, 0, 0, 0x100], verifyValue: [0, 0, 0, 0x100], verifySame: [0, 0, 0, 0x100], fixed0OrDynamic: [ALL, ALL, ALL, 0xfffffeff] }), // 57
  row(0x22, NA, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 58
  row(0x23, 0, { configIndex: 11, verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xfffffff0, 0, ALL, ALL] }), // 59
  row(0x23, 1, { verifyMask: [0xffffff00, 0xfffffff0, 0, 0], verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, 0, ALL, ALL] }), // 60
  row(0x23, 2, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 61
  row(0x23, 3, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, ALL, ALL, ALL] }), // 62
  row(0x5, NA, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0xffff0000, 0xffff0000, 0xfffffffc, 0] }), // 63
  row(0xb, 0, { fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 64
  row(0xb, 1, { fixed0OrDynamic: [0xffffffe0, 0xffff0000, 0xffff0000, ALL] }), // 65
  row(0xb, 2, { fixed0OrDynamic: [ALL, ALL, ALL, ALL] }), // 66
  row(0x1a, NA, { verifySame: [ALL, ALL, ALL, ALL], fixed0OrDynamic: [0, ALL, ALL, ALL] }), // 67
  undefined, undefined, undefined, undefined, // 68..71
  row(0x2, NA, { fixed0OrDynamic: [0xff0100fe, ALL, ALL, ALL], fixed1: [0xfeff01, 0, 0, 0] }), // 72
];

/** Rows in the order of TD_PARAMS.CPUID_CONFIG and of the metadata fields CPUID_CONFIG_LEAVES / _VALUES. */
// prettier-ignore
export const CPUID_CONFIGURABLE: readonly CpuidConfigurable[] = [
  { leaf: 0x1, subleaf: NA, configDirect: [0xfff3fff, 0xff0000, 0, 0], allowDirect: [0, 0, 0x31044d88, 0xb8440000], lookupIndex: 0 }, // 0
  { leaf: 0x4, subleaf: 0, configDirect: [0xffffc3ff, 0xfffff000, ALL, 0xfffffffb], allowDirect: [0, 0, 0, 0], lookupIndex: 1 }, // 1
  { leaf: 0x4, subleaf: 1, configDirect: [0xffffc3ff, 0xfffff000, ALL, 0xfffffffb], allowDirect: [0, 0, 0, 0], lookupIndex: 2 }, // 2
  { leaf: 0x4, subleaf: 2, configDirect: [0xffffc3ff, 0xfffff000, ALL, 0xfffffffb], allowDirect: [0, 0, 0, 0], lookupIndex: 3 }, // 3
  { leaf: 0x4, subleaf: 3, configDirect: [0xffffc3ff, 0xfffff000, ALL, 0x7], allowDirect: [0, 0, 0, 0], lookupIndex: 4 }, // 4
  { leaf: 0x7, subleaf: 0, configDirect: [0, 0, 0, 0], allowDirect: [0, 0xdc2b9b18, 0x2417f65, 0x5411c], lookupIndex: 5 }, // 5
  { leaf: 0x7, subleaf: 1, configDirect: [0, 0, 0, 0], allowDirect: [0x4001d30, 0, 0, 0x430], lookupIndex: 6 }, // 6
  { leaf: 0xa, subleaf: NA, configDirect: [0, 0, 0, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 7 }, // 7
  { leaf: 0x1c, subleaf: NA, configDirect: [0, 0, 0, 0], allowDirect: [0xff, 0, 0, 0], lookupIndex: 8 }, // 8
  { leaf: 0x80000008, subleaf: NA, configDirect: [0, 0, 0, 0], allowDirect: [0, 0x200, 0, 0], lookupIndex: 9 }, // 9
  { leaf: 0x7, subleaf: 2, configDirect: [0, 0, 0, 0], allowDirect: [0, 0, 0, 0x28], lookupIndex: 14 }, // 10
  { leaf: 0x23, subleaf: 0, configDirect: [0, 0, 0, 0], allowDirect: [0xf, 0, 0, 0], lookupIndex: 59 }, // 11
  { leaf: 0x1f, subleaf: 0, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 46 }, // 12
  { leaf: 0x1f, subleaf: 1, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 47 }, // 13
  { leaf: 0x1f, subleaf: 2, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 48 }, // 14
  { leaf: 0x1f, subleaf: 3, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 49 }, // 15
  { leaf: 0x1f, subleaf: 4, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 50 }, // 16
  { leaf: 0x1f, subleaf: 5, configDirect: [0x1f, 0xffff, 0xffff, 0], allowDirect: [0, 0, 0, 0], lookupIndex: 51 }, // 17
];

/** Bits that are cleared when bit n of XFAM is 0, by row. */
export const CPUID_XFAM_MASKS: readonly {
  readonly leaf: number;
  readonly subleaf: number;
  readonly masks: readonly (readonly [xfamBit: number, mask: CpuidQuad])[];
}[] = [
  { leaf: 0x1, subleaf: NA, masks: [[2, [0, 0, 0x30001000, 0]]] },
  {
    leaf: 0x7,
    subleaf: 0,
    masks: [
      [2, [0, 0x20, 0x600, 0]],
      [5, [0, 0xdc230000, 0x5842, 0x80010c]],
      [6, [0, 0xdc230000, 0x5842, 0x80010c]],
      [7, [0, 0xdc230000, 0x5842, 0x80010c]],
      [8, [0, 0x2000000, 0, 0]],
      [9, [0, 0, 0x8, 0]],
      [11, [0, 0, 0x80, 0x100000]],
      [12, [0, 0, 0x80, 0x100000]],
      [14, [0, 0, 0, 0x20]],
      [15, [0, 0, 0, 0x80000]],
      [17, [0, 0, 0, 0x3400000]],
      [18, [0, 0, 0, 0x3400000]],
    ],
  },
  {
    leaf: 0x7,
    subleaf: 1,
    masks: [
      [2, [0x10, 0, 0, 0x430]],
      [5, [0x20, 0, 0, 0]],
      [6, [0x20, 0, 0, 0]],
      [7, [0x20, 0, 0, 0]],
    ],
  },
  {
    leaf: 0xd,
    subleaf: 0,
    masks: [
      [2, [0x4, 0, 0, 0]],
      [5, [0xe0, 0, 0, 0]],
      [6, [0xe0, 0, 0, 0]],
      [7, [0xe0, 0, 0, 0]],
      [9, [0x200, 0, 0, 0]],
      [17, [0x60000, 0, 0, 0]],
      [18, [0x60000, 0, 0, 0]],
    ],
  },
  {
    leaf: 0xd,
    subleaf: 1,
    masks: [
      [8, [0, 0, 0x100, 0]],
      [11, [0, 0, 0x1800, 0]],
      [12, [0, 0, 0x1800, 0]],
      [14, [0, 0, 0x4000, 0]],
      [15, [0, 0, 0x8000, 0]],
    ],
  },
];

const BY_LEAF = new Map<number, number[]>();
CPUID_LOOKUP.forEach((entry, index) => {
  if (entry === undefined) return;
  const of = BY_LEAF.get(entry.leaf);
  if (of) of.push(index);
  else BY_LEAF.set(entry.leaf, [index]);
});

/** The row that serves a leaf and sub-leaf, or -1. */
export function getCpuidLookupEntry(leaf: number, subleaf: number): number {
  const candidates = BY_LEAF.get(leaf);
  if (candidates === undefined) return -1;
  for (const index of candidates) {
    const entry = CPUID_LOOKUP[index]!;
    if (entry.subleaf === NA || entry.subleaf === subleaf) return index;
  }
  return -1;
}

/** The number that names a leaf and sub-leaf in CPUID_CONFIG_LEAVES and in error information (RCX). */
export const cpuidLeafSubleaf = (leaf: number, subleaf: number): bigint =>
  (BigInt(subleaf) << 32n) | BigInt(leaf);

/** Leaf that raises the base range's end: values above a range's end are answered as this leaf. */
export const CPUID_LAST_BASE_LEAF = 0x23;
export const CPUID_LAST_EXTENDED_LEAF = 0x80000008;
/** The hypervisor range: always #VE. */
export const CPUID_RESERVED_START = 0x40000000;
export const CPUID_RESERVED_END = 0x4fffffff;
