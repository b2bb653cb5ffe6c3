/**
 * Registers of a new vCPU: what TDH.VP.INIT puts into TDVPS.
 *
 * Source: intel/tdx-module 1.5.05 src/vmm_dispatcher/api_calls/tdh_vp_init.c (init_vcpu_gprs_and_registers,
 * init_vcpu_msrs).
 */
import { Gpr } from "@swtdx/cpu";
import { TDCS, type TdcsStructure } from "../structures/tdcs.js";
import { TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import { DR6_RESET_STATE, IA32_FMASK_RESET_STATE, XCR0_RESET_STATE } from "../tables/td-vmcs.js";
import { initXbuff } from "./extended-state.js";

/**
 * @param rcx operand of TDH.VP.INIT: initial RCX and R8
 * @param fms virtual CPUID(1).EAX
 * @param maxLbrDepth from CPUID(0x1C)
 */
export function initVcpuRegisters(
  tdcs: TdcsStructure,
  tdvps: TdvpsStructure,
  rcx: bigint,
  fms: number,
  maxLbrDepth = 0,
): void {
  const gpr = (number: number, value: bigint): void => tdvps.setAt(TDVPS.GPR, number, value);
  gpr(Gpr.RBX, tdcs.get(TDCS.GPAW) !== 0 ? 52n : 48n);
  gpr(Gpr.RCX, rcx);
  gpr(Gpr.R8, rcx);
  gpr(Gpr.RDX, BigInt(fms >>> 0));
  gpr(Gpr.RSI, BigInt(tdvps.get(TDVPS.VCPU_INDEX)));
  tdvps.set(TDVPS.XCR0, XCR0_RESET_STATE);
  tdvps.set(TDVPS.DR6, DR6_RESET_STATE);
  tdvps.set(TDVPS.IA32_FMASK, IA32_FMASK_RESET_STATE);
  if ((tdcs.get(TDCS.XFAM) & (1n << 15n)) !== 0n) tdvps.set(TDVPS.IA32_LBR_DEPTH, BigInt(maxLbrDepth));
  initXbuff(tdvps);
}
