/**
 * The processor as the machine-code engine sees it: translations, intercepted instructions, exceptions and interrupts
 * of a guest, put as @swtdx/x86's X86Environment. One object per logical processor.
 */
import { decodeProgramStub, PROGRAM_STUB_SIZE } from "@swtdx/abi";
import {
  Access as CoreAccess,
  ControlSource,
  Gpr,
  Hook,
  Poll,
  REG,
  Translation,
  type PolicyInstruction,
  type X86Core,
  type X86Environment,
} from "@swtdx/x86";
import { Access, Step, type GuestContext } from "../interface/engine.js";
import { ExitReason } from "../vmx/controls.js";

const LOW32 = 0xffffffffn;
const UD = 6;
const GP = 13;
const DF = 8;
const CR4_PKE = 0x400000;
/** Instructions that are VMX's or leave by themselves, by the exit reason. */
const VMX_INSTRUCTIONS: Partial<Record<PolicyInstruction, number>> = {
  vmlaunch: ExitReason.VMLAUNCH,
  vmresume: ExitReason.VMRESUME,
  vmxoff: ExitReason.VMXOFF,
  invept: ExitReason.INVEPT,
  invvpid: ExitReason.INVVPID,
  getsec: ExitReason.GETSEC,
};
/** Bytes made ready in front of a store to a page without a frame, which may be the second half of a change in place. */
const PREFETCH = 64;

/** A page without a frame: what `deviceWrite` needs to find it again. */
interface SlowPage {
  low: number;
  high: number;
  user: boolean;
  implicit: boolean;
}
const PAGE = 4096;

export class GuestEnvironment implements X86Environment {
  core: X86Core | null = null;
  /** A TypeScript program stands at RIP. */
  handover = false;
  /** Vector of the exception that the processor has already been asked about; -1 none. */
  #screened = -1;
  #seen = 0;
  #slot = 0;
  readonly #slow: SlowPage[] = Array.from({ length: 4 }, () => ({
    low: 0,
    high: 0,
    user: false,
    implicit: false,
  }));
  readonly #stub = new Uint8Array(PROGRAM_STUB_SIZE);

  /** @param elsewhere whether another engine goes on at RIP */
  constructor(
    private readonly g: GuestContext,
    private readonly elsewhere: () => boolean,
  ) {}

  /** Execution begins with the instruction count of the register file. */
  begin(core: X86Core): void {
    this.#seen = core.instructions;
    this.#screened = -1;
    this.handover = false;
  }
  /** Lets the processor's clock catch up with what has been executed. */
  sync(core: X86Core): void {
    const now = core.instructions;
    if (now !== this.#seen) {
      this.g.elapse(now - this.#seen);
      this.#seen = now;
    }
  }

  // ---- Memory

  translate(
    core: X86Core,
    low: number,
    high: number,
    access: number,
    user: boolean,
    implicit: boolean,
  ): number {
    const { g } = this;
    const kind =
      (access & CoreAccess.EXECUTE) !== 0
        ? Access.FETCH
        : (access & CoreAccess.WRITE) !== 0
          ? Access.WRITE
          : Access.READ;
    const vectoring = core.vectoring >= 0;
    if (vectoring) {
      const { event } = core;
      g.vectored(event.vector, event.type, event.errorCode, event.length);
    }
    const step = g.translatePage(low, high, kind, user, implicit);
    if (vectoring) g.setDelivering(false);
    if (step === Step.EXIT) return Translation.STOP;
    if (step === Step.EVENT) return this.#fault(core, Translation.FAULT);
    const { fill } = core;
    if (g.pageFrame >= 0) {
      fill.frame = g.pageFrame;
      fill.readable = g.pageReadable;
      fill.writable = g.pageWritable;
      return Translation.OK;
    }
    // What is read is looked at now: a machine check must come in place of the access.
    const offset = low & (PAGE - 1);
    const ahead = core.u8.subarray(core.scratch, core.scratch + Math.min(PREFETCH, PAGE - offset));
    const probed = g.pageRead(offset, kind === Access.WRITE ? ahead : ahead.subarray(0, 1));
    if (probed === Step.EXIT) return Translation.STOP;
    if (probed === Step.EVENT) return this.#fault(core, Translation.FAULT);
    const slot = (this.#slot = (this.#slot + 1) & 3);
    const page = this.#slow[slot];
    page.low = low & ~(PAGE - 1);
    page.high = high;
    page.user = user;
    page.implicit = implicit;
    fill.physical = slot * PAGE;
    return Translation.DEVICE;
  }
  #find(slot: number, access: number): number {
    const page = this.#slow[slot];
    this.g.translatePage(page.low, page.high, access, page.user, page.implicit);
    return this.g.pageFrame;
  }
  deviceRead(core: X86Core, physical: number, size: number, at: number): void {
    const target = core.u8.subarray(core.scratch + at, core.scratch + at + size);
    this.g.pageRead(physical % PAGE, target);
  }
  deviceWrite(core: X86Core, physical: number, size: number, at: number): void {
    const source = core.u8.subarray(core.scratch + at, core.scratch + at + size);
    const offset = physical % PAGE;
    // The first part of a store may have given the page a frame.
    const frame = this.#find(Math.floor(physical / PAGE), Access.WRITE);
    if (frame >= 0) core.u8.set(source, frame + offset);
    else this.g.pageWrite(offset, source);
  }

  // ---- Outcomes

  /** An event is pending at the processor: it becomes the core's. */
  #fault(core: X86Core, outcome: number): number {
    const { event } = this.g;
    this.#screened = event.vector;
    core.raise(event.vector, event.hasErrorCode ? event.errorCode : -1);
    return outcome;
  }
  #hook(core: X86Core, step: Step): number {
    if (step === Step.EXIT) return Hook.STOP;
    if (step === Step.EVENT) return this.#fault(core, Hook.FAULT);
    if (this.g.attention) core.requestAttention();
    return Hook.DONE;
  }
  /** Before the processor is asked: its clock and privilege are current. */
  #ask(core: X86Core): GuestContext {
    this.sync(core);
    this.g.setPrivilege(core.cpl, core.code64);
    return this.g;
  }

  // ---- Instructions

  instruction(core: X86Core, name: PolicyInstruction): number {
    const g = this.#ask(core);
    return this.#hook(core, this.#instruction(core, g, name, core.instructionLength));
  }
  #instruction(core: X86Core, g: GuestContext, name: PolicyInstruction, length: number): Step {
    const { regs } = g;
    switch (name) {
      case "cpuid":
      case "rdmsr":
      case "wrmsr":
      case "rdpmc":
      case "rdtsc":
      case "rdtscp":
      case "hlt":
      case "pause":
      case "mwait":
      case "invd":
      case "xsetbv":
      case "vmcall":
      case "tdcall":
      case "seamcall":
        return g[name](length);
      case "wbinvd":
      case "wbnoinvd":
        return g.wbinvd(length);
      case "rdrand":
      case "rdseed": {
        regs.set32(REG.RFLAGS, core.getFlags());
        const step = g[name](core.operandRegister, core.operandSize / 8, length);
        core.setFlags(regs.get32(REG.RFLAGS));
        core.value = regs.gpr(core.operandRegister);
        return step;
      }
      case "umwait":
      case "tpause": {
        regs.set32(REG.RFLAGS, core.getFlags());
        const step = g[name](core.operandRegister, length);
        core.setFlags(regs.get32(REG.RFLAGS));
        return step;
      }
      case "umonitor":
        return g.umonitor(regs.gpr(core.operandRegister));
      case "rdpid":
        core.value = regs.get(REG.TSC_AUX);
        return Step.DONE;
      case "monitor":
        return g.monitor(regs.gpr(Gpr.RAX), length);
      case "invlpg":
        return g.invlpg(core.operand, length);
      case "invpcid":
        return this.#invpcid(core, g, length);
      case "rdpkru":
        if (!this.#pkru(g)) return g.raise(UD);
        if ((regs.gpr(Gpr.RCX) & LOW32) !== 0n) return g.raise(GP, 0);
        regs.setGpr(Gpr.RAX, BigInt(regs.get32(REG.PKRU)));
        regs.setGpr(Gpr.RDX, 0n);
        return Step.DONE;
      case "wrpkru":
        if (!this.#pkru(g)) return g.raise(UD);
        if (((regs.gpr(Gpr.RCX) | regs.gpr(Gpr.RDX)) & LOW32) !== 0n) return g.raise(GP, 0);
        regs.set32(REG.PKRU, Number(regs.gpr(Gpr.RAX) & LOW32));
        core.flushTlb();
        return Step.DONE;
      case "clflush": {
        const low = Number(core.operand & LOW32);
        const high = Number(core.operand >> 32n);
        return g.translatePage(low, high, Access.READ, core.cpl === 3, false);
      }
      default: {
        const reason = VMX_INSTRUCTIONS[name];
        return reason === undefined ? g.raise(UD) : g.vmxInstruction(reason, length);
      }
    }
  }
  #pkru(g: GuestContext): boolean {
    return (g.regs.get32(REG.CR4) & CR4_PKE) !== 0;
  }
  /** The descriptor: PCID and 52 bits that must be zero, then the linear address. */
  #invpcid(core: X86Core, g: GuestContext, length: number): Step {
    const type = g.regs.gpr(core.operandRegister);
    const pcid = core.value > 0xfffn ? 0x1000 : Number(core.value);
    return g.invpcid(type > 3n ? 4 : Number(type), pcid, core.operand, length);
  }

  extendedState(core: X86Core, name: "xsaves" | "xrstors"): number {
    const g = this.#ask(core);
    const reason = name === "xsaves" ? ExitReason.XSAVES : ExitReason.XRSTORS;
    return this.#hook(core, g.extendedState(reason, core.instructionLength));
  }
  stateMsr(_core: X86Core, index: number): bigint {
    return this.g.stateMsr(index);
  }
  setStateMsr(_core: X86Core, index: number, value: bigint): boolean {
    return this.g.setStateMsr(index, value);
  }
  readControl(core: X86Core, register: number): number {
    const g = this.#ask(core);
    const step = g.movFromCr(register, core.operandRegister, core.instructionLength);
    core.value = g.regs.gpr(core.operandRegister);
    return this.#hook(core, step);
  }
  writeControl(core: X86Core, register: number): number {
    const g = this.#ask(core);
    const length = core.instructionLength;
    const source = core.operandRegister;
    let step: Step;
    if (source === ControlSource.CLTS) step = g.clts(length);
    else if (source === ControlSource.LMSW) step = g.lmsw(Number(core.value & 0xffffn), length);
    else step = g.movToCr(register, source, length);
    return this.#hook(core, step);
  }
  accessDebug(core: X86Core, register: number, write: boolean): number {
    const g = this.#ask(core);
    return this.#hook(core, g.debugAccess(register, write, core.operandRegister, core.instructionLength));
  }
  portIn(core: X86Core, port: number, size: number, string: boolean): number {
    const g = this.#ask(core);
    // The engine has looked at IOPL and the permission bitmap.
    g.setPrivilege(0, core.code64);
    const step = g.in(port, size, core.instructionLength, core.portImmediate);
    if (step === Step.EXIT && string) this.#stringPort(core);
    core.value = BigInt(g.low >>> 0);
    return this.#hook(core, step);
  }
  portOut(core: X86Core, port: number, size: number, string: boolean): number {
    const g = this.#ask(core);
    g.setPrivilege(0, core.code64);
    const value = Number(core.value & LOW32);
    const step = g.out(port, size, value, core.instructionLength, core.portImmediate);
    if (step === Step.EXIT && string) this.#stringPort(core);
    return this.#hook(core, step);
  }
  #stringPort(core: X86Core): void {
    this.g.stringPort(core.portRepeated, core.portSegment, core.portAddressSize, core.operand);
  }
  descriptorTable(): number {
    return Hook.DONE;
  }

  // ---- Events

  intercept(core: X86Core): boolean {
    const { g } = this;
    const { vector, type, errorCode, length } = core.event;
    const screened = this.#screened === vector;
    this.#screened = -1;
    if (screened) return false;
    if (vector === UD && type === 3 && this.#atStub(core)) {
      this.handover = true;
      return true;
    }
    this.#ask(core);
    // A double fault exits without saying what was being delivered.
    if (core.vectoring >= 0 && vector !== DF)
      g.vectored(core.vectoring, core.vectoringType, core.vectoringErrorCode, 0);
    const exits = g.intercepts(vector, type, errorCode, length);
    g.setDelivering(false);
    return exits;
  }
  /** A stub's first instruction is UD2. */
  #atStub(core: X86Core): boolean {
    const { g } = this;
    g.setPrivilege(core.cpl, core.code64);
    const base = core.code64 ? 0n : g.regs.get(REG.SEGMENT + 24);
    let at = base + g.regs.get(REG.RIP);
    const view = new DataView(this.#stub.buffer);
    for (let i = 0; i < PROGRAM_STUB_SIZE; i += 4, at += 4n) {
      const low = Number(at & LOW32);
      const high = Number((at >> 32n) & LOW32);
      // Bytes that cannot be fetched are no stub; nothing of the attempt remains.
      if (((low & (PAGE - 1)) === 0 || i === 0) && g.translate(low, high, Access.FETCH) < 0) return false;
      if (g.load(low, high, 4, Access.FETCH) !== Step.DONE) return false;
      view.setUint32(i, g.low, true);
    }
    return decodeProgramStub(this.#stub) !== null;
  }
  arrive(): boolean {
    if (!this.elsewhere()) return false;
    this.handover = true;
    return true;
  }
  #unshadowed(): boolean {
    return (this.g.regs.get32(REG.INTERRUPTIBILITY) & 3) === 0;
  }
  poll(core: X86Core, open: boolean): number {
    const { g } = this;
    this.sync(core);
    if (g.exited) return Poll.STOP;
    const { attention } = g;
    if (!attention && !(open && g.windowAwaited) && !(g.nmiAwaited && this.#unshadowed())) return Poll.NONE;
    g.setPrivilege(core.cpl, core.code64);
    const step = g.poll();
    if (step === Step.EXIT) return Poll.STOP;
    // What made attention necessary may have moved the next timer: the budget is another one.
    if (step === Step.DONE) return attention ? Poll.STOP : Poll.NONE;
    return g.event.type === 2 ? Poll.NMI : g.event.vector;
  }
  interruptReturn(core: X86Core): void {
    const { regs } = this.g;
    regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) & ~8);
    this.g.attention = true;
    core.requestAttention();
  }
  shutdown(core: X86Core): void {
    this.sync(core);
    this.g.tripleFault();
  }
}
