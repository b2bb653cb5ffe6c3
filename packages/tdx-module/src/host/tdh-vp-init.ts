/**
 * TDH.VP.INIT: a vCPU's first state and its TD VMCS. Version 1 gives it an x2APIC ID.
 * Source: intel/tdx-module tdh_vp_init.c; version 1: Linux arch/x86/virt/vmx/tdx/tdx.c (tdh_vp_init).
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { readMsr } from "../entry/guest-state.js";
import { initTdVmcs, initTdvpsFields, prepareTdVmcs, tdVmcsAddress } from "../entry/td-vmcs-init.js";
import { associateVcpuInitial } from "../entry/vcpu-association.js";
import { initVcpuRegisters } from "../entry/vp-init-state.js";
import { Lock } from "../locks.js";
import { TDCS } from "../structures/tdcs.js";
import { LastTdExit, TDVPS, VcpuState } from "../structures/tdvps.js";
import { lockTdcs, lockTdvpr, mapTdvps } from "./support.js";

const IA32_TSC_ADJUST = 0x3b;

/** RCX: HPA of the TDVPR. RDX: initial RCX and R8 of the vCPU. R8 (version 1): x2APIC ID. */
export const tdhVpInit: SeamcallHandler = (call, version) => {
  const { lp, module } = call;
  let status = lockTdvpr(call, call.rcx, "RCX", Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockTdcs(call, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdcs } = call;
  const tdvps = mapTdvps(call, Number(call.rcx));
  if (tdvps === null) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  if (tdvps.get(TDVPS.VCPU_STATE) !== VcpuState.VCPU_UNINITIALIZED)
    return TDX_STATUS.TDX_VCPU_STATE_INCORRECT;
  if (version > 0 && call.r8 >> 32n !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");
  const index = tdcs.get(TDCS.NUM_VCPUS);
  if (index >= tdcs.get(TDCS.MAX_VCPUS)) return TDX_STATUS.TDX_MAX_VCPUS_EXCEEDED;
  if (readMsr(lp, IA32_TSC_ADJUST) !== module.platform.tscAdjust)
    return withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, IA32_TSC_ADJUST);

  tdcs.set(TDCS.NUM_VCPUS, index + 1);
  tdvps.set(TDVPS.VCPU_INDEX, index);
  tdvps.set(TDVPS.X2APIC_ID, version > 0 ? Number(call.r8) : index);
  tdvps.set(TDVPS.LAST_EXIT_TSC, lp.rdtsc());
  tdvps.set(TDVPS.XFAM, tdcs.get(TDCS.XFAM));
  initVcpuRegisters(tdcs, tdvps, call.rdx, module.platform.fms, module.platform.maxLbrDepth);
  tdvps.set(TDVPS.VCPU_STATE, VcpuState.VCPU_READY);
  tdvps.set(TDVPS.LAST_TD_EXIT, LastTdExit.ASYNC_FAULT);
  initTdvpsFields(tdvps, module.vmcsPlatform);
  associateVcpuInitial(lp, tdcs, tdvps);
  prepareTdVmcs(lp, tdvps, module.vmcsPlatform);
  lp.vmptrld(tdVmcsAddress(tdvps, module.keyIdShift));
  initTdVmcs(lp, tdcs, tdvps, module.vmcsPlatform);
  return TDX_STATUS.TDX_SUCCESS;
};
