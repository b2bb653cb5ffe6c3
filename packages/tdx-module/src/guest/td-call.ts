/**
 * TDCALL: leaf and version checks, the table of functions, completion status.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/tdx_td_dispatcher.c (td_call).
 */
import { OPERAND_ID, TDCALL_LEAF, TDX_STATUS, statusIs, withOperand, type TdcallName } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { asyncTdexitEmptyReason } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { clearMovssStiBlocking, injectGp, isGuestIn64bMode } from "../exits/inject.js";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";
import { tdgMemPageAccept } from "./tdg-mem-page-accept.js";
import { tdgMemPageAttrRd } from "./tdg-mem-page-attr-rd.js";
import { tdgMemPageAttrWr } from "./tdg-mem-page-attr-wr.js";
import { tdgMrReport } from "./tdg-mr-report.js";
import { tdgMrRtmrExtend } from "./tdg-mr-rtmr-extend.js";
import { tdgMrVerifyreport } from "./tdg-mr-verifyreport.js";
import { tdgServtdRdWr } from "./tdg-servtd-rd-wr.js";
import { tdgSysRd, tdgSysRdall } from "./tdg-sys-rd.js";
import { tdgVmRd, tdgVmWr } from "./tdg-vm-rd-wr.js";
import { tdgVpCpuidveSet } from "./tdg-vp-cpuidve-set.js";
import { tdgVpEnter } from "./tdg-vp-enter.js";
import { tdgVpInfo } from "./tdg-vp-info.js";
import { tdgVpInvept, tdgVpInvvpid } from "./tdg-vp-invept.js";
import { tdgVpRd, tdgVpWr } from "./tdg-vp-rd-wr.js";
import { tdgVpVeinfoGet } from "./tdg-vp-veinfo-get.js";
import { tdgVpVmcall } from "./tdg-vp-vmcall.js";

/**
 * A TDCALL function: operands in the guest's registers (`vp.regs`), outputs too.
 * @returns the completion status for RAX, or a Flow when there is none
 */
export type TdcallFunction = (vp: VpContext, version: number) => bigint | Flow;

interface TdcallRow {
  readonly handler: TdcallFunction;
  /** Highest version of the operands (RAX[23:16]). */
  readonly version: number;
  /** Registers, for the trace. */
  readonly inputs: readonly (keyof typeof Gpr)[];
  readonly outputs: readonly (keyof typeof Gpr)[];
}
const row = (
  handler: TdcallFunction,
  inputs: readonly (keyof typeof Gpr)[],
  outputs: readonly (keyof typeof Gpr)[],
  version = 0,
): TdcallRow => ({ handler, inputs, outputs, version });

export const TDCALL_TABLE: Readonly<Record<TdcallName, TdcallRow>> = {
  "TDG.VP.VMCALL": row(tdgVpVmcall, ["RCX", "R10", "R11", "R12", "R13", "R14", "R15"], []),
  "TDG.VP.INFO": row(tdgVpInfo, [], ["RCX", "RDX", "R8", "R9", "R10", "R11"]),
  "TDG.MR.RTMR.EXTEND": row(tdgMrRtmrExtend, ["RCX", "RDX"], []),
  "TDG.VP.VEINFO.GET": row(tdgVpVeinfoGet, [], ["RCX", "RDX", "R8", "R9", "R10"]),
  "TDG.MR.REPORT": row(tdgMrReport, ["RCX", "RDX", "R8"], []),
  "TDG.VP.CPUIDVE.SET": row(tdgVpCpuidveSet, ["RCX"], []),
  "TDG.MEM.PAGE.ACCEPT": row(tdgMemPageAccept, ["RCX"], []),
  "TDG.VM.RD": row(tdgVmRd, ["RCX", "RDX"], ["RDX", "R8"], 1),
  "TDG.VM.WR": row(tdgVmWr, ["RCX", "RDX", "R8", "R9"], ["R8"]),
  "TDG.VP.RD": row(tdgVpRd, ["RCX", "RDX"], ["RDX", "R8"]),
  "TDG.VP.WR": row(tdgVpWr, ["RCX", "RDX", "R8", "R9"], ["R8"]),
  "TDG.SYS.RD": row(tdgSysRd, ["RDX"], ["RDX", "R8"]),
  "TDG.SYS.RDALL": row(tdgSysRdall, ["RDX", "R8"], ["R8"]),
  "TDG.SERVTD.RD": row(tdgServtdRdWr, ["RCX", "RDX"], []),
  "TDG.SERVTD.WR": row(tdgServtdRdWr, ["RCX", "RDX", "R8", "R9"], []),
  "TDG.MR.VERIFYREPORT": row(tdgMrVerifyreport, ["RCX"], []),
  "TDG.MEM.PAGE.ATTR.RD": row(tdgMemPageAttrRd, ["RCX"], ["RCX", "RDX"]),
  "TDG.MEM.PAGE.ATTR.WR": row(tdgMemPageAttrWr, ["RCX", "RDX", "R8"], ["RCX", "RDX"]),
  "TDG.VP.ENTER": row(tdgVpEnter, ["RCX", "RDX"], []),
  "TDG.VP.INVEPT": row(tdgVpInvept, ["RCX"], []),
  "TDG.VP.INVVPID": row(tdgVpInvvpid, ["RCX", "RDX"], []),
};

const BY_LEAF: (TdcallRow & { name: TdcallName })[] = [];
for (const [name, entry] of Object.entries(TDCALL_TABLE) as [TdcallName, TdcallRow][])
  BY_LEAF[TDCALL_LEAF[name]] = { ...entry, name };

const INVALID_RAX = withOperand(TDX_STATUS.TDX_OPERAND_INVALID, OPERAND_ID.RAX);

export function tdCall(vp: VpContext): Flow {
  if (!isGuestIn64bMode(vp)) {
    injectGp(vp);
    return Flow.RESUME;
  }
  const { u32 } = vp.regs;
  const low = u32[Gpr.RAX * 2];
  // RAX[15:0] leaf, [23:16] version, nothing above.
  const leaf = low & 0xffff;
  const version = (low >>> 16) & 0xff;
  const entry = BY_LEAF[leaf];
  const legal =
    low >>> 24 === 0 && u32[Gpr.RAX * 2 + 1] === 0 && entry !== undefined && version <= entry.version;
  const { trace } = vp.platform;
  const input = trace.on.TDCALL ? capture(vp, entry?.inputs ?? []) : null;
  const outcome = legal ? entry.handler(vp, version) : INVALID_RAX;
  if (typeof outcome === "bigint") trace.tdcalls[leaf]++;
  if (typeof outcome === "bigint" && input !== null)
    trace.emit({
      type: "TDCALL",
      lp: vp.lp.index,
      leaf: entry?.name ?? String(leaf),
      input,
      status: outcome,
      output: capture(vp, entry?.outputs ?? []),
    });
  return complete(vp, outcome);
}

const capture = (vp: VpContext, names: readonly (keyof typeof Gpr)[]): Record<string, bigint> =>
  Object.fromEntries(names.map((name) => [name, vp.regs.gpr(Gpr[name])]));

/** RAX, and the time limit on waiting for locks that the host holds. */
function complete(vp: VpContext, outcome: bigint | Flow): Flow {
  if (typeof outcome !== "bigint") {
    if (outcome === Flow.INTERRUPTED) clearMovssStiBlocking(vp);
    return outcome;
  }
  const { tdvps, tdcs } = vp;
  let status = outcome;
  if (statusIs(status, TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY)) {
    // Older TDs know TDX_OPERAND_BUSY only.
    status = TDX_STATUS.TDX_OPERAND_BUSY | (status & 0xffff_ffffn);
    const now = vp.lp.rdtsc();
    if (tdvps.get(TDVPS.HP_LOCK_BUSY) === 0) {
      tdvps.set(TDVPS.HP_LOCK_BUSY, 1);
      tdvps.set(TDVPS.HP_LOCK_BUSY_START, now);
    } else if (now - tdvps.get(TDVPS.HP_LOCK_BUSY_START) >= tdcs.get(TDCS.HP_LOCK_TIMEOUT)) {
      tdvps.set(TDVPS.HP_LOCK_BUSY, 0);
      vp.regs.setGpr(Gpr.RAX, status);
      return asyncTdexitEmptyReason(vp, TDX_STATUS.TDX_HOST_PRIORITY_BUSY_TIMEOUT);
    }
  } else if (tdvps.get(TDVPS.HP_LOCK_BUSY) !== 0) {
    tdvps.set(TDVPS.HP_LOCK_BUSY, 0);
  }
  vp.regs.setGpr(Gpr.RAX, status);
  return Flow.RESUME;
}
