/**
 * CPUID feature bits by QEMU's names (target/i386/cpu.c, feature_word_info), what TDX makes of them (target/i386/kvm/
 * tdx.c: bits that are always one, bits that depend on ATTRIBUTES or XFAM), and the XSAVE components that features
 * need.
 */
import type { KvmCpuidEntry2 } from "@swtdx/abi";

export type CpuidRegister = "eax" | "ebx" | "ecx" | "edx";

/** A register of a CPUID leaf that holds feature bits; names by bit number, a blank for a bit without one. */
export interface FeatureWord {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: CpuidRegister;
  readonly names: readonly string[];
}

const word = (leaf: number, subleaf: number, register: CpuidRegister, names: string): FeatureWord => ({
  leaf,
  subleaf,
  register,
  names: names
    .trim()
    .split(/\s+/)
    .map((name) => (name === "." ? "" : name)),
});

export const FEATURE_WORDS: readonly FeatureWord[] = [
  word(
    1,
    0,
    "edx",
    `fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov
     pat pse36 pn clflush . ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`,
  ),
  word(
    1,
    0,
    "ecx",
    `pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm
     . pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave . avx f16c rdrand hypervisor`,
  ),
  word(6, 0, "eax", ". . arat"),
  word(
    7,
    0,
    "ebx",
    `fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep bmi2 erms invpcid rtm . zero-fcs-fds mpx .
     avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt
     clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl`,
  ),
  word(
    7,
    0,
    "ecx",
    `. avx512vbmi umip pku . waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq avx512vnni
     avx512bitalg . avx512-vpopcntdq . la57 . . . . . rdpid . bus-lock-detect cldemote . movdiri
     movdir64b . sgxlc pks`,
  ),
  word(
    7,
    0,
    "edx",
    `. . avx512-4vnniw avx512-4fmaps fsrm uintr . . avx512-vp2intersect . md-clear . . . serialize .
     tsx-ldtrk . . arch-lbr ibt . amx-bf16 avx512-fp16
     amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd`,
  ),
  word(
    7,
    1,
    "eax",
    `sha512 sm3 sm4 . avx-vnni avx512-bf16 lass cmpccxadd . . fzrm fsrs
     fsrc . . . . fred lkgs wrmsrns . amx-fp16 . avx-ifma . . lam`,
  ),
  word(7, 2, "edx", "intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"),
  word(0xd, 1, "eax", "xsaveopt xsavec xgetbv1 xsaves xfd"),
  word(
    0x40000001,
    0,
    "eax",
    `kvmclock-old kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi
     kvm-pv-unhalt . kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield
     kvm-asyncpf-int kvm-msi-ext-dest-id . . . . . . . . kvmclock-stable-bit`,
  ),
  word(
    0x80000001,
    0,
    "edx",
    ". . . . . . . . . . . syscall . . . . . . . . nx . mmxext . . fxsr-opt pdpe1gb rdtscp . lm",
  ),
  word(0x80000001, 0, "ecx", "lahf-lm . . . . abm . . 3dnowprefetch"),
  word(0x80000007, 0, "edx", ". . . . . . . . invtsc"),
  word(0x80000008, 0, "ebx", ". . . . . . . . . wbnoinvd . . ibpb"),
];

/** Where a feature's bit stands. */
export interface FeatureBit {
  readonly word: FeatureWord;
  readonly bit: number;
}

const byName = new Map<string, FeatureBit>();
for (const featureWord of FEATURE_WORDS)
  featureWord.names.forEach((name, bit) => name !== "" && byName.set(name, { word: featureWord, bit }));

/** Other spellings that QEMU takes. */
const ALIASES: Readonly<Record<string, string>> = {
  sse3: "pni",
  sse4_1: "sse4.1",
  "sse4-1": "sse4.1",
  sse4_2: "sse4.2",
  "sse4-2": "sse4.2",
  sha_ni: "sha-ni",
  i64: "lm",
  lzcnt: "abm",
  psfd: "intel-psfd",
};

/** The bit of a feature by name (underscores may stand for dashes), or null. */
export function findFeature(name: string): FeatureBit | null {
  const lower = name.toLowerCase();
  return (
    byName.get(ALIASES[lower] ?? lower) ??
    byName.get(lower.replaceAll("_", "-")) ??
    byName.get(ALIASES[lower.replaceAll("_", "-")] ?? "") ??
    null
  );
}

/** All names, sorted. */
export const featureNames = (): string[] => [...byName.keys()].sort();

const bits = (...names: string[]): Map<FeatureWord, number> => {
  const out = new Map<FeatureWord, number>();
  for (const name of names) {
    const feature = byName.get(name);
    if (!feature) throw new RangeError(`no feature ${name}`);
    out.set(feature.word, ((out.get(feature.word) ?? 0) | (1 << feature.bit)) >>> 0);
  }
  return out;
};

/** Bits that a TD always sees set (1.5 modules; newer ones make some of them configurable). */
export const TDX_FIXED1: ReadonlyMap<FeatureWord, number> = bits(
  ..."pni pclmulqdq dtes64 ds-cpl ssse3 cx16 pdcm pcid sse4.1 sse4.2 x2apic movbe popcnt aes xsave rdrand hypervisor".split(
    " ",
  ),
  ..."fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush ds mmx fxsr sse sse2".split(
    " ",
  ),
  "arat",
  ..."fsgsbase fdp-excptn-only smep invpcid zero-fcs-fds rdseed smap clflushopt clwb sha-ni".split(" "),
  ..."bus-lock-detect movdiri movdir64b".split(" "),
  ..."md-clear spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd".split(" "),
  ..."intel-psfd ipred-ctrl rrsba-ctrl bhi-ctrl".split(" "),
  ..."xsaveopt xsavec xgetbv1 xsaves".split(" "),
  ..."lahf-lm abm 3dnowprefetch syscall nx pdpe1gb rdtscp lm invtsc".split(" "),
);

/** Features of KVM that a TD may use. */
export const TDX_KVM_FEATURES: ReadonlyMap<FeatureWord, number> = bits(
  ..."kvm-nopiodelay kvm-pv-unhalt kvm-pv-tlb-flush kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-msi-ext-dest-id".split(
    " ",
  ),
);

/** Features that an ATTRIBUTES bit brings. */
export const TDX_ATTRIBUTE_FEATURES: readonly {
  attribute: bigint;
  features: ReadonlyMap<FeatureWord, number>;
}[] = [
  { attribute: 1n << 27n, features: bits("lass") },
  { attribute: 1n << 30n, features: bits("pks") },
];

/** An XSAVE state component: XFAM has its bits when one of `gate` is offered; without it, `gated` are hidden. */
export interface XsaveComponent {
  /** XFAM (XCR0 | IA32_XSS) bits. */
  readonly xfam: bigint;
  readonly gate: readonly string[];
  readonly gated: readonly string[];
}

export const XSAVE_COMPONENTS: readonly XsaveComponent[] = [
  {
    xfam: 1n << 2n,
    gate: ["avx"],
    gated: "avx f16c fma avx2 vaes vpclmulqdq avx-vnni avx-ifma avx512f".split(" "),
  },
  {
    xfam: 0b111n << 5n,
    gate: ["avx512f"],
    gated:
      `avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 avx512vnni avx512bitalg
            avx512-vpopcntdq avx512-4vnniw avx512-4fmaps avx512-vp2intersect avx512-fp16 avx512-bf16 avx512pf avx512er`
        .trim()
        .split(/\s+/),
  },
  { xfam: 1n << 8n, gate: ["intel-pt"], gated: ["intel-pt"] },
  { xfam: 1n << 9n, gate: ["pku"], gated: ["pku"] },
  { xfam: 0b11n << 11n, gate: ["shstk", "ibt"], gated: ["shstk", "ibt"] },
  { xfam: 1n << 14n, gate: ["uintr"], gated: ["uintr"] },
  { xfam: 1n << 15n, gate: ["arch-lbr"], gated: ["arch-lbr"] },
  { xfam: 0b11n << 17n, gate: ["amx-tile"], gated: ["amx-tile", "amx-bf16", "amx-int8", "amx-fp16"] },
];

/** x87 and SSE: always in XFAM. */
export const XFAM_FIXED1 = 0b11n;
/** Components that IA32_XSS switches; the others are XCR0's. */
export const XSS_COMPONENTS = 0x1fd00n;

/** The entry of a leaf and subleaf, or undefined. */
export const findEntry = (
  entries: readonly KvmCpuidEntry2[],
  leaf: number,
  subleaf: number,
): KvmCpuidEntry2 | undefined => entries.find((entry) => entry.function === leaf && entry.index === subleaf);
