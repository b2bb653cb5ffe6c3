/**
 * TDCALL and TDVMCALL as the kernel uses them (arch/x86/coco/tdx/tdx.c in Linux).
 * TDX module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3.
 */
import {
  fatalErrorRegisters,
  type Guest,
  type GuestRegisters,
  mapGpaWith,
  metadataFieldId,
  TD_METADATA,
  tdcall,
  type TdcallRegisters,
  type TdvmcallName,
  vmcallStandard,
} from "@swtdx/abi";

/** The TDX module refused a hypercall: nothing can be trusted any more, and nothing can be said. */
export class TdvmcallFailed extends Error {
  override readonly name = "TdvmcallFailed";
}

/**
 * A hypercall by its sub-function, with its arguments from R12 on; R10 of the result is the VMM's status.
 * @throws TdvmcallFailed when the TDX module refuses it ("TDVMCALL failed. TDX module bug?" in Linux)
 */
export function* tdvmcall(name: TdvmcallName, regs: GuestRegisters = {}): Guest<TdcallRegisters> {
  const out = yield* vmcallStandard(name, regs);
  if (out.rax !== 0n) throw new TdvmcallFailed(`${name}: 0x${out.rax.toString(16)}`);
  return out;
}

/** ReportFatalError with a text of at most 64 bytes; does not come back. */
export function* tdxPanic(text: string): Guest<never> {
  const regs = fatalErrorRegisters(text);
  for (;;) yield* tdvmcall("ReportFatalError", regs);
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

/** MapGPA; the shared bit of `gpa` selects the direction. @returns whether the VMM did it all */
export const mapGpa = (gpa: bigint, bytes: number): Guest<boolean> => mapGpaWith(tdvmcall, gpa, bytes);
