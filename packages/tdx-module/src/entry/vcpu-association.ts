/**
 * Association of a vCPU with the logical processor it runs on: its VMCS and translations may be there only.
 *
 * Source: intel/tdx-module 1.5.05 src/common/helpers/helpers.c (check_and_associate_vcpu, associate_vcpu_initial).
 */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import { TDCS, type TdcsStructure } from "../structures/tdcs.js";
import { TDVPS, VCPU_NO_LP, VcpuState, type TdvpsStructure } from "../structures/tdvps.js";

/** What comes of it on most TD entries. */
const ASSOCIATED_BEFORE = { status: TDX_STATUS.TDX_SUCCESS, newAssociation: false } as const;

/** @param allowDisabled a vCPU that had a triple fault will do (TDH.VP.RD) */
export function checkAndAssociateVcpu(
  lp: SeamContext,
  tdcs: TdcsStructure,
  tdvps: TdvpsStructure,
  allowDisabled: boolean,
): { readonly status: bigint; readonly newAssociation: boolean } {
  const state = tdvps.get(TDVPS.VCPU_STATE);
  if (state !== VcpuState.VCPU_READY && !(allowDisabled && state === VcpuState.VCPU_DISABLED))
    return { status: TDX_STATUS.TDX_VCPU_STATE_INCORRECT, newAssociation: false };
  const associated = tdvps.get(TDVPS.ASSOC_LPID);
  if (associated === lp.index) return ASSOCIATED_BEFORE;
  if (associated !== VCPU_NO_LP) return { status: TDX_STATUS.TDX_VCPU_ASSOCIATED, newAssociation: false };
  associate(lp, tdcs, tdvps);
  return { status: TDX_STATUS.TDX_SUCCESS, newAssociation: true };
}

/** TDH.VP.INIT: with the logical processor it runs on. */
export function associateVcpuInitial(lp: SeamContext, tdcs: TdcsStructure, tdvps: TdvpsStructure): void {
  associate(lp, tdcs, tdvps);
  tdvps.setAt(TDVPS.MODULE_DEPENDENT_FIELDS_UPDATED, 0, 0);
}

function associate(lp: SeamContext, tdcs: TdcsStructure, tdvps: TdvpsStructure): void {
  tdvps.set(TDVPS.ASSOC_LPID, lp.index);
  tdvps.setAt(TDVPS.LP_DEPENDENT_HPA_UPDATED, 0, 0);
  tdcs.set(TDCS.NUM_ASSOC_VCPUS, tdcs.get(TDCS.NUM_ASSOC_VCPUS) + 1);
}
