/** Values of the module's own metadata fields (TDH.SYS.RD). Source: intel/tdx-module metadata_sys.c. */
import { METADATA_CONTEXT, type SYS_METADATA, TDX_1_5_PAGES, TDX_STATUS } from "@swtdx/abi";
import type { MetadataOutcome } from "../guest/metadata-access.js";
import type { TdxModule } from "../module.js";
import { PAMT_ENTRY_SIZE } from "../structures/pamt.js";
import {
  ATTRIBUTES_FIXED0,
  ATTRIBUTES_FIXED1,
  CONFIG_FLAGS_FIXED0,
  CONFIG_FLAGS_FIXED1,
  MAX_VCPUS_PER_TD,
  XFAM_FIXED0,
  XFAM_FIXED1,
} from "../tables/attributes.js";
import { CPUID_CONFIGURABLE, type CpuidConfigurable, cpuidLeafSubleaf } from "../tables/cpuid.js";
import { IA32_ARCH_CAPABILITIES_CONFIG_MASK } from "../tables/virtual-msrs.js";
import { FEATURES0, MAX_RESERVED_PER_TDMR, MAX_TDMRS, MODULE_VERSION } from "../version.js";
import { checkRead, findElement, type ReadAccess } from "./fields.js";

type SysFieldName = keyof typeof SYS_METADATA;
type Value = number | bigint | ((module: TdxModule, index: number) => number | bigint);

const PAGE = 4096;
const pair = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

/**
 * Bits of a CPUID leaf that TD_PARAMS may configure: those that are free, and those that pass the processor's value
 * through, where that is 1.
 */
export function cpuidConfigBits({ platform }: TdxModule, row: CpuidConfigurable): number[] {
  const native = platform.native[row.lookupIndex];
  return row.configDirect.map((word, i) => (word | (row.allowDirect[i] & native[i])) >>> 0);
}
/** CPUID_CONFIG_VALUES: EAX and EBX, then ECX and EDX. */
function cpuidConfigValue(module: TdxModule, index: number): bigint {
  const row = CPUID_CONFIGURABLE[index >> 1];
  if (!row) return 0n;
  const bits = cpuidConfigBits(module, row);
  return (index & 1) === 0 ? pair(bits[0], bits[1]) : pair(bits[2], bits[3]);
}
const NO_LEAF = 0xffff_ffff_ffff_ffffn;
function cpuidConfigLeaf(index: number): bigint {
  const row = CPUID_CONFIGURABLE[index];
  return row ? cpuidLeafSubleaf(row.leaf, row.subleaf) : NO_LEAF;
}

/** Fields that are not listed are zero. */
const VALUES: Partial<Record<SysFieldName, Value>> = {
  NUM_PKGS: 1,
  PKG_FMS: (module, index) => (index === 0 ? module.platform.fms : 0),
  VENDOR_ID: MODULE_VERSION.VENDOR_ID,
  BUILD_DATE: MODULE_VERSION.BUILD_DATE,
  BUILD_NUM: MODULE_VERSION.BUILD_NUM,
  MINOR_VERSION: MODULE_VERSION.MINOR,
  MAJOR_VERSION: MODULE_VERSION.MAJOR,
  UPDATE_VERSION: MODULE_VERSION.UPDATE,
  NUM_TDX_FEATURES: 1,
  TDX_FEATURES0: FEATURES0,
  NUM_CMRS: (module) => module.sysInfo.cmrs.length,
  CMR_BASE: (module, index) => module.sysInfo.cmrs[index]?.base ?? 0,
  CMR_SIZE: (module, index) => module.sysInfo.cmrs[index]?.size ?? 0,
  MAX_TDMRS,
  MAX_RESERVED_PER_TDMR,
  PAMT_4K_ENTRY_SIZE: PAMT_ENTRY_SIZE,
  PAMT_2M_ENTRY_SIZE: PAMT_ENTRY_SIZE,
  PAMT_1G_ENTRY_SIZE: PAMT_ENTRY_SIZE,
  TDR_BASE_SIZE: TDX_1_5_PAGES.TDR * PAGE,
  TDCS_BASE_SIZE: TDX_1_5_PAGES.TDCS * PAGE,
  TDVPS_BASE_SIZE: TDX_1_5_PAGES.TDVPS * PAGE,
  ATTRIBUTES_FIXED0,
  ATTRIBUTES_FIXED1,
  XFAM_FIXED0: (module) => XFAM_FIXED0 & (module.platform.xcr0Supported | module.platform.xssSupported),
  XFAM_FIXED1,
  NUM_CPUID_CONFIG: CPUID_CONFIGURABLE.length,
  CONFIG_FLAGS_FIXED0,
  CONFIG_FLAGS_FIXED1,
  CPUID_CONFIG_LEAVES: (_, index) => cpuidConfigLeaf(index),
  CPUID_CONFIG_VALUES: cpuidConfigValue,
  IA32_ARCH_CAPABILITIES_CONFIG_MASK,
  MAX_VCPUS_PER_TD,
};

export function readSysField(module: TdxModule, id: bigint, access: ReadAccess): MetadataOutcome {
  const found = findElement(METADATA_CONTEXT.SYS, id);
  const status = checkRead(found, access);
  if (status !== TDX_STATUS.TDX_SUCCESS || found === null) return { status, value: 0n };
  const value = VALUES[found.name as SysFieldName] ?? 0;
  const number = typeof value === "function" ? value(module, found.index) : value;
  return { status, value: BigInt(number) & found.field[access] };
}
