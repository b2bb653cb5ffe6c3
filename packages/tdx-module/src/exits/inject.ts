/**
 * Events that the module injects at the next VM entry: #UD, #GP, #PF, #VE, #DF, NMI; and moving on to the next
 * instruction.
 *
 * Source: intel/tdx-module src/common/helpers/helpers.{c,h} (inject_…, advance_guest_rip),
 * src/td_dispatcher/vm_exits/td_other_exits.c (tdx_inject_ve).
 */
import { TDX_STATUS } from "@swtdx/abi";
import { REG, VMCS } from "@swtdx/cpu";
import { asyncTdexitToVmm } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { TDVPS, VE_INFO_CONTENTS_VALID } from "../structures/tdvps.js";
import { ExitReason, exitReasonName } from "../tables/exit-reasons.js";

/** VM_ENTRY_INTR_INFO: bit 31 valid, type in bits 10:8, bit 11 deliver error code. */
const VALID = 1n << 31n;
const HARDWARE_EXCEPTION = 3n << 8n;
const DELIVER_ERROR_CODE = 1n << 11n;
const UD = VALID | HARDWARE_EXCEPTION | 6n;
const DF = VALID | HARDWARE_EXCEPTION | DELIVER_ERROR_CODE | 8n;
const GP = VALID | HARDWARE_EXCEPTION | DELIVER_ERROR_CODE | 13n;
const PF = VALID | HARDWARE_EXCEPTION | DELIVER_ERROR_CODE | 14n;
const VE = VALID | HARDWARE_EXCEPTION | 20n;
const NMI = VALID | (2n << 8n) | 2n;
const RF = 1n << 16n;

const setResumeFlag = ({ lp }: VpContext): void => {
  lp.vmwrite(VMCS.GUEST_RFLAGS, lp.vmread(VMCS.GUEST_RFLAGS) | RF);
};

export function injectUd(vp: VpContext): void {
  setResumeFlag(vp);
  vp.lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, UD);
}

export function injectGp(vp: VpContext, errorCode = 0n): void {
  setResumeFlag(vp);
  vp.lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, GP);
  vp.lp.vmwrite(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE, errorCode);
}

function injectDf({ lp }: VpContext): void {
  lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, DF);
  lp.vmwrite(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE, 0n);
}

export function injectNmi({ lp }: VpContext): void {
  lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, NMI);
}

/**
 * #PF with CR2. An event that is already waiting to be injected (its delivery caused this VM exit) makes it a #DF or
 * a triple fault.
 */
export function injectPf(vp: VpContext, gla: bigint, errorCode: bigint): Flow {
  const { lp } = vp;
  const waiting = lp.vmread(VMCS.VM_ENTRY_INTR_INFO_FIELD);
  vp.regs.set(REG.CR2, gla);
  const exception =
    (waiting & (VALID | (7n << 8n))) === (VALID | HARDWARE_EXCEPTION) ? Number(waiting & 0xffn) : -1;
  if (exception === 8)
    return asyncTdexitToVmm(vp, TDX_STATUS.TDX_NON_RECOVERABLE_VCPU, ExitReason.TRIPLE_FAULT, 0n, 0n, 0n, 0n);
  if (exception === 14 || exception === 20) {
    injectDf(vp);
  } else {
    lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, PF);
    lp.vmwrite(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE, errorCode);
  }
  setResumeFlag(vp);
  return Flow.RESUME;
}

/** #VE with its information area; #DF while the guest has not fetched the last one's. */
export function injectVe(vp: VpContext, reason: number, qualification: bigint, gpa = 0n, gla = 0n): void {
  const { lp, tdvps } = vp;
  if (tdvps.get(TDVPS.VE_INFO_VALID) === 0) {
    tdvps.set(TDVPS.VE_INFO_EXIT_REASON, reason >>> 0);
    tdvps.set(TDVPS.VE_INFO_EXIT_QUALIFICATION, qualification);
    tdvps.set(TDVPS.VE_INFO_GLA, gla);
    tdvps.set(TDVPS.VE_INFO_GPA, gpa);
    tdvps.set(TDVPS.VE_INFO_EPTP_INDEX, Number(lp.vmread(VMCS.EPTP_INDEX)) & 0xffff);
    tdvps.set(TDVPS.VE_INFO_INSTRUCTION_LENGTH, Number(lp.vmread(VMCS.VM_EXIT_INSTRUCTION_LEN)));
    tdvps.set(TDVPS.VE_INFO_INSTRUCTION_INFORMATION, Number(lp.vmread(VMCS.VMX_INSTRUCTION_INFO)));
    tdvps.set(TDVPS.VE_INFO_VALID, VE_INFO_CONTENTS_VALID);
    lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, VE);
    const { trace } = vp.platform;
    if (trace.on.VE)
      trace.emit({ type: "VE", lp: lp.index, reason, name: exitReasonName(reason), gpa: Number(gpa), gla });
  } else {
    injectDf(vp);
  }
  setResumeFlag(vp);
}

/** Whether an event is set up for the next VM entry. */
export const eventInjected = ({ lp }: VpContext): boolean =>
  lp.vmreadLow(VMCS.VM_ENTRY_INTR_INFO_FIELD) >>> 31 !== 0;

const BLOCKED_BY_STI_OR_MOVSS = 3;

export function clearMovssStiBlocking({ lp }: VpContext): void {
  const state = lp.vmreadLow(VMCS.GUEST_INTERRUPTIBILITY_INFO);
  if ((state & BLOCKED_BY_STI_OR_MOVSS) !== 0)
    lp.vmwriteHalves(VMCS.GUEST_INTERRUPTIBILITY_INFO, state & ~BLOCKED_BY_STI_OR_MOVSS, 0);
}

export function blockNmi({ lp }: VpContext): void {
  lp.vmwrite(VMCS.GUEST_INTERRUPTIBILITY_INFO, lp.vmread(VMCS.GUEST_INTERRUPTIBILITY_INFO) | 8n);
}

/** To the next instruction: RIP, interrupt shadow, pending single-step trap. */
export function advanceGuestRip(vp: VpContext): void {
  const { lp } = vp;
  const rip = lp.vmreadLow(VMCS.GUEST_RIP) + lp.vmreadLow(VMCS.VM_EXIT_INSTRUCTION_LEN);
  const carry = rip > 0xffff_ffff ? 1 : 0;
  lp.vmwriteHalves(VMCS.GUEST_RIP, rip >>> 0, (lp.vmreadHigh(VMCS.GUEST_RIP) + carry) >>> 0);
  clearMovssStiBlocking(vp);
  const singleStep =
    (lp.vmreadLow(VMCS.GUEST_RFLAGS) & RFLAGS_TF) !== 0 &&
    (lp.vmreadLow(VMCS.GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF) === 0;
  const pending = lp.vmreadLow(VMCS.GUEST_PENDING_DBG_EXCEPTIONS);
  const next = (singleStep ? pending | PENDING_BS : pending & ~PENDING_BS) >>> 0;
  if (next !== pending)
    lp.vmwriteHalves(
      VMCS.GUEST_PENDING_DBG_EXCEPTIONS,
      next,
      lp.vmreadHigh(VMCS.GUEST_PENDING_DBG_EXCEPTIONS),
    );
}
const RFLAGS_TF = 1 << 8;
const DEBUGCTL_BTF = 2;
const PENDING_BS = 1 << 14;

/** CPL 0..3: DPL of SS. */
export const guestCpl = ({ lp }: VpContext): number => Number((lp.vmread(VMCS.GUEST_SS_AR_BYTES) >> 5n) & 3n);

export const isGuestIn64bMode = ({ lp }: VpContext): boolean =>
  (lp.vmreadLow(VMCS.GUEST_IA32_EFER) & (1 << 10)) !== 0 &&
  (lp.vmreadLow(VMCS.GUEST_CS_AR_BYTES) & (1 << 13)) !== 0;
