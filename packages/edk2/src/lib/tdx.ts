/**
 * TDCALL and TDVMCALL as firmware uses them. Registers: TDX module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3
 * (MdePkg/Library/TdxLib and BaseIoLibIntrinsic in edk2).
 */
import { encodeLeaf, guest, type GuestRegisters, type GprName, type Guest, TDCALL_LEAF } from "@swtdx/abi";

/** RDX, RBX, RSI, RDI, R8-R15 are passed to the VMM (GHCI: the mask that OVMF and Linux use). */
const EXPOSED = 0xffccn;

/** Sub-functions of TDG.VP.VMCALL. */
const TDVMCALL = { IO: 30n, MAP_GPA: 0x1_0001n, REPORT_FATAL_ERROR: 0x1_0003n } as const;

type Registers = Required<Record<GprName, bigint>>;

/** A TDCALL leaf; RAX of the result is the completion status. */
export const tdcall = (leaf: keyof typeof TDCALL_LEAF, regs: GuestRegisters = {}): Guest<Registers> =>
  guest.tdcall({ ...regs, rax: encodeLeaf(TDCALL_LEAF[leaf]) });

/**
 * TDG.VP.VMCALL of a standard sub-function.
 * A status in RAX means that the TDX module refused: nothing can be reported, so the processor is stopped.
 */
export function* tdvmcall(
  subFunction: bigint,
  r12 = 0n,
  r13 = 0n,
  r14 = 0n,
  r15 = 0n,
): Guest<{ status: bigint; r11: bigint; r12: bigint }> {
  const regs = yield* tdcall("TDG.VP.VMCALL", {
    rcx: EXPOSED,
    r10: 0n,
    r11: subFunction,
    r12,
    r13,
    r14,
    r15,
  });
  if (regs.rax !== 0n) yield* deadLoop();
  return { status: regs.r10, r11: regs.r11, r12: regs.r12 };
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
  const { status, r11 } = yield* tdvmcall(TDVMCALL.IO, BigInt(size), 0n, BigInt(port));
  if (status !== 0n) yield* deadLoop();
  return Number(r11 & ((1n << BigInt(8 * size)) - 1n));
}

/** OUT by TDVMCALL. */
export function* ioWrite(port: number, size: 1 | 2 | 4, value: number): Guest<void> {
  const { status } = yield* tdvmcall(TDVMCALL.IO, BigInt(size), 1n, BigInt(port), BigInt(value >>> 0));
  if (status !== 0n) yield* deadLoop();
}

const RETRY = 1n;
/**
 * TDVMCALL MapGPA: asks the VMM to turn a range shared (shared bit set in `gpa`) or private; goes on where the VMM
 * asks to. @returns whether it succeeded
 */
export function* mapGpa(gpa: bigint, bytes: number): Guest<boolean> {
  const end = gpa + BigInt(bytes);
  let at = gpa;
  for (let noProgress = 0; noProgress < 3;) {
    const { status, r11 } = yield* tdvmcall(TDVMCALL.MAP_GPA, at, end - at);
    if (status !== RETRY) return status === 0n;
    if (r11 < at || r11 >= end) return false;
    noProgress = r11 === at ? noProgress + 1 : 0;
    at = r11;
  }
  return false;
}

/** TDVMCALL ReportFatalError: the text's first 64 bytes go to the VMM, which ends the TD. */
export function* reportFatalError(text: string): Guest<never> {
  const bytes = new Uint8Array(64);
  bytes.set(new TextEncoder().encode(text).subarray(0, 64));
  const view = new DataView(bytes.buffer);
  const word = (i: number) => view.getBigUint64(8 * i, true);
  yield* tdcall("TDG.VP.VMCALL", {
    rcx: EXPOSED,
    r10: 0n,
    r11: TDVMCALL.REPORT_FATAL_ERROR,
    r12: 0n,
    r13: 0n,
    r14: word(0),
    r15: word(1),
    rbx: word(2),
    rdi: word(3),
    rsi: word(4),
    r8: word(5),
    r9: word(6),
    rdx: word(7),
  });
  return yield* deadLoop();
}
