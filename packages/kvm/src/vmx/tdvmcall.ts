/**
 * TDG.VP.VMCALL as KVM answers it: what it does itself, what goes to user space.
 * Source: Linux arch/x86/kvm/vmx/tdx.c (handle_tdvmcall and below); GHCI 1.5.
 */
import {
  Errno,
  KVM_EXIT_HYPERCALL_LONG_MODE,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE_DECRYPTED,
  KVM_MAP_GPA_RANGE_ENCRYPTED,
  KVM_SYSTEM_EVENT_TDX_FATAL,
  KvmExit,
  PAGE_SIZE,
  TDVMCALL,
  TDVMCALL_STATUS,
} from "@swtdx/abi";
import { Gpr } from "@swtdx/linux-host";
import type { Vcpu } from "../vcpu.js";
import { kvmCpuid } from "../x86/cpuid.js";
import { kvmHypercall } from "../x86/hypercall.js";
import { RunResult } from "../x86/ops.js";
import { readGuestMsr, writeGuestMsr } from "./tdx-msr.js";

const { SUCCESS, RETRY, INVALID_OPERAND, SUBFUNC_UNSUPPORTED, ALIGN_ERROR } = TDVMCALL_STATUS;
/** MapGPA is handed to user space in pieces of this many bytes. */
const MAP_GPA_CHUNK = 2 * 2 ** 20;

/** What TDVMCALL handling needs of the TDX vCPU. */
export interface TdvmcallVcpu {
  readonly vcpu: Vcpu;
  /** The guest's GPRs as the last TD exit gave them; what is written here the guest gets. */
  readonly gprs: BigUint64Array;
  /** The same as 32-bit halves. */
  readonly words: Uint32Array;
  readonly sharedBit: bigint;
  /** GPAs end here, shared bit included. */
  readonly gpaLimit: bigint;
  /** Status (RAX) of the last TDH.VP.ENTER. */
  readonly vpEnterRet: bigint;
  /** What finishes the exit to user space; called at the next KVM_RUN. May make another exit. */
  complete: ((td: TdvmcallVcpu) => RunResult | void) | null;
  /** Bytes of the port access under way. */
  ioSize: number;
  /** An event waits that the guest may take. */
  hasInterrupt(): boolean;
  /** The guest said HLT: with its interrupts blocked, or not. */
  haltBlocked: boolean;
}

const FATAL_DATA: readonly number[] = [Gpr.RCX, Gpr.RDX, Gpr.RBX];

export function handleTdvmcall(td: TdvmcallVcpu): RunResult {
  const { gprs, words, vcpu } = td;
  // A hypercall of KVM's own: its number is in R10, its arguments in R11 to R14.
  if ((words[Gpr.R10 * 2] | words[Gpr.R10 * 2 + 1]) !== 0) {
    const args = [gprs[Gpr.R11], gprs[Gpr.R12], gprs[Gpr.R13], gprs[Gpr.R14]];
    return answer(td, kvmHypercall(vcpu, gprs[Gpr.R10], args));
  }
  const { trace } = vcpu.vm.process;
  if (trace.on.TDVMCALL)
    trace.emit({
      type: "TDVMCALL",
      vcpu: vcpu.id,
      subFunction: nameOf(gprs[Gpr.R11]),
      input: { R12: gprs[Gpr.R12], R13: gprs[Gpr.R13], R14: gprs[Gpr.R14], R15: gprs[Gpr.R15] },
      status: 0n,
    });
  const handler = words[Gpr.R11 * 2 + 1] === 0 ? HANDLERS.get(words[Gpr.R11 * 2]) : undefined;
  return handler ? handler(td) : answer(td, SUBFUNC_UNSUPPORTED);
}

const nameOf = (r11: bigint): string =>
  Object.entries(TDVMCALL).find(([, value]) => BigInt(value) === r11)?.[0] ?? `0x${r11.toString(16)}`;

function answer(td: TdvmcallVcpu, status: bigint): RunResult {
  td.gprs[Gpr.R10] = status;
  return RunResult.CONTINUE;
}

function handleIo(td: TdvmcallVcpu): RunResult {
  const { words, vcpu } = td;
  const size = words[Gpr.R12 * 2];
  const direction = words[Gpr.R13 * 2];
  const high = words[Gpr.R12 * 2 + 1] | words[Gpr.R13 * 2 + 1];
  if ((size !== 1 && size !== 2 && size !== 4) || direction > 1 || high !== 0)
    return answer(td, INVALID_OPERAND);
  const port = words[Gpr.R14 * 2] & 0xffff;
  td.complete = direction === 1 ? completeOut : completeIn;
  td.ioSize = size;
  return vcpu.exitIo(direction === 1, size, port, direction === 1 ? words[Gpr.R15 * 2] : 0);
}
function completeOut({ words }: TdvmcallVcpu): void {
  words[Gpr.R10 * 2] = 0;
  words[Gpr.R10 * 2 + 1] = 0;
}
function completeIn(td: TdvmcallVcpu): void {
  const { words } = td;
  completeOut(td);
  words[Gpr.R11 * 2] = td.vcpu.ioData(td.ioSize);
  words[Gpr.R11 * 2 + 1] = 0;
}

function handleMmio(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  const size = gprs[Gpr.R12];
  const direction = gprs[Gpr.R13];
  const gpa = gprs[Gpr.R14];
  if ((size !== 1n && size !== 2n && size !== 4n && size !== 8n) || direction > 1n)
    return answer(td, INVALID_OPERAND);
  // Emulated devices are shared by nature.
  if ((gpa & td.sharedBit) === 0n || gpa >= td.gpaLimit) return answer(td, INVALID_OPERAND);
  if (((gpa + size - 1n) & td.sharedBit) === 0n) return answer(td, INVALID_OPERAND);
  const write = direction === 1n;
  td.complete = () => {
    gprs[Gpr.R10] = SUCCESS;
    if (!write) gprs[Gpr.R11] = vcpu.mmioData(Number(size));
  };
  return vcpu.exitMmio(Number(gpa & ~td.sharedBit), Number(size), write, write ? gprs[Gpr.R15] : 0n);
}

function handleCpuid(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  const entry = kvmCpuid(
    vcpu.cpuid,
    Number(gprs[Gpr.R12] & 0xffff_ffffn),
    Number(gprs[Gpr.R13] & 0xffff_ffffn),
  );
  gprs[Gpr.R12] = BigInt(entry.eax);
  gprs[Gpr.R13] = BigInt(entry.ebx);
  gprs[Gpr.R14] = BigInt(entry.ecx);
  gprs[Gpr.R15] = BigInt(entry.edx);
  return answer(td, SUCCESS);
}

function handleHlt(td: TdvmcallVcpu): RunResult {
  td.vcpu.halted = true;
  td.haltBlocked = td.gprs[Gpr.R12] !== 0n;
  return answer(td, SUCCESS);
}

function handleRdmsr(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  const value = gprs[Gpr.R12] > 0xffff_ffffn ? null : readGuestMsr(vcpu, Number(gprs[Gpr.R12]));
  if (value === null) return answer(td, INVALID_OPERAND);
  gprs[Gpr.R11] = value;
  return answer(td, SUCCESS);
}

function handleWrmsr(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  const done = gprs[Gpr.R12] <= 0xffff_ffffn && writeGuestMsr(vcpu, Number(gprs[Gpr.R12]), gprs[Gpr.R13]);
  return answer(td, done ? SUCCESS : INVALID_OPERAND);
}

function handleMapGpa(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  const size = gprs[Gpr.R13];
  const gpa = gprs[Gpr.R12];
  const toShared = (gpa & td.sharedBit) !== 0n;
  const start = gpa & ~td.sharedBit;
  // KVM needs user space for this.
  if ((vcpu.vm.hypercallExits & (1n << BigInt(KVM_HC_MAP_GPA_RANGE))) === 0n)
    return answer(td, SUBFUNC_UNSUPPORTED);
  if (gpa >= td.gpaLimit || size === 0n || size >= td.gpaLimit || start + size > td.sharedBit)
    return answer(td, INVALID_OPERAND);
  if (start % BigInt(PAGE_SIZE) !== 0n || size % BigInt(PAGE_SIZE) !== 0n) {
    gprs[Gpr.R11] = gpa;
    return answer(td, ALIGN_ERROR);
  }
  return mapGpaChunk(td, Number(start), Number(start + size), toShared);
}

function mapGpaChunk(td: TdvmcallVcpu, at: number, end: number, toShared: boolean): RunResult {
  const { gprs, vcpu } = td;
  const { view } = vcpu;
  const bytes = Math.min(end - at, MAP_GPA_CHUNK);
  view.setBigUint64(32, BigInt(KVM_HC_MAP_GPA_RANGE), true);
  view.setBigUint64(40, BigInt(at), true);
  view.setBigUint64(48, BigInt(bytes / PAGE_SIZE), true);
  view.setBigUint64(56, toShared ? KVM_MAP_GPA_RANGE_DECRYPTED : KVM_MAP_GPA_RANGE_ENCRYPTED, true);
  view.setBigUint64(88, 0n, true);
  view.setBigUint64(96, KVM_EXIT_HYPERCALL_LONG_MODE, true);
  td.complete = () => {
    const result = view.getBigUint64(88, true);
    const here = BigInt(at) | (toShared ? td.sharedBit : 0n);
    const next = BigInt(at + bytes) | (toShared ? td.sharedBit : 0n);
    if (result !== 0n) {
      gprs[Gpr.R10] = result === BigInt(Errno.EAGAIN) ? RETRY : INVALID_OPERAND;
      gprs[Gpr.R11] = here;
      return RunResult.CONTINUE;
    }
    if (at + bytes >= end) {
      gprs[Gpr.R10] = SUCCESS;
      return RunResult.CONTINUE;
    }
    if (!td.hasInterrupt()) return mapGpaChunk(td, at + bytes, end, toShared);
    // The guest takes its interrupt, and goes on from here.
    gprs[Gpr.R10] = RETRY;
    gprs[Gpr.R11] = next;
    return RunResult.CONTINUE;
  };
  return vcpu.exit(KvmExit.KVM_EXIT_HYPERCALL);
}

/** KVM_EXIT_TDX with these words of data; `done` gets the status that user space sets. */
function exitTdx(td: TdvmcallVcpu, number: number, data: readonly bigint[], done?: () => void): RunResult {
  const { vcpu, gprs } = td;
  const { view } = vcpu;
  view.setBigUint64(32, 0n, true);
  view.setBigUint64(40, BigInt(number), true);
  view.setBigUint64(48, SUBFUNC_UNSUPPORTED, true);
  for (let i = 0; i < 5; i++) view.setBigUint64(56 + 8 * i, data[i] ?? 0n, true);
  td.complete = () => {
    gprs[Gpr.R10] = view.getBigUint64(48, true);
    done?.();
  };
  return vcpu.exit(KvmExit.KVM_EXIT_TDX);
}

function handleGetQuote(td: TdvmcallVcpu): RunResult {
  const { gprs } = td;
  const gpa = gprs[Gpr.R12];
  const size = gprs[Gpr.R13];
  // The buffer is shared memory.
  if ((gpa & td.sharedBit) === 0n || gpa >= td.gpaLimit) return answer(td, INVALID_OPERAND);
  if (gpa % BigInt(PAGE_SIZE) !== 0n || size % BigInt(PAGE_SIZE) !== 0n || size === 0n)
    return answer(td, INVALID_OPERAND);
  return exitTdx(td, TDVMCALL.GetQuote, [gpa & ~td.sharedBit, size]);
}

function handleGetTdVmCallInfo(td: TdvmcallVcpu): RunResult {
  const { gprs, vcpu } = td;
  if (gprs[Gpr.R12] === 0n) {
    for (const register of [Gpr.R11, Gpr.R12, Gpr.R13, Gpr.R14]) gprs[register] = 0n;
    return answer(td, SUCCESS);
  }
  if (gprs[Gpr.R12] !== 1n) return answer(td, INVALID_OPERAND);
  return exitTdx(td, TDVMCALL.GetTdVmCallInfo, [1n], () => {
    if (gprs[Gpr.R10] !== SUCCESS) return;
    [Gpr.R11, Gpr.R12, Gpr.R13, Gpr.R14].forEach((register, i) => {
      gprs[register] = vcpu.view.getBigUint64(64 + 8 * i, true);
    });
  });
}

function handleSetupEventNotify(td: TdvmcallVcpu): RunResult {
  const vector = td.gprs[Gpr.R12];
  if (vector < 32n || vector > 255n) return answer(td, INVALID_OPERAND);
  return exitTdx(td, TDVMCALL.SetupEventNotifyInterrupt, [vector]);
}

function handleReportFatalError(td: TdvmcallVcpu): RunResult {
  const { vcpu, gprs } = td;
  const { view } = vcpu;
  view.setUint32(32, KVM_SYSTEM_EVENT_TDX_FATAL, true);
  view.setUint32(36, 16, true);
  const put = (i: number, value: bigint) => view.setBigUint64(40 + 8 * i, value, true);
  put(0, td.vpEnterRet);
  FATAL_DATA.forEach((register, i) => put(1 + i, gprs[register]));
  put(4, 0n);
  put(5, 0n);
  put(6, gprs[Gpr.RSI]);
  put(7, gprs[Gpr.RDI]);
  for (let register = Gpr.R8 as number; register <= Gpr.R15; register++) put(register, gprs[register]);
  td.complete = () => {
    // The guest does not expect to come back.
    gprs[Gpr.R10] = SUCCESS;
  };
  return vcpu.exit(KvmExit.KVM_EXIT_SYSTEM_EVENT);
}

const HANDLERS: ReadonlyMap<number, (td: TdvmcallVcpu) => RunResult> = new Map([
  [TDVMCALL["Instruction.CPUID"], handleCpuid],
  [TDVMCALL["Instruction.HLT"], handleHlt],
  [TDVMCALL["Instruction.IO"], handleIo],
  [TDVMCALL["Instruction.RDMSR"], handleRdmsr],
  [TDVMCALL["Instruction.WRMSR"], handleWrmsr],
  [TDVMCALL["#VE.RequestMMIO"], handleMmio],
  [TDVMCALL.GetTdVmCallInfo, handleGetTdVmCallInfo],
  [TDVMCALL.MapGPA, handleMapGpa],
  [TDVMCALL.GetQuote, handleGetQuote],
  [TDVMCALL.ReportFatalError, handleReportFatalError],
  [TDVMCALL.SetupEventNotifyInterrupt, handleSetupEventNotify],
]);
