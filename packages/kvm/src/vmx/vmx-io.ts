/**
 * Port I/O of an ordinary VM, single and string. Source: Linux arch/x86/kvm/vmx/vmx.c (handle_io), x86.c (kvm_fast_pio,
 * emulator_pio_in_out); Intel SDM vol. 3C, table 28-5 (exit qualification).
 */
import { KVM_RUN_PIO_OFFSET, PAGE_SIZE } from "@swtdx/abi";
import { Gpr, VMCS } from "@swtdx/cpu";
import { RunResult } from "../x86/ops.js";
import type { VmxVcpu } from "./vmx.js";

const PF = 14;
const RFLAGS_DF = 1n << 10n;
const LOW32 = 0xffff_ffffn;

export function handleIo(vcpu: VmxVcpu): RunResult {
  const qualification = vcpu.vmcs.low(VMCS.EXIT_QUALIFICATION);
  const size = (qualification & 7) + 1;
  const isIn = (qualification & 8) !== 0;
  const port = qualification >>> 16;
  if ((qualification & 16) !== 0)
    return stringIo(vcpu, { size, isIn, port, rep: (qualification & 32) !== 0 });
  const { words } = vcpu.registers;
  const mask = size === 4 ? 0xffff_ffff : (1 << (8 * size)) - 1;
  if (!isIn) {
    vcpu.skip();
    return vcpu.vcpu.exitIo(true, size, port, (words[Gpr.RAX * 2] & mask) >>> 0);
  }
  vcpu.complete = () => {
    // 32-bit results clear the upper half.
    words[Gpr.RAX * 2] = (words[Gpr.RAX * 2] & ~mask) | vcpu.vcpu.ioData(size);
    if (size === 4) words[Gpr.RAX * 2 + 1] = 0;
    vcpu.skip();
  };
  return vcpu.vcpu.exitIo(false, size, port, 0);
}

interface StringIo {
  readonly size: number;
  readonly isIn: boolean;
  readonly port: number;
  readonly rep: boolean;
}

/** INS and OUTS: as many items at once as a page of memory and the page behind kvm_run hold. */
function stringIo(vcpu: VmxVcpu, io: StringIo): RunResult {
  const { vmcs } = vcpu;
  const { size, isIn, port, rep } = io;
  // Address size: bits 9:7 of the instruction information.
  const addressSize = Number((vmcs.get("VMX_INSTRUCTION_INFO") >> 7n) & 7n);
  const mask = addressSize === 0 ? 0xffffn : addressSize === 1 ? LOW32 : 0xffff_ffff_ffff_ffffn;
  const left = rep ? vcpu.gpr(Gpr.RCX) & mask : 1n;
  if (left === 0n) {
    vcpu.skip();
    return RunResult.CONTINUE;
  }
  const gla = vmcs.get("GUEST_LINEAR_ADDRESS");
  const down = (vmcs.get("GUEST_RFLAGS") & RFLAGS_DF) !== 0n;
  const room = Math.max(1, Math.floor((PAGE_SIZE - Number(gla % BigInt(PAGE_SIZE))) / size));
  const count = down ? 1 : Number(left < BigInt(room) ? left : BigInt(room));
  const buffer = vcpu.vcpu.run.subarray(KVM_RUN_PIO_OFFSET, KVM_RUN_PIO_OFFSET + count * size);
  const advance = (): void => {
    const pointer = isIn ? Gpr.RDI : Gpr.RSI;
    const step = BigInt(down ? -size : count * size);
    setMasked(vcpu, pointer, vcpu.gpr(pointer) + step, mask);
    if (rep) setMasked(vcpu, Gpr.RCX, left - BigInt(count), mask);
    // What is left is done when the instruction is executed again.
    if (left === BigInt(count)) vcpu.skip();
  };
  if (isIn) {
    // Where the data go has to be there before the device gives them up.
    if (vcpu.translate(gla) === null) return pageFault(vcpu, gla, true);
    vcpu.complete = () => {
      vcpu.accessLinear(gla, buffer, true);
      advance();
    };
    return vcpu.vcpu.exitIo(false, size, port, 0, count);
  }
  const data = new Uint8Array(buffer.length);
  if (vcpu.accessLinear(gla, data, false) < data.length) return pageFault(vcpu, gla, false);
  advance();
  const result = vcpu.vcpu.exitIo(true, size, port, 0, count);
  buffer.set(data);
  return result;
}

function setMasked(vcpu: VmxVcpu, gpr: number, value: bigint, mask: bigint): void {
  // 32-bit results clear the upper half, 16-bit ones leave it.
  const keep = mask === 0xffffn ? vcpu.gpr(gpr) & ~mask : 0n;
  vcpu.setGpr(gpr, keep | (value & mask));
}

function pageFault(vcpu: VmxVcpu, gla: bigint, write: boolean): RunResult {
  vcpu.setCr2(gla);
  vcpu.raise(PF, (write ? 2 : 0) | (vcpu.cpl === 3 ? 4 : 0));
  return RunResult.CONTINUE;
}
