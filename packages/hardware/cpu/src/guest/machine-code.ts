/**
 * What an engine of machine code asks of the guest besides the instructions: time, privilege, exceptions that it
 * delivers itself. Intel SDM vol. 3C sections 26.2 (exception bitmap), 28.2.1 to 28.2.4 (exit information).
 */
import { REG, Vector } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import { ExitReason, PROC } from "../vmx/controls.js";
import { VMCS } from "../vmx/fields.js";
import { GuestInterrupts } from "./interrupts.js";

/** Bits of DR6 that the exit qualification of a debug exception has: B0 to B3, BD, BS. */
const DEBUG_CONDITIONS = 0x600f;
/** Of an I/O exit's qualification. */
const IO_STRING = 0x10;
const IO_REP = 0x20;

export abstract class GuestMachineCode extends GuestInterrupts {
  elapse(count: number): void {
    const { host } = this;
    host.ticks += count;
    if (host.ticks >= this.nextTick) this.attention = true;
    // The engine keeps shadows of STI and MOV SS itself; another one may take over behind such an instruction.
    this.armShadow();
  }
  setPrivilege(cpl: number, mode64: boolean): void {
    this.cpl = cpl;
    this.mode64 = mode64;
  }
  vectored(vector: number, type: number, errorCode: number, length: number): void {
    this.setEvent(vector, type, errorCode, length);
    this.delivering = true;
  }
  intercepts(vector: number, type: number, errorCode: number, length: number): boolean {
    if ((this.exceptionBitmap & (1 << vector)) === 0) return false;
    const conditions = vector === Vector.DB ? this.regs.get32(REG.DR6) & DEBUG_CONDITIONS : 0;
    this.exitByEvent(ExitReason.EXCEPTION_OR_NMI, vector, type, errorCode, conditions, 0, length);
    return true;
  }
  stringPort(repeated: boolean, segment: number, addressSize: number, gla: bigint): void {
    const { v } = this;
    v.set(VMCS.EXIT_QUALIFICATION, v.lo(VMCS.EXIT_QUALIFICATION) | IO_STRING | (repeated ? IO_REP : 0));
    v.set(VMCS.VMX_INSTRUCTION_INFO, (addressSize << 7) | (segment << 15));
    v.put(VMCS.GUEST_LINEAR_ADDRESS, gla);
  }
  debugAccess(dr: number, write: boolean, gpr: number, length: number): Step {
    if ((this.proc & PROC.MOV_DR_EXITING) === 0) return Step.DONE;
    return this.exit(ExitReason.DR_ACCESS, dr | (write ? 0 : 0x10) | (gpr << 8), length);
  }
}
