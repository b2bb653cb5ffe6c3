/** TDH.MNG.INIT: a TD from its TD_PARAMS. Checks and their order are the module's. Source: intel/tdx-module tdh_mng_init.c. */
import {
  type Hpa,
  type KeyId,
  TD_ATTRIBUTES,
  TD_CTLS,
  TD_PARAMS,
  TD_PARAMS_ALIGN,
  TDX_STATUS,
  type TdParams,
  viewOf,
  withOperand,
} from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { readMsr } from "../entry/guest-state.js";
import { Lock } from "../locks.js";
import { xsaveAreaSize } from "../platform.js";
import { OpState, TDCS, TdcsPage } from "../structures/tdcs.js";
import {
  checkXfam,
  VIRT_TSC_FREQUENCY_MAX,
  VIRT_TSC_FREQUENCY_MIN,
  verifyTdAttributes,
  verifyTdConfigFlags,
} from "../tables/attributes.js";
import { CPUID_CONFIGURABLE } from "../tables/cpuid.js";
import { buildMsrBitmaps } from "../tables/msr.js";
import { computeTdCpuid, CpuidFlag } from "../tables/td-cpuid.js";
import { tdFeatures } from "../tables/td-features.js";
import {
  VIRT_IA32_ARCH_CAPABILITIES_OFFSET,
  VIRTUAL_VMX_MSR_OFFSET,
  virtualArchCapabilities,
  virtualVmxMsrs,
} from "../tables/virtual-msrs.js";
import { lockTd, sharedHpaOperand } from "./support.js";

const MSR = { TSC_ADJUST: 0x3b, ARCH_CAPABILITIES: 0x10a, MISC_ENABLE: 0x1a0 } as const;
const BOOT_NT4 = 1n << 22n;
const EPT_MEMORY_TYPE_WB = 6n;
const CRYSTAL_UNIT_HZ = 25_000_000n;
/** TSC_MULTIPLIER is a fixed-point number with 48 fraction bits. */
const MULTIPLIER_SHIFT = 48n;
const HP_LOCK_TIMEOUT_USEC = 1_000_000;

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);
const invalid = (operand: Parameters<typeof withOperand>[1]): bigint =>
  withOperand(TDX_STATUS.TDX_OPERAND_INVALID, operand);

/** EPTP from TD_PARAMS.EPTP_CONTROLS; null when it asks for what is not there. */
function eptp(call: SeamCall, controls: bigint, gpaw: boolean): bigint | null {
  const levels = ((controls >> 3n) & 7n) + 1n;
  if ((controls & 7n) !== EPT_MEMORY_TYPE_WB || controls >> 6n !== 0n) return null;
  if (levels !== 4n && levels !== 5n) return null;
  if (gpaw && levels !== 5n) return null;
  const root = BigInt(call.tdcs.page(TdcsPage.SEPT_ROOT));
  return controls | root | (BigInt(call.tdr.hkid) << BigInt(call.module.keyIdShift));
}

function setConfiguration(call: SeamCall, params: TdParams): bigint {
  const { tdcs, module, lp } = call;
  const { platform } = module;
  if (!verifyTdAttributes(params.ATTRIBUTES)) return invalid("ATTRIBUTES");
  if (!checkXfam(params.XFAM, platform.xcr0Supported | platform.xssSupported)) return invalid("XFAM");
  if (params.MAX_VCPUS === 0) return invalid("MAX_VCPUS");
  // This module offers no L2 VMs.
  if (params.NUM_L2_VMS !== 0) return invalid("NUM_L2_VMS");
  if (!isZero(params.RESERVED_0)) return invalid("RDX");
  if (!verifyTdConfigFlags(params.CONFIG_FLAGS)) return invalid("EXEC_CONTROLS");
  const gpaw = (params.CONFIG_FLAGS & 1n) !== 0n;
  const pointer = eptp(call, params.EPTP_CONTROLS, gpaw);
  if (pointer === null) return invalid("EPTP_CONTROLS");
  const frequency = params.TSC_FREQUENCY;
  if (frequency < VIRT_TSC_FREQUENCY_MIN || frequency > VIRT_TSC_FREQUENCY_MAX)
    return invalid("TSC_FREQUENCY");
  if (readMsr(lp, MSR.TSC_ADJUST) !== platform.tscAdjust)
    return withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, MSR.TSC_ADJUST);
  if (!isZero(params.RESERVED_1)) return invalid("RDX");
  if ((params.MSR_CONFIG_CTLS & ~1) !== 0 || !isZero(params.RESERVED_2)) return invalid("RDX");

  tdcs.set(TDCS.NUM_VCPUS, 0);
  tdcs.set(TDCS.NUM_ASSOC_VCPUS, 0);
  tdcs.set(TDCS.TD_EPOCH, 1n);
  tdcs.set(TDCS.HP_LOCK_TIMEOUT, BigInt(Math.floor(HP_LOCK_TIMEOUT_USEC * (platform.tscHz / 1e6))));
  tdcs.set(TDCS.ATTRIBUTES, params.ATTRIBUTES);
  if ((params.ATTRIBUTES & TD_ATTRIBUTES.SEPT_VE_DISABLE) !== 0n)
    tdcs.set(TDCS.TD_CTLS, TD_CTLS.PENDING_VE_DISABLE);
  tdcs.set(TDCS.XFAM, params.XFAM);
  tdcs.set(TDCS.MAX_VCPUS, params.MAX_VCPUS);
  tdcs.set(TDCS.EPTP, pointer);
  tdcs.set(TDCS.CONFIG_FLAGS, params.CONFIG_FLAGS);
  tdcs.set(TDCS.GPAW, gpaw ? 1 : 0);
  tdcs.set(TDCS.TSC_FREQUENCY, frequency);
  // The virtual TSC starts at 0 now and runs at its own frequency.
  const multiplier = ((BigInt(frequency) * CRYSTAL_UNIT_HZ) << MULTIPLIER_SHIFT) / BigInt(platform.tscHz);
  tdcs.set(TDCS.TSC_MULTIPLIER, multiplier);
  tdcs.set(TDCS.TSC_OFFSET, BigInt.asUintN(64, -((lp.rdtsc() * multiplier) >> MULTIPLIER_SHIFT)));
  tdcs.setBytes(TDCS.MRCONFIGID, params.MRCONFIGID);
  tdcs.setBytes(TDCS.MROWNER, params.MROWNER);
  tdcs.setBytes(TDCS.MROWNERCONFIG, params.MROWNERCONFIG);
  return TDX_STATUS.TDX_SUCCESS;
}

function setCpuid(call: SeamCall, params: TdParams): bigint {
  const { tdcs, module, lp } = call;
  const { platform } = module;
  const cpuid = computeTdCpuid({
    attributes: params.ATTRIBUTES,
    xfam: params.XFAM,
    tscFrequency: params.TSC_FREQUENCY,
    config: params.CPUID_CONFIG.map(({ EAX, EBX, ECX, EDX }) => [EAX, EBX, ECX, EDX] as const),
    native: platform.native,
    platformFms: platform.fms,
    tsxCtrl: (platform.archCapabilities & (1n << 7n)) !== 0n,
    xfdFaultingMask: platform.xfdFaultingMask,
    xsaveAreaMaxSize: (xfam) => xsaveAreaSize(platform, xfam),
  });
  if (cpuid.kind === "config") {
    call.set("RCX", cpuid.rcx);
    return invalid("CPUID_CONFIG");
  }
  if (cpuid.kind === "msr") return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, cpuid.index);
  if (cpuid.kind === "leaf1f") return TDX_STATUS.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED;
  const rest = params.CPUID_CONFIG.slice(CPUID_CONFIGURABLE.length);
  if (rest.some(({ EAX, EBX, ECX, EDX }) => (EAX | EBX | ECX | EDX) !== 0)) return invalid("RDX");

  const values = new Uint32Array(cpuid.values.flatMap((words) => [...words]));
  lp.write(tdcs.pa(TDCS.CPUID_VALUES.offset), tdcs.keyId, new Uint8Array(values.buffer));
  cpuid.valid.forEach((valid, i) => tdcs.setAt(TDCS.CPUID_VALID, i, valid ? 1 : 0));
  cpuid.flags.forEach((flag, i) => tdcs.setAt(TDCS.CPUID_FLAGS, i, flag));
  return TDX_STATUS.TDX_SUCCESS;
}

/** Virtual MSRs and MSR bitmaps, after CPUID. */
function setMsrs(call: SeamCall, params: TdParams): bigint {
  const { tdcs, module, lp } = call;
  const { platform } = module;
  const flag = (name: keyof typeof CpuidFlag): boolean => tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag[name]) !== 0;
  const configured = (params.MSR_CONFIG_CTLS & 1) !== 0;
  const config = params.IA32_ARCH_CAPABILITIES_CONFIG;
  const archCapabilities = virtualArchCapabilities(
    platform.archCapabilities,
    configured,
    config,
    flag("tsx_supported"),
  );
  if (archCapabilities === null) return invalid("IA32_ARCH_CAPABILITIES_CONFIG");
  tdcs.set({ offset: VIRT_IA32_ARCH_CAPABILITIES_OFFSET, size: 8 }, archCapabilities);
  const features = tdFeatures(
    params.ATTRIBUTES,
    params.XFAM,
    { waitpkg: flag("waitpkg_supported"), xfd: flag("xfd_supported"), tsx: flag("tsx_supported") },
    (platform.perfCapabilities & (1n << 15n)) !== 0n,
  );
  lp.write(tdcs.page(TdcsPage.MSR_BITMAPS), tdcs.keyId, buildMsrBitmaps(features));
  const { pinbased, procbased, exit, entry } = platform.vmcsValues;
  const vmx = virtualVmxMsrs({
    attributes: params.ATTRIBUTES,
    xfam: params.XFAM,
    waitpkg: flag("waitpkg_supported"),
    pconfig: flag("pconfig_supported"),
    monitorMwait: flag("monitor_mwait_supported"),
    crFixed: platform.crFixed,
    fixed1: { pinbased, procbased, exit, entry },
    eptVpidCap: platform.eptVpidCap,
  });
  for (const [index, value] of vmx)
    tdcs.set({ offset: VIRTUAL_VMX_MSR_OFFSET.get(index)!, size: 8 }, BigInt.asUintN(64, value));
  return TDX_STATUS.TDX_SUCCESS;
}

/** RCX: HPA of the TDR. RDX: HPA of TD_PARAMS, shared. RCX out: CPUID leaf and sub-leaf that are at fault. */
export const tdhMngInit: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const [handle, operand] = [call.rcx, call.rdx];
  call.clear("RCX");
  if ((readMsr(lp, MSR.MISC_ENABLE) & BOOT_NT4) !== 0n) return TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  let status = lockTd(call, handle, "RCX", Lock.EXCLUSIVE, Lock.NONE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const pa = sharedHpaOperand(call, operand, TD_PARAMS_ALIGN);
  if (pa < 0) return invalid("RDX");
  const unit = 2 ** module.keyIdShift;
  const bytes = new Uint8Array(TD_PARAMS.size);
  lp.read((pa % unit) as Hpa, Math.floor(pa / unit) as KeyId, bytes);
  const params = TD_PARAMS.read(viewOf(bytes));
  status = setConfiguration(call, params);
  if (status === TDX_STATUS.TDX_SUCCESS) status = setCpuid(call, params);
  if (status === TDX_STATUS.TDX_SUCCESS) status = setMsrs(call, params);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;

  module.endMrtd(call.tdr.base);
  call.tdcs.set(TDCS.OP_STATE, OpState.INITIALIZED);
  return TDX_STATUS.TDX_SUCCESS;
};
