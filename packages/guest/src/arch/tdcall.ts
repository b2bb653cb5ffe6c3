/**
 * TDCALL and TDVMCALL as the kernel uses them (arch/x86/coco/tdx/tdx.c in Linux).
 * TDX module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3.
 */
import {
  encodeLeaf,
  type GprName,
  type Guest,
  guest,
  type GuestRegisters,
  metadataFieldId,
  FATAL_ERROR_TEXT_REGISTERS,
  TD_METADATA,
  TDCALL_LEAF,
  TDVMCALL,
  TDVMCALL_EXPOSE_REGS_MASK,
  TDVMCALL_STATUS,
  type TdcallName,
  type TdvmcallName,
} from "@swtdx/abi";

export type Registers = Required<Record<GprName, bigint>>;

/** A TDCALL leaf; RAX of the result is the completion status. */
export const tdcall = (leaf: TdcallName, regs: GuestRegisters = {}): Guest<Registers> =>
  guest.tdcall({ ...regs, rax: encodeLeaf(TDCALL_LEAF[leaf]) });

/** The TDX module refused a hypercall: nothing can be trusted any more, and nothing can be said. */
export class TdvmcallFailed extends Error {
  override readonly name = "TdvmcallFailed";
}

/**
 * A hypercall by its sub-function, with its arguments from R12 on; R10 of the result is the VMM's status.
 * @throws TdvmcallFailed when the TDX module refuses it ("TDVMCALL failed. TDX module bug?" in Linux)
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
  if (out.rax !== 0n) throw new TdvmcallFailed(`${name}: 0x${out.rax.toString(16)}`);
  return out;
}

/** ReportFatalError with a text of at most 64 bytes; does not come back. */
export function* tdxPanic(text: string): Guest<never> {
  const bytes = new Uint8Array(64);
  bytes.set(new TextEncoder().encode(text).subarray(0, 64));
  const view = new DataView(bytes.buffer);
  const words = FATAL_ERROR_TEXT_REGISTERS.map((name, i) => [name, view.getBigUint64(8 * i, true)] as const);
  for (;;) yield* tdvmcall("ReportFatalError", Object.fromEntries(words));
}

/** TDG.VM.RD of a TD metadata field; null when the module has no such field. */
export function* vmRead(field: keyof typeof TD_METADATA): Guest<bigint | null> {
  const { rax, r8 } = yield* tdcall("TDG.VM.RD", { rcx: 0n, rdx: metadataFieldId(TD_METADATA[field]) });
  return rax === 0n ? r8 : null;
}

/** TDG.VM.WR of the bits in `mask`. @returns whether the module took it */
export function* vmWrite(field: keyof typeof TD_METADATA, value: bigint, mask: bigint): Guest<boolean> {
  const regs = { rcx: 0n, rdx: metadataFieldId(TD_METADATA[field]), r8: value, r9: mask };
  return (yield* tdcall("TDG.VM.WR", regs)).rax === 0n;
}

/** Times that the VMM may ask to go on without having done anything. */
const MAX_RETRIES_WITHOUT_PROGRESS = 3;
/** MapGPA; the shared bit of `gpa` selects the direction. @returns whether the VMM did it all */
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
