/**
 * The CPU that a guest is given: `host` with features added and removed, cut down to what KVM and the TDX module can
 * give. QEMU, target/i386/cpu.c (cpu_x86_cpuid), kvm/kvm.c (kvm_x86_build_cpuid), kvm/tdx.c (tdx_adjust_cpuid_features,
 * setup_td_xfam, tdx_filter_cpuid).
 */
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX, type KvmCpuidEntry2, type KvmTdxCapabilities } from "@swtdx/abi";
import { OptionError } from "../errors.js";
import {
  FEATURE_WORDS,
  type FeatureWord,
  findEntry,
  findFeature,
  TDX_ATTRIBUTE_FEATURES,
  TDX_FIXED1,
  TDX_KVM_FEATURES,
  XFAM_FIXED1,
  XSAVE_COMPONENTS,
  XSS_COMPONENTS,
} from "./cpu-features.js";

/** `--cpu`, taken apart. */
export interface CpuOption {
  readonly model: "host";
  readonly plus: readonly string[];
  readonly minus: readonly string[];
}

/** Parses `host[,±feature…]`; `feature=on|off` does as well. @throws OptionError */
export function parseCpuOption(text: string): CpuOption {
  const [model, ...parts] = text.split(",");
  if (model !== "host") throw new OptionError("cpu", `"${model}"; only "host" can be had`);
  const plus: string[] = [];
  const minus: string[] = [];
  for (const part of parts) {
    const match = /^(?:([+-])([\w.-]+)|([\w.-]+)=(on|off))$/.exec(part);
    const name = match?.[2] ?? match?.[3];
    if (!match || !name)
      throw new OptionError("cpu", `"${part}"; +feature, -feature or feature=on|off is understood`);
    if (!findFeature(name)) throw new OptionError("cpu", `no feature "${name}"`);
    (match[1] === "+" || match[4] === "on" ? plus : minus).push(name);
  }
  return { model, plus, minus };
}

export interface CpuModel {
  /** ATTRIBUTES bits that the features need. */
  readonly attributes: bigint;
  readonly xfam: bigint;
  /** Features that were asked for by name and cannot be had. */
  readonly unavailable: readonly string[];
  /** For KVM_SET_CPUID2 of the vCPU with this x2APIC ID. */
  vcpuCpuid(apicId: number): KvmCpuidEntry2[];
  /** For KVM_TDX_INIT_VM: what of the first vCPU's CPUID the module lets one configure. */
  initVmCpuid(): KvmCpuidEntry2[];
}

export interface CpuModelInputs {
  readonly option: CpuOption;
  /** KVM_GET_SUPPORTED_CPUID. */
  readonly supported: readonly KvmCpuidEntry2[];
  /** KVM_TDX_CAPABILITIES, or null for an ordinary VM. */
  readonly tdx: KvmTdxCapabilities | null;
  readonly vcpus: number;
}

const MAX_BASIC_LEAF_WITH_TOPOLOGY = 0x1f;
const HYPERVISOR_LEAVES = { MAX: 0x40000000, FEATURES: 0x40000001 } as const;
/** "KVMKVMKVM". */
const KVM_SIGNATURE = { ebx: 0x4b4d564b, ecx: 0x564b4d56, edx: 0x4d } as const;
const TOPOLOGY_LEVEL = { INVALID: 0, SMT: 1, CORE: 2 } as const;
const GUEST_PHYS_BITS_DEFAULT = 48;

export function buildCpuModel(inputs: CpuModelInputs): CpuModel {
  const { option, supported, tdx, vcpus } = inputs;
  const words = hostFeatures(supported);
  applyOption(words, option);
  // What TDX cannot give disappears silently, but for what was asked for by name.
  const available = tdx ? tdxSupported(tdx) : null;
  if (available)
    for (const word of FEATURE_WORDS) {
      const value = ((words.get(word) ?? 0) | (TDX_FIXED1.get(word) ?? 0)) >>> 0;
      words.set(word, (value & (available.get(word) ?? 0)) >>> 0);
    }
  const xfam = settleXsave(words, supported, tdx);
  const unavailable = option.plus.filter((name) => !has(words, name));
  let attributes = 0n;
  if (tdx)
    for (const { attribute, features } of TDX_ATTRIBUTE_FEATURES)
      if ([...features].some(([word, bits]) => ((words.get(word) ?? 0) & bits) !== 0))
        attributes |= attribute;

  const vcpuCpuid = (apicId: number) => buildLeaves(words, xfam, apicId, vcpus, supported);
  return {
    attributes,
    xfam,
    unavailable,
    vcpuCpuid,
    initVmCpuid: () =>
      vcpuCpuid(0).flatMap((entry) => {
        const config = findEntry(tdx?.cpuid.entries ?? [], entry.function, entry.index);
        if (!config) return [];
        const masked = { ...entry };
        for (const register of ["eax", "ebx", "ecx", "edx"] as const)
          masked[register] = (entry[register] & config[register]) >>> 0;
        return [masked];
      }),
  };
}

type Words = Map<FeatureWord, number>;

function hostFeatures(supported: readonly KvmCpuidEntry2[]): Words {
  const words: Words = new Map();
  for (const word of FEATURE_WORDS) {
    const named = word.names.reduce((mask, name, bit) => (name === "" ? mask : mask | (1 << bit)), 0);
    const entry = findEntry(supported, word.leaf, word.subleaf);
    words.set(word, entry ? (entry[word.register] & named) >>> 0 : 0);
  }
  return words;
}

function applyOption(words: Words, option: CpuOption): void {
  for (const [names, on] of [
    [option.plus, true],
    [option.minus, false],
  ] as const)
    for (const name of names) set(words, name, on);
}

function set(words: Words, name: string, on: boolean): void {
  const { word, bit } = findFeature(name)!;
  const value = words.get(word) ?? 0;
  words.set(word, (on ? value | (1 << bit) : value & ~(1 << bit)) >>> 0);
}

function has(words: Words, name: string): boolean {
  const { word, bit } = findFeature(name)!;
  return ((words.get(word) ?? 0) & (1 << bit)) !== 0;
}

/** Feature bits that a TD can have: configurable, always one, or brought by ATTRIBUTES or XFAM. */
function tdxSupported(tdx: KvmTdxCapabilities): Words {
  const words: Words = new Map();
  const add = (more: Iterable<readonly [FeatureWord, number]>) => {
    for (const [word, mask] of more) words.set(word, ((words.get(word) ?? 0) | mask) >>> 0);
  };
  for (const word of FEATURE_WORDS)
    words.set(word, findEntry(tdx.cpuid.entries, word.leaf, word.subleaf)?.[word.register] ?? 0);
  add(TDX_FIXED1);
  for (const { attribute, features } of TDX_ATTRIBUTE_FEATURES)
    if (tdx.supported_attrs & attribute) add(features);
  for (const { xfam, gated } of XSAVE_COMPONENTS)
    if ((tdx.supported_xfam & xfam) === xfam) for (const name of gated) set(words, name, true);
  set(words, "xfd", true);
  for (const [word, mask] of TDX_KVM_FEATURES) words.set(word, mask);
  return words;
}

/** XFAM from the features left, and the removal of features whose state cannot be saved. */
function settleXsave(
  words: Words,
  supported: readonly KvmCpuidEntry2[],
  tdx: KvmTdxCapabilities | null,
): bigint {
  const xcr0 = findEntry(supported, 0xd, 0);
  const xss = findEntry(supported, 0xd, 1);
  const host =
    BigInt(xcr0?.eax ?? 0) |
    (BigInt(xcr0?.edx ?? 0) << 32n) |
    BigInt(xss?.ecx ?? 0) |
    (BigInt(xss?.edx ?? 0) << 32n);
  const possible = (tdx ? host & tdx.supported_xfam : host) | XFAM_FIXED1;
  let xfam = XFAM_FIXED1;
  for (const component of XSAVE_COMPONENTS) {
    const wanted = component.gate.some((name) => has(words, name));
    if (wanted && (possible & component.xfam) === component.xfam) xfam |= component.xfam;
    else for (const name of component.gated) set(words, name, false);
  }
  if (!(xfam & (0b11n << 17n))) set(words, "xfd", false);
  return xfam;
}

function buildLeaves(
  words: Words,
  xfam: bigint,
  apicId: number,
  vcpus: number,
  supported: readonly KvmCpuidEntry2[],
): KvmCpuidEntry2[] {
  const out: KvmCpuidEntry2[] = [];
  const put = (leaf: number, subleaf: number, values: Partial<KvmCpuidEntry2>, indexed = subleaf > 0) => {
    const at = out.findIndex((entry) => entry.function === leaf && entry.index === subleaf);
    const base =
      at >= 0
        ? out[at]
        : {
            function: leaf,
            index: subleaf,
            flags: indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
          };
    const entry = { ...base, ...values };
    if (at >= 0) out[at] = entry;
    else out.push(entry);
  };
  // Leaves that describe the processor itself are passed through; those about features and topology are rebuilt.
  for (const entry of supported) {
    const leaf = entry.function;
    if (leaf === 0xb || leaf === MAX_BASIC_LEAF_WITH_TOPOLOGY || leaf === 0xd) continue;
    out.push({ ...entry });
  }
  const max = findEntry(supported, 0, 0)?.eax ?? 0;
  put(0, 0, { eax: Math.max(max, MAX_BASIC_LEAF_WITH_TOPOLOGY) });

  const packageShift = Math.ceil(Math.log2(Math.max(vcpus, 1)));
  const siblings = vcpus > 1 ? Math.min(1 << packageShift, 255) : 0;
  put(1, 0, { ebx: ((apicId << 24) | (siblings << 16) | (8 << 8)) >>> 0 });
  for (const word of FEATURE_WORDS)
    put(
      word.leaf,
      word.subleaf,
      { [word.register]: words.get(word) ?? 0 },
      word.leaf === 7 || word.leaf === 0xd,
    );
  const ht = findFeature("ht")!;
  if (vcpus > 1) put(1, 0, { edx: ((words.get(ht.word) ?? 0) | (1 << ht.bit)) >>> 0 });

  // One thread a core; the cores of one package.
  for (const leaf of [0xb, MAX_BASIC_LEAF_WITH_TOPOLOGY]) {
    put(leaf, 0, { eax: 0, ebx: 1, ecx: TOPOLOGY_LEVEL.SMT << 8, edx: apicId }, true);
    put(leaf, 1, { eax: packageShift, ebx: vcpus, ecx: (TOPOLOGY_LEVEL.CORE << 8) | 1, edx: apicId }, true);
    put(leaf, 2, { ecx: (TOPOLOGY_LEVEL.INVALID << 8) | 2, edx: apicId }, true);
  }
  putXsave(put, xfam, supported);

  const sizes = findEntry(supported, 0x80000008, 0)?.eax ?? 0;
  const guestPhysBits = (sizes >>> 16) & 0xff || GUEST_PHYS_BITS_DEFAULT;
  put(0x80000008, 0, { eax: ((sizes & 0xffff) | (guestPhysBits << 16)) >>> 0 });
  put(HYPERVISOR_LEAVES.MAX, 0, { eax: HYPERVISOR_LEAVES.FEATURES, ...KVM_SIGNATURE });
  return out.sort((a, b) => a.function - b.function || a.index - b.index);
}

function putXsave(
  put: (leaf: number, subleaf: number, values: Partial<KvmCpuidEntry2>, indexed?: boolean) => void,
  xfam: bigint,
  supported: readonly KvmCpuidEntry2[],
): void {
  const xss = xfam & XSS_COMPONENTS;
  const xcr0 = xfam & ~XSS_COMPONENTS;
  // The legacy area and the header; each further component is as large and stands where the host says.
  let standard = 576;
  let compacted = 576;
  for (let component = 2; component < 63; component++) {
    if (!(xfam & (1n << BigInt(component)))) continue;
    const host = findEntry(supported, 0xd, component);
    if (!host) continue;
    put(0xd, component, { eax: host.eax, ebx: host.ebx, ecx: host.ecx, edx: host.edx }, true);
    if (!(host.ecx & 1)) standard = Math.max(standard, host.ebx + host.eax);
    compacted = (host.ecx & 2 ? Math.ceil(compacted / 64) * 64 : compacted) + host.eax;
  }
  put(
    0xd,
    0,
    { eax: Number(xcr0 & 0xffffffffn), ebx: standard, ecx: standard, edx: Number(xcr0 >> 32n) },
    true,
  );
  put(0xd, 1, { ebx: compacted, ecx: Number(xss & 0xffffffffn), edx: Number(xss >> 32n) }, true);
}
