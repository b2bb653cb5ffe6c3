/** TDH.MEM.PAGE.ADD: a private page with contents, before the TD runs; its GPA is measured. Source: intel/tdx-module tdh_mem_page_add.c. */
import { type Hpa, type KeyId, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtBepoch, setPamtEntry } from "../structures/pamt.js";
import { SEPT_LOW, SeptLevel, SeptState } from "../structures/sept.js";
import {
  hpaOperand,
  isPrivateGpa,
  lockPage,
  lockTd,
  pageInfo,
  reportSept,
  septStateAllowed,
  septStateIncorrect,
  sharedHpaOperand,
  traceSept,
  walkSept,
} from "./support.js";

const NAME = new TextEncoder().encode("MEM.PAGE.ADD");

/** RCX: GPA and level (0). RDX: HPA of the TDR. R8: HPA of the page. R9: HPA of the source page, shared. */
export const tdhMemPageAdd: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.EXCLUSIVE, Lock.NONE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, SeptLevel.PT);
  if (info === null || !isPrivateGpa(call, info.gpa))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  walkSept(call, info.gpa, SeptLevel.PT);
  const { sept } = call;
  if (sept.level !== SeptLevel.PT) {
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_EPT_WALK_FAILED, "RCX");
  }
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  const source = sharedHpaOperand(call, call.r9, 4096);
  if (source < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R9");
  const page = hpaOperand(call, call.r8) as Hpa;
  status = lockPage(call, page, "R8", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;

  const unit = 2 ** module.keyIdShift;
  lp.copy(page, call.tdr.hkid, (source % unit) as Hpa, Math.floor(source / unit) as KeyId, 4096);
  sept.setLeaf(SeptState.MAPPED, page, SEPT_LOW.RWX);
  sept.write(lp);
  module.mrtd(call.tdr.base).block(NAME, info.gpa);
  call.tdr.addChildren(1);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_REG, call.tdr.base);
  setPamtBepoch(lp, call.pamtEntry, call.globalHkid, 0n);
  traceSept(call, "PAGE.ADD", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
