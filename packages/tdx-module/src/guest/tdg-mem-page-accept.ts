/**
 * TDG.MEM.PAGE.ACCEPT (leaf 6): takes a pending page: zeroes it and maps it.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mem_page_accept.c.
 */
import { TDX_STATUS, VMX_EEQ_TYPE, withOperand, type Hpa } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { asyncTdexitEptViolation } from "../exits/td-ept-violation.js";
import { SEPT_LOW, SeptState, type SeptEntry } from "../structures/sept.js";
import { checkGpaValidity, pageInfo, walkSecureEpt } from "./gpa.js";

const LEVEL_2M = 1;
const PAGES_IN_2M = 512;
const SIZE_2M = PAGES_IN_2M * 4096;
/** Bits 20:12 of a pending 2M entry: pages that are done. */
const ACCEPT_COUNTER_SHIFT = 12;
const ACCEPT_COUNTER_MASK = 511 << ACCEPT_COUNTER_SHIFT;

export function tdgMemPageAccept(vp: VpContext): bigint | Flow {
  const { lp, regs } = vp;
  const operand = pageInfo(regs.gpr(Gpr.RCX), LEVEL_2M);
  if (operand === null || !checkGpaValidity(vp, operand.gpa, true))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const { level } = operand;
  const gpa = Number(operand.gpa);
  const entry = walkSecureEpt(vp, gpa, level);
  if (entry.level !== level) {
    // Mapped by a larger page, or there is no table.
    if (entry.info.guestAccessibleLeaf) return withOperand(TDX_STATUS.TDX_PAGE_ALREADY_ACCEPTED, entry.level);
    return asyncTdexitEptViolation(vp, gpa, level, entry, VMX_EEQ_TYPE.ACCEPT);
  }
  const locked = entry.lockForGuest(lp);
  if (locked === "busy") return withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "RCX");
  if (locked === "busyHostPriority") return withOperand(TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY, "RCX");
  const refusal = refuse(entry);
  if (refusal !== null) {
    entry.unlock(lp);
    if (refusal === Flow.TD_EXIT) return asyncTdexitEptViolation(vp, gpa, level, entry, VMX_EEQ_TYPE.ACCEPT);
    return withOperand(refusal, level);
  }
  if (!zeroPage(vp, entry)) {
    entry.write(lp);
    entry.unlock(lp);
    return Flow.INTERRUPTED;
  }
  entry.low |= SEPT_LOW.RWX;
  entry.setState(entry.state === SeptState.PENDING ? SeptState.MAPPED : SeptState.EXPORTED_DIRTY);
  entry.write(lp);
  entry.unlock(lp);
  const { trace } = vp.platform;
  if (trace.on.SEPT)
    trace.emit({ type: "SEPT", op: "ACCEPT", gpa, level, state: entry.info.name, hpa: entry.hpa });
  return TDX_STATUS.TDX_SUCCESS;
}

/** What an entry of the right level that is not to be accepted comes to, or null. */
function refuse(entry: SeptEntry): bigint | typeof Flow.TD_EXIT | null {
  if (entry.state !== SeptState.FREE && !entry.leaf && entry.state !== SeptState.REMOVED)
    return TDX_STATUS.TDX_PAGE_SIZE_MISMATCH;
  if (entry.info.guestAccessibleLeaf) return TDX_STATUS.TDX_PAGE_ALREADY_ACCEPTED;
  if (!entry.info.guestAcceptable) return Flow.TD_EXIT;
  return null;
}

/**
 * Zeroes a page: 4K at a time, with a look for interrupts after each. Time stands still in the module, so what the
 * first look does not see no later one can: the rest is zeroed as one.
 * @returns false when an interrupt wants in before a 2M page is done
 */
function zeroPage(vp: VpContext, entry: SeptEntry): boolean {
  const { lp } = vp;
  if (entry.level === 0) {
    lp.zero(entry.hpa, vp.hkid, 4096);
    return true;
  }
  const base = entry.hpa - (entry.hpa % SIZE_2M);
  const done = (entry.low & ACCEPT_COUNTER_MASK) >>> ACCEPT_COUNTER_SHIFT;
  const interrupted = lp.interruptPending && done < PAGES_IN_2M - 1;
  const end = interrupted ? done + 1 : PAGES_IN_2M;
  lp.zero((base + done * 4096) as Hpa, vp.hkid, (end - done) * 4096);
  entry.low &= ~ACCEPT_COUNTER_MASK;
  if (interrupted) entry.low |= end << ACCEPT_COUNTER_SHIFT;
  return !interrupted;
}
