/**
 * The kernel's #VE handler. What the TDX module does not do for the guest is asked of the VMM; private memory
 * never gets here, or the host is at fault.
 * Follows arch/x86/coco/tdx/tdx.c (Linux): virt_exception_kernel().
 */
import { type Guest, type GuestFrame, TDVMCALL, TDVMCALL_DIRECTION, tdcall } from "@swtdx/abi";
import { tdvmcall, tdxPanic } from "./tdcall.js";

/** Vector of #VE. */
export const VE_VECTOR = 20;
/** VM exit reason of an EPT violation. */
const EPT_VIOLATION = 48;
/** Of the #VE leaves of CPUID only the hypervisor's are the VMM's to answer. */
const isHypervisorLeaf = (leaf: number) => leaf >= 0x4000_0000 && leaf <= 0x4fff_ffff;

const low = (value: bigint) => Number(value & 0xffff_ffffn);
const mask = (size: number) => (1n << BigInt(8 * size)) - 1n;

/** What is counted for /proc/interrupts and the tests: #VEs by exit reason. */
export type VeStatistics = Map<number, number>;

export const createVeHandler = (sharedBit: bigint, statistics: VeStatistics) =>
  function* veHandler(frame: GuestFrame): Guest<void> {
    const info = yield* tdcall("TDG.VP.VEINFO.GET");
    if (info.rax !== 0n) return yield* tdxPanic("#VE without information");
    const reason = low(info.rcx);
    statistics.set(reason, (statistics.get(reason) ?? 0) + 1);
    const { op } = frame;
    switch (reason) {
      case TDVMCALL["Instruction.CPUID"]:
        if (op?.op !== "cpuid") break;
        frame.result = yield* cpuid(op.leaf, op.subleaf);
        return;
      case TDVMCALL["Instruction.HLT"]:
        yield* tdvmcall("Instruction.HLT", { r12: 0n });
        frame.result = null;
        return;
      case TDVMCALL["Instruction.RDMSR"]:
        if (op?.op !== "rdmsr") break;
        frame.result = (yield* tdvmcall("Instruction.RDMSR", { r12: BigInt(op.index) })).r11;
        return;
      case TDVMCALL["Instruction.WRMSR"]:
        if (op?.op !== "wrmsr") break;
        yield* tdvmcall("Instruction.WRMSR", { r12: BigInt(op.index), r13: op.value });
        frame.result = null;
        return;
      case TDVMCALL["Instruction.IO"]:
        if (op?.op === "in") frame.result = yield* portRead(op.port, op.size);
        else if (op?.op === "out") frame.result = yield* portWrite(op.port, op.size, op.value);
        else break;
        return;
      case EPT_VIOLATION:
        if ((info.r9 & sharedBit) === 0n)
          return yield* tdxPanic("Unexpected EPT-violation on private memory.");
        if (op?.op === "load") frame.result = yield* mmio(info.r9, op.size, TDVMCALL_DIRECTION.READ, 0n);
        else if (op?.op === "store") {
          yield* mmio(info.r9, op.size, TDVMCALL_DIRECTION.WRITE, op.value);
          frame.result = null;
        } else break;
        return;
      default:
    }
    yield* tdxPanic(`Unexpected #VE: ${reason}`);
  };

function* cpuid(
  leaf: number,
  subleaf: number,
): Guest<{ eax: number; ebx: number; ecx: number; edx: number }> {
  if (!isHypervisorLeaf(leaf >>> 0)) return { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const regs = { r12: BigInt(leaf >>> 0), r13: BigInt(subleaf >>> 0) };
  const { r12, r13, r14, r15 } = yield* tdvmcall("Instruction.CPUID", regs);
  return { eax: low(r12), ebx: low(r13), ecx: low(r14), edx: low(r15) };
}

function* portRead(port: number, size: number): Guest<number> {
  const regs = { r12: BigInt(size), r13: TDVMCALL_DIRECTION.READ, r14: BigInt(port) };
  const { r10, r11 } = yield* tdvmcall("Instruction.IO", regs);
  // A port that the VMM does not answer reads as an empty bus.
  return Number((r10 === 0n ? r11 : ~0n) & mask(size));
}

function* portWrite(port: number, size: number, value: number): Guest<null> {
  const regs = {
    r12: BigInt(size),
    r13: TDVMCALL_DIRECTION.WRITE,
    r14: BigInt(port),
    r15: BigInt(value >>> 0),
  };
  yield* tdvmcall("Instruction.IO", regs);
  return null;
}

function* mmio(gpa: bigint, size: number, direction: bigint, value: bigint): Guest<bigint> {
  const regs = { r12: BigInt(size), r13: direction, r14: gpa, r15: value };
  const { r10, r11 } = yield* tdvmcall("#VE.RequestMMIO", regs);
  return (r10 === 0n ? r11 : ~0n) & mask(size);
}
