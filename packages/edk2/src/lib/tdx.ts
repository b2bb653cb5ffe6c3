/**
 * TDCALL and TDVMCALL as firmware uses them. Registers: TDX module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3
 * (MdePkg/Library/TdxLib and BaseIoLibIntrinsic in edk2).
 */
import {
  fatalErrorRegisters,
  type Guest,
  guest,
  type GuestRegisters,
  mapGpaWith,
  tdcall,
  type TdcallRegisters,
  TDVMCALL_DIRECTION,
  TDVMCALL_STATUS,
  type TdvmcallName,
  vmcallStandard,
} from "@swtdx/abi";

/**
 * TDG.VP.VMCALL of a standard sub-function; `regs` holds its arguments from R12 on.
 * A status in RAX means that the TDX module refused: nothing can be reported, so the processor is stopped.
 * @returns the registers; R10 is the VMM's status
 */
export function* tdvmcall(name: TdvmcallName, regs: GuestRegisters = {}): Guest<TdcallRegisters> {
  const out = yield* vmcallStandard(name, regs);
  if (out.rax !== 0n) yield* deadLoop();
  return out;
}

/** Stops this processor for good. */
export function* deadLoop(): Guest<never> {
  yield* guest.cli();
  for (;;) yield* guest.hlt();
}

export interface TdInfo {
  /** 48 or 52. */
  gpaw: number;
  attributes: bigint;
  numVcpus: number;
  vcpuIndex: number;
}
/** TDG.VP.INFO. */
export function* tdInfo(): Guest<TdInfo> {
  const regs = yield* tdcall("TDG.VP.INFO");
  if (regs.rax !== 0n) yield* deadLoop();
  return {
    gpaw: Number(regs.rcx & 0x3fn),
    attributes: regs.rdx,
    numVcpus: Number(regs.r8 & 0xffff_ffffn),
    vcpuIndex: Number(regs.r9 & 0xffff_ffffn),
  };
}

/** IN by TDVMCALL, without the detour of a #VE. Size in bytes. */
export function* ioRead(port: number, size: 1 | 2 | 4): Guest<number> {
  const { r10, r11 } = yield* tdvmcall("Instruction.IO", {
    r12: BigInt(size),
    r13: TDVMCALL_DIRECTION.READ,
    r14: BigInt(port),
  });
  if (r10 !== TDVMCALL_STATUS.SUCCESS) yield* deadLoop();
  return Number(r11 & ((1n << BigInt(8 * size)) - 1n));
}

/** OUT by TDVMCALL. */
export function* ioWrite(port: number, size: 1 | 2 | 4, value: number): Guest<void> {
  const { r10 } = yield* tdvmcall("Instruction.IO", {
    r12: BigInt(size),
    r13: TDVMCALL_DIRECTION.WRITE,
    r14: BigInt(port),
    r15: BigInt(value >>> 0),
  });
  if (r10 !== TDVMCALL_STATUS.SUCCESS) yield* deadLoop();
}

/** MapGPA: a range to shared (shared bit set in `gpa`) or private. @returns whether it succeeded */
export const mapGpa = (gpa: bigint, bytes: number): Guest<boolean> => mapGpaWith(tdvmcall, gpa, bytes);

/** ReportFatalError: the text's first 64 bytes go to the VMM, which ends the TD. */
export function* reportFatalError(text: string): Guest<never> {
  yield* tdvmcall("ReportFatalError", fatalErrorRegisters(text));
  return yield* deadLoop();
}
