/**
 * TDG.MR.REPORT (leaf 4): a TDREPORT_STRUCT over the TD's measurements and 64 bytes of the guest's.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mr_report.c, src/common/helpers/helpers.c
 * (get_tdinfo_and_teeinfohash).
 */
import { REPORTDATA_SIZE, TDINFO_STRUCT, TDX_STATUS, TEE_TYPE, withOperand } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { Gpr } from "@swtdx/cpu";
import { asyncTdexitEmptyReason } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { acquireSharexHp, Lock, releaseSharexHp } from "../locks.js";
import { TDCS } from "../structures/tdcs.js";
import { TDR } from "../structures/tdr.js";
import { GPA_INVALID, GPA_OK, guestSideGpa } from "./gpa.js";

const TDREPORT_SIZE = 1024;
const TEE_TCB_INFO_OFFSET = 256;
const TDINFO_OFFSET = 512;

export function tdgMrReport(vp: VpContext): bigint | Flow {
  const { lp, regs, tdcs, tdr } = vp;
  const reportGpa = regs.gpr(Gpr.RCX);
  const dataGpa = regs.gpr(Gpr.RDX);
  if (reportGpa % BigInt(TDREPORT_SIZE) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (dataGpa % BigInt(REPORTDATA_SIZE) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  let mapped = guestSideGpa(vp, dataGpa, false, false);
  if (mapped === GPA_INVALID) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  if (mapped !== GPA_OK) return mapped as Flow;
  const reportData = new Uint8Array(REPORTDATA_SIZE);
  lp.read(vp.mappedHpa, vp.mappedKeyId, reportData);
  if (regs.gpr(Gpr.R8) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");

  const cached = tdcs.get(TDCS.LAST_TEEINFO_HASH_VALID) !== 0;
  const info = tdInfoAndHash(vp);
  if (typeof info === "bigint") return withOperand(info, "RTMR");
  if (!cached && lp.interruptPending) return Flow.INTERRUPTED;

  const version = tdcs.get(TDCS.SERVTD_NUM) > 0 ? 1 : 0;
  const report = lp.seamdbReport(
    { reportType: { type: TEE_TYPE.TDX, subtype: 0, version }, reportData, teeInfoHash: info.hash },
    tdr.get(TDR.SEAMDB_INDEX),
    tdr.getBytes(TDR.SEAMDB_NONCE),
  );
  if ("status" in report) return asyncTdexitEmptyReason(vp, TDX_STATUS.TDX_NON_RECOVERABLE_TD_CORRUPTED_MD);

  mapped = guestSideGpa(vp, reportGpa, true, false);
  if (mapped === GPA_INVALID) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (mapped !== GPA_OK) return mapped as Flow;
  const out = new Uint8Array(TDREPORT_SIZE);
  out.set(report.reportMacStruct);
  out.set(report.teeTcbInfo, TEE_TCB_INFO_OFFSET);
  out.set(info.tdInfo, TDINFO_OFFSET);
  lp.write(vp.mappedHpa, vp.mappedKeyId, out);
  return TDX_STATUS.TDX_SUCCESS;
}

/** TDINFO_STRUCT and its SHA-384, which is kept until an RTMR changes. @returns a lock's status on contention */
function tdInfoAndHash(vp: VpContext): { tdInfo: Uint8Array; hash: Uint8Array } | bigint {
  const { lp, tdcs } = vp;
  const lock = tdcs.pa(TDCS.RTMR_LOCK.offset);
  const key = tdcs.keyId;
  const locked = acquireSharexHp(lp, lock, key, Lock.SHARED, true);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return locked;
  const tdInfo = TDINFO_STRUCT.encode({
    ATTRIBUTES: tdcs.get(TDCS.ATTRIBUTES),
    XFAM: tdcs.get(TDCS.XFAM),
    MRTD: tdcs.getBytes(TDCS.MRTD),
    MRCONFIGID: tdcs.getBytes(TDCS.MRCONFIGID),
    MROWNER: tdcs.getBytes(TDCS.MROWNER),
    MROWNERCONFIG: tdcs.getBytes(TDCS.MROWNERCONFIG),
    RTMR: [TDCS.RTMR0, TDCS.RTMR1, TDCS.RTMR2, TDCS.RTMR3].map((field) => tdcs.getBytes(field)),
    SERVTD_HASH: tdcs.getBytes(TDCS.SERVTD_HASH),
  });
  let hash: Uint8Array;
  if (tdcs.get(TDCS.LAST_TEEINFO_HASH_VALID) !== 0) {
    hash = tdcs.getBytes(TDCS.LAST_TEEINFO_HASH);
  } else {
    hash = sha384(tdInfo);
    tdcs.setBytes(TDCS.LAST_TEEINFO_HASH, hash);
    tdcs.set(TDCS.LAST_TEEINFO_HASH_VALID, 1);
  }
  releaseSharexHp(lp, lock, key, Lock.SHARED);
  return { tdInfo, hash };
}
