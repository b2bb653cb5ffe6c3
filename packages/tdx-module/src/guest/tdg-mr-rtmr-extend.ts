/**
 * TDG.MR.RTMR.EXTEND (leaf 2): RTMR[RDX] := SHA-384(RTMR[RDX] || 48 bytes at RCX).
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mr_rtmr_extend.c.
 */
import { NUM_RTMRS, TDX_STATUS, withOperand } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { Gpr } from "@swtdx/cpu";
import type { Flow, VpContext } from "../entry/vp-context.js";
import { acquireSharexHp, Lock, releaseSharexHp } from "../locks.js";
import { TDCS } from "../structures/tdcs.js";
import { GPA_INVALID, GPA_OK, guestSideGpa } from "./gpa.js";

const RTMRS = [TDCS.RTMR0, TDCS.RTMR1, TDCS.RTMR2, TDCS.RTMR3] as const;
const HEX = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

export function tdgMrRtmrExtend(vp: VpContext): bigint | Flow {
  const { lp, regs, tdcs } = vp;
  const gpa = regs.gpr(Gpr.RCX);
  const index = regs.gpr(Gpr.RDX);
  if ((gpa & 63n) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const mapped = guestSideGpa(vp, gpa, false, true);
  if (mapped === GPA_INVALID) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (mapped !== GPA_OK) return mapped as Flow;
  const block = new Uint8Array(96);
  lp.read(vp.mappedHpa, vp.mappedKeyId, block.subarray(48));
  if (index >= BigInt(NUM_RTMRS)) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");

  const lock = tdcs.pa(TDCS.RTMR_LOCK.offset);
  const key = tdcs.keyId;
  const locked = acquireSharexHp(lp, lock, key, Lock.EXCLUSIVE, true);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return withOperand(locked, "RTMR");
  const field = RTMRS[Number(index)];
  block.set(tdcs.getBytes(field));
  const value = sha384(block);
  tdcs.setBytes(field, value);
  tdcs.set(TDCS.LAST_TEEINFO_HASH_VALID, 0);
  releaseSharexHp(lp, lock, key, Lock.EXCLUSIVE);

  const { trace } = vp.platform;
  if (trace.on.MEASURE)
    trace.emit({
      type: "MEASURE",
      register: `RTMR${Number(index) as 0 | 1 | 2 | 3}`,
      digest: HEX(block.subarray(48)),
      what: "TDG.MR.RTMR.EXTEND",
    });
  return TDX_STATUS.TDX_SUCCESS;
}
