/** TD_PARAMS from KVM_TDX_INIT_VM, and what KVM_TDX_CAPABILITIES tells. Source: Linux arch/x86/kvm/vmx/tdx.c (setup_tdparams, get_tdx_td_caps). */
import {
  CONFIG_FLAGS,
  Errno,
  EPTP_CONTROLS,
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  type KvmCpuidEntry2,
  type KvmTdxInitVm,
  TD_ATTRIBUTES,
  TD_PARAMS,
} from "@swtdx/abi";
import type { TdxCpuidConfig, TdxSysInfo } from "@swtdx/linux-host";
import { KernelError } from "../x86/errno.js";

/** Attributes that KVM knows how to run. */
const KVM_SUPPORTED_TD_ATTRS = TD_ATTRIBUTES.SEPT_VE_DISABLE | TD_ATTRIBUTES.DEBUG;
/** XCR0 and XSS features that KVM supports for guests: x87, SSE, AVX, PKU. */
const KVM_SUPPORTED_XFAM = 0x207n;
const NO_SUB_LEAF = 0xffff_ffff;
const TSC_UNIT_KHZ = 25_000;
const MAX_PHYS_LEAF = 0x8000_0008;
const GUEST_PHYS_SHIFT = 16;
/** CPUID(7,0): HLE and RTM in EBX, WAITPKG in ECX: KVM offers neither TSX nor WAITPKG to TDs. */
const TSX = (1 << 4) | (1 << 11);
const WAITPKG = 1 << 5;

export const supportedAttributes = (info: TdxSysInfo): bigint | null => {
  const value = KVM_SUPPORTED_TD_ATTRS & info.attributesFixed0;
  return (value & info.attributesFixed1) === info.attributesFixed1 ? value : null;
};
export const supportedXfam = (info: TdxSysInfo): bigint | null => {
  const value = KVM_SUPPORTED_XFAM & info.xfamFixed0;
  return (value & info.xfamFixed1) === info.xfamFixed1 ? value : null;
};

/** The configurable CPUID bits, as KVM_TDX_CAPABILITIES gives them. */
export const configurableCpuid = (info: TdxSysInfo): KvmCpuidEntry2[] =>
  info.cpuidConfigs.map((config) => {
    const entry = toEntry(config);
    if (entry.function === 7 && entry.index === 0)
      return { ...entry, ebx: (entry.ebx & ~TSX) >>> 0, ecx: (entry.ecx & ~WAITPKG) >>> 0 };
    // Guest physical address bits are KVM's to configure: GPAW.
    if (entry.function === MAX_PHYS_LEAF)
      return { ...entry, eax: (entry.eax | (0xff << GUEST_PHYS_SHIFT)) >>> 0 };
    return entry;
  });

const toEntry = ({ leaf, subLeaf, eax, ebx, ecx, edx }: TdxCpuidConfig): KvmCpuidEntry2 => ({
  function: leaf,
  index: subLeaf === NO_SUB_LEAF ? 0 : subLeaf,
  flags: subLeaf === NO_SUB_LEAF ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  eax,
  ebx,
  ecx,
  edx,
});

export interface TdConfiguration {
  /** TD_PARAMS, 1024 bytes. */
  readonly params: Uint8Array;
  readonly gpaw: boolean;
  /** EPT levels. */
  readonly levels: number;
}

/** @throws KernelError EINVAL */
export function setupTdParams(
  info: TdxSysInfo,
  init: KvmTdxInitVm,
  { maxVcpus, tscKhz }: { maxVcpus: number; tscKhz: number },
): TdConfiguration {
  const invalid = (): never => {
    throw new KernelError(Errno.EINVAL);
  };
  const attributes = supportedAttributes(info) ?? 0n;
  const xfam = supportedXfam(info) ?? 0n;
  if ((init.attributes & ~attributes) !== 0n || (init.xfam & ~xfam) !== 0n) invalid();
  if ((init.xfam & info.xfamFixed1) !== info.xfamFixed1) invalid();
  const { entries } = init.cpuid;
  const physBits = (entries.find((entry) => entry.function === MAX_PHYS_LEAF)?.eax ?? 0) >>> GUEST_PHYS_SHIFT;
  const width = physBits & 0xff;
  if (width !== 48 && width !== 52) invalid();
  const gpaw = width === 52;
  if (tscKhz < 100_000 || tscKhz > 10_000_000) invalid();

  let used = 0;
  const cpuid = info.cpuidConfigs.map((config) => {
    const wanted = toEntry(config);
    const entry = entries.find((one) => one.function === wanted.function && one.index === wanted.index);
    if (!entry) return { EAX: 0, EBX: 0, ECX: 0, EDX: 0 };
    used++;
    const eax = entry.function === MAX_PHYS_LEAF ? entry.eax & ~(0xff << GUEST_PHYS_SHIFT) : entry.eax;
    return { EAX: eax >>> 0, EBX: entry.ebx, ECX: entry.ecx, EDX: entry.edx };
  });
  // The module cannot reject what has no place in TD_PARAMS.
  if (used !== entries.length) invalid();
  const params = TD_PARAMS.encode({
    ATTRIBUTES: init.attributes,
    XFAM: init.xfam,
    MAX_VCPUS: maxVcpus,
    EPTP_CONTROLS: EPTP_CONTROLS.MEMORY_TYPE_WB | (gpaw ? EPTP_CONTROLS.PWL_5 : EPTP_CONTROLS.PWL_4),
    CONFIG_FLAGS: CONFIG_FLAGS.NO_RBP_MOD | (gpaw ? CONFIG_FLAGS.GPAW : 0n),
    TSC_FREQUENCY: Math.round(tscKhz / TSC_UNIT_KHZ),
    MRCONFIGID: init.mrconfigid,
    MROWNER: init.mrowner,
    MROWNERCONFIG: init.mrownerconfig,
    CPUID_CONFIG: cpuid,
  });
  return { params, gpaw, levels: gpaw ? 5 : 4 };
}
