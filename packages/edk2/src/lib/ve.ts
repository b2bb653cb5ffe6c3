/**
 * The #VE handler: asks the TDX module what happened and does by TDVMCALL what the instruction wanted.
 * Follows OvmfPkg/Library/CcExitLib/CcExitVeHandler.c (edk2).
 */
import { type Guest, guest, type GuestFrame, TDVMCALL, tdcall } from "@swtdx/abi";
import { deadLoop, ioRead, ioWrite, reportFatalError, tdvmcall } from "./tdx.js";

/** Vector of #VE. */
export const VE_VECTOR = 20;

const low = (value: bigint) => Number(value & 0xffff_ffffn);

export function* veHandler(frame: GuestFrame): Guest<void> {
  const info = yield* tdcall("TDG.VP.VEINFO.GET");
  if (info.rax !== 0n) yield* deadLoop();
  const reason = low(info.rcx);
  const op = frame.op;
  if (reason === TDVMCALL["Instruction.CPUID"] && op?.op === "cpuid") {
    const regs = { r12: BigInt(op.leaf), r13: BigInt(op.subleaf) };
    const { r12, r13, r14, r15 } = yield* tdvmcall("Instruction.CPUID", regs);
    frame.result = { eax: low(r12), ebx: low(r13), ecx: low(r14), edx: low(r15) };
  } else if (reason === TDVMCALL["Instruction.HLT"]) {
    yield* tdvmcall("Instruction.HLT");
    frame.result = null;
  } else if (reason === TDVMCALL["Instruction.IO"] && op?.op === "in") {
    frame.result = yield* ioRead(op.port, op.size);
  } else if (reason === TDVMCALL["Instruction.IO"] && op?.op === "out") {
    yield* ioWrite(op.port, op.size, op.value);
    frame.result = null;
  } else if (reason === TDVMCALL["Instruction.RDMSR"] && op?.op === "rdmsr") {
    frame.result = (yield* tdvmcall("Instruction.RDMSR", { r12: BigInt(op.index) })).r11;
  } else if (reason === TDVMCALL["Instruction.WRMSR"] && op?.op === "wrmsr") {
    yield* tdvmcall("Instruction.WRMSR", { r12: BigInt(op.index), r13: op.value });
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
