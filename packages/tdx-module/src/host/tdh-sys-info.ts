/**
 * TDH.SYS.INFO: the module's information as one structure, and the CMRs. Its successor is TDH.SYS.RD.
 * Source: intel/tdx-module tdh_sys_info.c.
 */
import {
  array,
  CMR_INFO,
  MAX_CMRS,
  nested,
  struct,
  TDSYSINFO_ALIGN,
  TDSYSINFO_STRUCT,
  TDX_1_5_PAGES,
  TDX_STATUS,
  withOperand,
} from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { cpuidConfigBits } from "../metadata/sys.js";
import type { TdxModule } from "../module.js";
import { PAMT_ENTRY_SIZE } from "../structures/pamt.js";
import { ATTRIBUTES_FIXED0, ATTRIBUTES_FIXED1, XFAM_FIXED0, XFAM_FIXED1 } from "../tables/attributes.js";
import { CPUID_CONFIGURABLE } from "../tables/cpuid.js";
import { MAX_RESERVED_PER_TDMR, MAX_TDMRS, MODULE_VERSION } from "../version.js";
import { sharedHpaOperand, splitSharedHpa } from "./shared-memory.js";

const PAGE = 4096;
const CMR_LIST = struct("CMR_LIST", MAX_CMRS * CMR_INFO.size, {
  CMRS: array(0, MAX_CMRS, (at) => nested(at, CMR_INFO)),
});

const sysInfo = (module: TdxModule): Uint8Array =>
  TDSYSINFO_STRUCT.encode({
    VENDOR_ID: MODULE_VERSION.VENDOR_ID,
    BUILD_DATE: MODULE_VERSION.BUILD_DATE,
    BUILD_NUM: MODULE_VERSION.BUILD_NUM,
    MINOR_VERSION: MODULE_VERSION.MINOR,
    MAJOR_VERSION: MODULE_VERSION.MAJOR,
    SYS_RD: 1,
    MAX_TDMRS,
    MAX_RESERVED_PER_TDMR,
    PAMT_ENTRY_SIZE,
    TDCS_BASE_SIZE: TDX_1_5_PAGES.TDCS * PAGE,
    TDVPS_BASE_SIZE: TDX_1_5_PAGES.TDVPS * PAGE,
    ATTRIBUTES_FIXED0,
    ATTRIBUTES_FIXED1,
    XFAM_FIXED0: XFAM_FIXED0 & (module.platform.xcr0Supported | module.platform.xssSupported),
    XFAM_FIXED1,
    NUM_CPUID_CONFIG: CPUID_CONFIGURABLE.length,
    CPUID_CONFIGS: CPUID_CONFIGURABLE.map((row) => {
      const [EAX, EBX, ECX, EDX] = cpuidConfigBits(module, row);
      return { LEAF: row.leaf, SUB_LEAF: row.subleaf >>> 0, EAX, EBX, ECX, EDX };
    }),
  });

/** RCX: HPA of TDSYSINFO_STRUCT, shared; RDX: its bytes. R8: HPA of the CMR_INFOs, shared; R9: how many. RDX, R9 out: used. */
export const tdhSysInfo: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const [bytes, entries] = [call.rdx, call.r9];
  call.clear("RDX", "R9");
  if (!module.local(lp.index).initialized) return TDX_STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  const target = sharedHpaOperand(call, call.rcx, TDSYSINFO_ALIGN);
  if (target < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (bytes < BigInt(TDSYSINFO_STRUCT.size)) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const info = splitSharedHpa(call, target);
  lp.write(info.hpa, info.keyId, new Uint8Array(TDSYSINFO_STRUCT.size));
  const cmrs = sharedHpaOperand(call, call.r8, CMR_LIST.size);
  if (cmrs < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");
  if (entries < BigInt(MAX_CMRS)) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R9");

  lp.write(info.hpa, info.keyId, sysInfo(module));
  const list = splitSharedHpa(call, cmrs);
  const ranges = module.sysInfo.cmrs.map(({ base, size }) => ({ CMR_BASE: base, CMR_SIZE: size }));
  lp.write(list.hpa, list.keyId, CMR_LIST.encode({ CMRS: ranges }));
  call.set("RDX", BigInt(TDSYSINFO_STRUCT.size));
  call.set("R9", BigInt(MAX_CMRS));
  return TDX_STATUS.TDX_SUCCESS;
};
