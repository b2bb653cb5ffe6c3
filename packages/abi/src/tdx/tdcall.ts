/**
 * TDCALL and TDG.VP.VMCALL as guest programs make them: the registers of both conventions, and the hypercalls whose
 * protocol is more than one call. TDX Module 1.5 ABI, ch. 5.4; GHCI 1.5, ch. 3.
 */
import { guest, type GprName, type Guest, type GuestRegisters } from "../guest-program.js";
import { viewOf } from "../struct.js";
import {
  FATAL_ERROR_TEXT_REGISTERS,
  TDVMCALL,
  TDVMCALL_EXPOSE_REGS_MASK,
  TDVMCALL_STATUS,
  type TdvmcallName,
} from "./ghci.js";
import { encodeLeaf, TDCALL_LEAF, type TdcallName } from "./leaves.js";

export type TdcallRegisters = Required<Record<GprName, bigint>>;

/** A TDCALL leaf; RAX of the result is the completion status. */
export const tdcall = (leaf: TdcallName, regs: GuestRegisters = {}): Guest<TdcallRegisters> =>
  guest.tdcall({ ...regs, rax: encodeLeaf(TDCALL_LEAF[leaf]) });

/**
 * TDG.VP.VMCALL of a standard sub-function; `regs` holds its arguments from R12 on. RAX of the result is the module's
 * status, which only a wrong register mask makes fail; R10 is the VMM's.
 */
export const vmcallStandard = (name: TdvmcallName, regs: GuestRegisters = {}): Guest<TdcallRegisters> =>
  tdcall("TDG.VP.VMCALL", {
    r12: 0n,
    r13: 0n,
    r14: 0n,
    r15: 0n,
    ...regs,
    rcx: TDVMCALL_EXPOSE_REGS_MASK,
    r10: 0n,
    r11: BigInt(TDVMCALL[name]),
  });

/** Registers of ReportFatalError for a text, of which the first 64 bytes count. */
export function fatalErrorRegisters(text: string): GuestRegisters {
  const bytes = new Uint8Array(64);
  bytes.set(new TextEncoder().encode(text).subarray(0, 64));
  const view = viewOf(bytes);
  return Object.fromEntries(
    FATAL_ERROR_TEXT_REGISTERS.map((name, i) => [name, view.getBigUint64(8 * i, true)]),
  );
}

/** Times that the VMM may ask to go on without having done anything. */
const MAX_RETRIES_WITHOUT_PROGRESS = 3;
/**
 * MapGPA of a range to shared (shared bit set in `gpa`) or private, going on where the VMM asks to.
 * @param tdvmcall the caller's way to make a hypercall
 * @returns whether the VMM did it all
 */
export function* mapGpaWith(
  tdvmcall: (name: "MapGPA", regs: GuestRegisters) => Guest<TdcallRegisters>,
  gpa: bigint,
  bytes: number,
): Guest<boolean> {
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
