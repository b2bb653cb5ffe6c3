/**
 * The #VE handler: asks the TDX module what happened and does by TDVMCALL what the instruction wanted.
 * Follows OvmfPkg/Library/CcExitLib/CcExitVeHandler.c (edk2).
 */
import { type Guest, type GuestFrame, guest } from "@swtdx/abi";
import { deadLoop, ioRead, ioWrite, reportFatalError, tdcall, tdvmcall } from "./tdx.js";

/** Vector of #VE. */
export const VE_VECTOR = 20;

const EXIT_REASON = { CPUID: 10, HLT: 12, IO: 30, RDMSR: 31, WRMSR: 32 } as const;

export function* veHandler(frame: GuestFrame): Guest<void> {
  const info = yield* tdcall("TDG.VP.VEINFO.GET");
  if (info.rax !== 0n) yield* deadLoop();
  const reason = Number(info.rcx & 0xffff_ffffn);
  const op = frame.op;
  if (reason === EXIT_REASON.CPUID && op?.op === "cpuid") {
    const regs = yield* tdcall("TDG.VP.VMCALL", {
      rcx: 0xffccn,
      r10: 0n,
      r11: 10n,
      r12: BigInt(op.leaf),
      r13: BigInt(op.subleaf),
    });
    frame.result = {
      eax: Number(regs.r12 & 0xffff_ffffn),
      ebx: Number(regs.r13 & 0xffff_ffffn),
      ecx: Number(regs.r14 & 0xffff_ffffn),
      edx: Number(regs.r15 & 0xffff_ffffn),
    };
  } else if (reason === EXIT_REASON.HLT) {
    yield* tdvmcall(12n, 0n);
    frame.result = null;
  } else if (reason === EXIT_REASON.IO && op?.op === "in") {
    frame.result = yield* ioRead(op.port, op.size);
  } else if (reason === EXIT_REASON.IO && op?.op === "out") {
    yield* ioWrite(op.port, op.size, op.value);
    frame.result = null;
  } else if (reason === EXIT_REASON.RDMSR && op?.op === "rdmsr") {
    frame.result = (yield* tdvmcall(31n, BigInt(op.index))).r11;
  } else if (reason === EXIT_REASON.WRMSR && op?.op === "wrmsr") {
    yield* tdvmcall(32n, BigInt(op.index), op.value);
    frame.result = null;
  } else {
    yield* reportFatalError(`Unhandled #VE, exit reason ${reason}, GPA 0x${info.r9.toString(16)}`);
  }
}

/** Any other exception ends the TD with a message. */
export function* unexpectedException(frame: GuestFrame): Guest<void> {
  yield* reportFatalError(`Exception ${frame.vector}, CR2 0x${frame.cr2.toString(16)}`);
}

export function* installHandlers(): Guest<void> {
  const handlers = new Map(Array.from({ length: 32 }, (_, vector) => [vector, unexpectedException] as const));
  yield* guest.lidt(new Map([...handlers, [VE_VECTOR, veHandler]]));
}
