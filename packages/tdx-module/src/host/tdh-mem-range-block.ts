/** TDH.MEM.RANGE.BLOCK: no new translations of a range; old ones go with TLB tracking. Source: intel/tdx-module tdh_mem_range_block.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, setPamtBepoch } from "../structures/pamt.js";
import { SEPT_LOW, SeptLevel } from "../structures/sept.js";
import { TDCS } from "../structures/tdcs.js";
import { SEPT_BLOCKED } from "../tables/sept-state.js";
import {
  implicitPamtEntry,
  lockAndWalkSept,
  lockSeptEntry,
  lockTd,
  pageInfo,
  reportSept,
  septRootLevel,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

/** RCX: GPA and level. RDX: HPA of the TDR. */
export const tdhMemRangeBlock: SeamcallHandler = (call) => {
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  const next = SEPT_BLOCKED[sept.state];
  if (next === undefined || !septStateAllowed(call)) {
    if (!sept.info.anyBlocked) return septStateIncorrect(call);
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_GPA_RANGE_ALREADY_BLOCKED, "RCX");
  }

  sept.cleanupPending();
  const level = sept.leaf ? sept.level : Level.PT_4KB;
  const entry = implicitPamtEntry(call, sept.hpa, level);
  sept.setState(next);
  sept.low &= ~SEPT_LOW.RWX;
  writeSeptAndUnlock(call);
  setPamtBepoch(call.lp, entry, call.globalHkid, call.tdcs.get(TDCS.TD_EPOCH));
  traceSept(call, "RANGE.BLOCK", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
