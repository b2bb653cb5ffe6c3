/**
 * TDCALL and TDVMCALL as firmware uses them. Registers: TDX module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3
 * (MdePkg/Library/TdxLib and BaseIoLibIntrinsic in edk2).
 */
import {
  encodeLeaf,
  FATAL_ERROR_TEXT_REGISTERS,
  type GprName,
  type Guest,
  guest,
  type GuestRegisters,
  TDCALL_LEAF,
  TDVMCALL,
  TDVMCALL_DIRECTION,
  TDVMCALL_EXPOSE_REGS_MASK,
  TDVMCALL_STATUS,
  type TdvmcallName,
} from "@swtdx/abi";

type Registers = Required<Record<GprName, bigint>>;

/** A TDCALL leaf; RAX of the result is the completion status. */
export const tdcall = (leaf: keyof typeof TDCALL_LEAF, regs: GuestRegisters = {}): Guest<Registers> =>
  guest.tdcall({ ...regs, rax: encodeLeaf(TDCALL_LEAF[leaf]) });

/**
 * TDG.VP.VMCALL of a standard sub-function; `regs` holds its arguments from R12 on.
 * A status in RAX means that the TDX module refused: nothing can be reported, so the processor is stopped.
 * @returns the registers; R10 is the VMM's status
 */
export function* tdvmcall(name: TdvmcallName, regs: GuestRegisters = {}): Guest<Registers> {
  const out = yield* tdcall("TDG.VP.VMCALL", {
    r12: 0n,
    r13: 0n,
    r14: 0n,
    r15: 0n,
    ...regs,
    rcx: TDVMCALL_EXPOSE_REGS_MASK,
    r10: 0n,
    r11: BigInt(TDVMCALL[name]),
  });
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

/** Times that the VMM may ask to go on without having done anything. */
const MAX_RETRIES_WITHOUT_PROGRESS = 3;
/**
 * MapGPA: asks the VMM to turn a range shared (shared bit set in `gpa`) or private; goes on where the VMM asks to.
 * @returns whether it succeeded
 */
export function* mapGpa(gpa: bigint, bytes: number): Guest<boolean> {
  const end = gpa + BigInt(bytes);
  let at = gpa;
  for (let noProgress = 0; noProgress < MAX_RETRIES_WITHOUT_PROGRESS;) {
    const { r10, r11 } = yield* tdvmcall("MapGPA", { r12: at, r13: end - at });
    if (r10 !== TDVMCALL_STATUS.RETRY) return r10 === TDVMCALL_STATUS.SUCCESS;
    if (r11 < at || r11 >= end) return false;
    noProgress = r11 === at ? noProgress + 1 : 0;
    at = r11;
  }
  return false;
}

/** ReportFatalError: the text's first 64 bytes go to the VMM, which ends the TD. */
export function* reportFatalError(text: string): Guest<never> {
  const bytes = new Uint8Array(64);
  bytes.set(new TextEncoder().encode(text).subarray(0, 64));
  const view = new DataView(bytes.buffer);
  const words = FATAL_ERROR_TEXT_REGISTERS.map((name, i) => [name, view.getBigUint64(8 * i, true)] as const);
  yield* tdvmcall("ReportFatalError", Object.fromEntries(words));
  return yield* deadLoop();
}
