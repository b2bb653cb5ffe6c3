/** What the kernel reads of the module by TDH.SYS.RD (struct tdx_sys_info). Source: Linux arch/x86/virt/vmx/tdx/tdx_global_metadata.c. */
import { type MetadataFieldDefinition, metadataFieldId, SYS_METADATA } from "@swtdx/abi";
import type { LogicalProcessor } from "@swtdx/cpu";
import type { TdmrSysInfo } from "./tdmr.js";
import { leaf, seamcallRet, tdxModuleArgs } from "./seamcall.js";

export interface TdxCpuidConfig {
  readonly leaf: number;
  /** 0xFFFFFFFF: none. */
  readonly subLeaf: number;
  /** Bits that may be configured. */
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}
export interface TdxSysInfo {
  readonly version: {
    readonly major: number;
    readonly minor: number;
    readonly update: number;
    readonly build: number;
  };
  readonly features0: bigint;
  readonly tdmr: TdmrSysInfo;
  /** Pages of 4 KiB. */
  readonly tdrPages: number;
  readonly tdcsPages: number;
  readonly tdvpsPages: number;
  readonly attributesFixed0: bigint;
  readonly attributesFixed1: bigint;
  readonly xfamFixed0: bigint;
  readonly xfamFixed1: bigint;
  readonly maxVcpusPerTd: number;
  readonly cpuidConfigs: readonly TdxCpuidConfig[];
  readonly cmrs: readonly { readonly base: number; readonly size: number }[];
}

/** A field could not be read: its identifier and the status. */
export interface SysReadError {
  readonly field: string;
  readonly status: bigint;
}

/** Reads everything, or says which field failed. */
export function readSysInfo(lp: LogicalProcessor): TdxSysInfo | SysReadError {
  let error: SysReadError | null = null;
  const read = (name: keyof typeof SYS_METADATA, index = 0): bigint => {
    if (error !== null) return 0n;
    const field: MetadataFieldDefinition = SYS_METADATA[name];
    const id = field.elements === 1 ? metadataFieldId(field, index) : field.id + BigInt(index);
    const args = tdxModuleArgs({ rdx: id });
    const status = seamcallRet(lp, leaf("TDH.SYS.RD"), args);
    if (status !== 0n) error = { field: `${name}[${index}]`, status };
    return args.r8;
  };
  const number = (name: keyof typeof SYS_METADATA, index = 0): number => Number(read(name, index));
  const low = (value: bigint): number => Number(value & 0xffff_ffffn);
  const info: TdxSysInfo = {
    version: {
      major: number("MAJOR_VERSION"),
      minor: number("MINOR_VERSION"),
      update: number("UPDATE_VERSION"),
      build: number("BUILD_NUM"),
    },
    features0: read("TDX_FEATURES0"),
    tdmr: {
      maxTdmrs: number("MAX_TDMRS"),
      maxReservedPerTdmr: number("MAX_RESERVED_PER_TDMR"),
      pamt4kEntrySize: number("PAMT_4K_ENTRY_SIZE"),
      pamt2mEntrySize: number("PAMT_2M_ENTRY_SIZE"),
      pamt1gEntrySize: number("PAMT_1G_ENTRY_SIZE"),
    },
    tdrPages: number("TDR_BASE_SIZE") / 4096,
    tdcsPages: number("TDCS_BASE_SIZE") / 4096,
    tdvpsPages: number("TDVPS_BASE_SIZE") / 4096,
    attributesFixed0: read("ATTRIBUTES_FIXED0"),
    attributesFixed1: read("ATTRIBUTES_FIXED1"),
    xfamFixed0: read("XFAM_FIXED0"),
    xfamFixed1: read("XFAM_FIXED1"),
    maxVcpusPerTd: number("MAX_VCPUS_PER_TD"),
    cpuidConfigs: Array.from({ length: number("NUM_CPUID_CONFIG") }, (_, i) => {
      const id = read("CPUID_CONFIG_LEAVES", i);
      const first = read("CPUID_CONFIG_VALUES", 2 * i);
      const second = read("CPUID_CONFIG_VALUES", 2 * i + 1);
      return {
        leaf: low(id),
        subLeaf: low(id >> 32n),
        eax: low(first),
        ebx: low(first >> 32n),
        ecx: low(second),
        edx: low(second >> 32n),
      };
    }),
    cmrs: Array.from({ length: number("NUM_CMRS") }, (_, i) => ({
      base: number("CMR_BASE", i),
      size: number("CMR_SIZE", i),
    })),
  };
  return error ?? info;
}
