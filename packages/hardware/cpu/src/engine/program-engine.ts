/**
 * The execution engine of TypeScript guest programs (abi's guest-program.ts).
 *
 * A program starts when RIP arrives at its stub (abi's program-image.ts). Each operation it yields is an instruction
 * at RIP with a real length. What a program was doing belongs to the VMCS it runs under, and is valid while RIP is
 * where it stopped (the operation is executed again) or right behind that instruction (the VMM completed it: results
 * are taken from the registers). RIP stays within the first 2 KiB of the program, as a loop's does, and within the
 * stub's page: what lies behind it need not be mapped (behind a reset vector is nothing).
 *
 * A call pushes its return address, whether a program or machine code is called, so that a callee finds its stack
 * arguments in the same place; RSP is the caller's again when the call has returned.
 */
import {
  decodeProgramHeader,
  decodeProgramStub,
  PROGRAM_HEADER_MAX,
  PROGRAM_STUB_SIZE,
  type GprName,
  type Guest,
  type GuestFrame,
  type GuestHandler,
  type GuestOp,
  type GuestProgram,
} from "@swtdx/abi";
import { Gpr, REG, RegisterFile, SEG, SegmentRegister } from "@swtdx/x86";
import {
  Access,
  Step,
  type ExecutionEngine,
  type GuestContext,
  type MemoryInstruction,
} from "../interface/engine.js";
import { OPS, place, snapshot, type OpState } from "./program-ops.js";

/** How far RIP runs from the entry before it goes back to the first byte behind the stub. */
const RIP_SPAN = 2048n;
const PAGE = 4096n;
/** CALL RAX. */
const CALL_LENGTH = 2n;
/** A stub with fewer bytes than this from it to the end of its page has no room for instructions behind it. */
const NEAR_END = 64n;
/** More than the longest instruction. */
const SLACK = 16n;
/** Of UD2. */
const STUB_FIRST = 0x0f;
/** No operation's instruction is longer than 8 bytes. */
const HALF_STUB = BigInt(PROGRAM_STUB_SIZE / 2);
const LOW32 = 0xffffffffn;

/** What a handler gets, and what it leaves for IRET. */
interface HandlerFrame extends GuestFrame {
  regs: Record<GprName, bigint>;
}
/** A program or handler that is running. */
interface Frame {
  kind: "program" | "handler";
  /** Linear address of the entry; handlers run at the interrupted program's. */
  base: bigint;
  /** null: still to be started, at `base`. */
  generator: Guest<bigint | void> | null;
  /** The operation to execute at RIP, null: the generator is to be resumed. */
  op: GuestOp | null;
  state: OpState;
  /** What the generator is resumed with. */
  resume: unknown;
  /** The program is over: what it returned. */
  finished: boolean;
  value: bigint | undefined;
  /** Handlers: the frame, and RIP and RFLAGS that IRET restores. */
  frame: HandlerFrame | null;
  rip: bigint;
  rflags: number;
  /** Callers: RSP before the call. */
  rsp: bigint;
  /** Machine code was called from here: it returns to `rip`. */
  calledMachine: boolean;
}
/** All that runs under one VMCS. */
interface Machine {
  frames: Frame[];
  handlers: ReadonlyMap<number, GuestHandler> | null;
  /** Where it stopped, and where RIP is if the VMM completed the operation (-1: there is none to complete). */
  rip: bigint;
  next: bigint;
}

const newFrame = (kind: Frame["kind"], base: bigint): Frame => ({
  kind,
  base,
  generator: null,
  op: null,
  state: { done: 0, buffer: null },
  resume: undefined,
  finished: false,
  value: undefined,
  frame: null,
  rip: base,
  rflags: 0,
  rsp: 0n,
  calledMachine: false,
});

export class ProgramEngine implements ExecutionEngine {
  readonly name = "program";
  readonly #machines = new Map<number, Machine>();
  readonly #programs: ReadonlyMap<string, GuestProgram>;
  readonly #stub = new Uint8Array(PROGRAM_STUB_SIZE);

  /** @param options.programs programs by the name that their images carry; entries may be added later */
  constructor(options: { programs: ReadonlyMap<string, GuestProgram> }) {
    this.#programs = options.programs;
  }

  memoryInstruction(vmcs: number): MemoryInstruction | null {
    const op = this.#machines.get(vmcs)?.frames.at(-1)?.op;
    if (op?.op !== "load" && op?.op !== "store") return null;
    return { kind: op.op, size: op.size, gpr: Gpr.RAX, length: op.size === 8 || op.size === 2 ? 3 : 2 };
  }

  /** Linear address of the instruction at RIP. */
  #linear(g: GuestContext): bigint {
    const rip = g.regs.get(REG.RIP);
    if (g.mode64) return rip;
    return (g.regs.get(RegisterFile.segment(SegmentRegister.CS) + SEG.BASE) + rip) & LOW32;
  }
  /** Fetches and decodes a stub at a linear address. @returns its distance, null when there is none; or a Step */
  #fetchStub(g: GuestContext, gla: bigint): { step: Step; distance: number | null } {
    // What does not begin as a stub is read no further: other code may end with its page.
    const first = g.load(Number(gla & LOW32), Number((gla >> 32n) & LOW32), 1, Access.FETCH);
    if (first !== Step.DONE || g.low !== STUB_FIRST) return { step: first, distance: null };
    for (let i = 0; i < PROGRAM_STUB_SIZE; i += 8) {
      const at = gla + BigInt(i);
      const step = g.load(Number(at & LOW32), Number((at >> 32n) & LOW32), 8, Access.FETCH);
      if (step !== Step.DONE) return { step, distance: null };
      const view = new DataView(this.#stub.buffer);
      view.setUint32(i, g.low, true);
      view.setUint32(i + 4, g.high, true);
    }
    return { step: Step.DONE, distance: decodeProgramStub(this.#stub) };
  }

  #known(g: GuestContext): Machine | null {
    const machine = this.#machines.get(g.vmcs);
    if (!machine || machine.frames.length === 0) return null;
    const rip = g.regs.get(REG.RIP);
    return rip === machine.rip || rip === machine.next ? machine : null;
  }
  awaits(g: GuestContext): boolean {
    return this.#known(g) !== null;
  }
  claims(g: GuestContext): boolean {
    if (this.awaits(g)) return true;
    const { step, distance } = this.#fetchStub(g, this.#linear(g));
    // A fetch that faults or exits is the same for every engine: it is taken here.
    return step !== Step.DONE || distance !== null;
  }

  run(g: GuestContext, injected: boolean): "exit" | "handover" {
    if (g.exited) return "exit";
    let machine = this.#known(g);
    const rip = g.regs.get(REG.RIP);
    if (!machine) {
      machine = { frames: [newFrame("program", rip)], handlers: null, rip, next: -1n };
      this.#machines.set(g.vmcs, machine);
    } else if (rip === machine.next && rip !== machine.rip) {
      const frame = machine.frames.at(-1)!;
      if (frame.calledMachine) this.#machineReturned(g, frame);
      else if (frame.op) this.#complete(g, frame);
    }
    machine.next = -1n;
    if (injected) {
      const stop = this.#deliver(g, machine, null);
      if (stop) return stop;
    }
    return this.#loop(g, machine);
  }

  #loop(g: GuestContext, machine: Machine): "exit" | "handover" {
    for (;;) {
      if (g.attention) {
        const step = g.poll();
        if (step === Step.EXIT) return this.#stop(g, machine, 0);
        if (step === Step.EVENT) {
          const stop = this.#deliver(g, machine, null);
          if (stop) return stop;
          continue;
        }
      }
      const frame = machine.frames.at(-1)!;
      if (!frame.generator && !frame.finished) {
        const outcome = this.#start(g, machine, frame);
        if (outcome) return outcome;
        continue;
      }
      if (frame.finished) {
        const outcome = this.#finish(g, machine, frame);
        if (outcome) return outcome;
        continue;
      }
      if (!frame.op) {
        const next = frame.generator!.next(frame.resume);
        frame.resume = undefined;
        if (next.done) {
          frame.finished = true;
          frame.value = typeof next.value === "bigint" ? BigInt.asUintN(64, next.value) : undefined;
          continue;
        }
        frame.op = next.value;
        frame.state.done = 0;
        frame.state.buffer = null;
      }
      const stop = this.#execute(g, machine, frame, frame.op);
      if (stop) return stop;
    }
  }

  /** Executes the operation at RIP. */
  #execute(g: GuestContext, machine: Machine, frame: Frame, op: GuestOp): "exit" | "handover" | null {
    // The instruction is fetched like any: NX, EPT execute rights and TLB apply.
    const at = this.#linear(g);
    if (g.translate(Number(at & LOW32), Number(at >> 32n), Access.FETCH) < 0) {
      if (g.step === Step.EXIT) return this.#stop(g, machine, 0);
      if (g.step === Step.EVENT) return this.#deliver(g, machine, op);
    }
    if (op.op === "call" || op.op === "jump") return this.#transfer(g, machine, frame, op);
    const row = OPS[op.op] as unknown as {
      length(op: GuestOp): number;
      execute(g: GuestContext, op: GuestOp, state: OpState): Step;
    };
    const step = row.execute(g, op, frame.state);
    if (step === Step.EXIT) return this.#stop(g, machine, row.length(op));
    if (step === Step.EVENT) return this.#deliver(g, machine, op);
    if (op.op === "lidt") machine.handlers = op.handlers;
    if (op.op === "sti") {
      this.#retire(g, frame, op);
      g.blockBy(1);
      g.attention = true;
      return null;
    }
    this.#retire(g, frame, op);
    return null;
  }
  /** The operation is done: result for the program, RIP behind the instruction. */
  #retire(g: GuestContext, frame: Frame, op: GuestOp): void {
    const row = OPS[op.op] as unknown as {
      length(op: GuestOp): number;
      result(g: GuestContext, op: GuestOp, state: OpState): unknown;
    };
    const length = row.length(op);
    frame.resume = row.result(g, op, frame.state);
    frame.op = null;
    if (length > 0) {
      this.#setRip(g, frame, g.regs.get(REG.RIP) + BigInt(length));
      g.retire(1);
    }
  }
  /** The VMM completed the operation: RIP is behind it already. */
  #complete(g: GuestContext, frame: Frame): void {
    const op = frame.op!;
    const row = OPS[op.op] as unknown as { result(g: GuestContext, op: GuestOp, state: OpState): unknown };
    frame.resume = row.result(g, op, frame.state);
    frame.op = null;
    this.#setRip(g, frame, g.regs.get(REG.RIP));
    g.retire(1);
  }
  /** The next instruction: behind this one, without ever leaving the page of the stub. */
  #setRip(g: GuestContext, frame: Frame, rip: bigint): void {
    const room = PAGE - (frame.base % PAGE);
    if (room < NEAR_END) {
      // Behind the reset vector there is nothing: two instructions take turns in the stub.
      const first = g.regs.get(REG.RIP) - frame.base < HALF_STUB;
      rip = first ? frame.base + HALF_STUB : frame.base;
    } else {
      const span = room - SLACK < RIP_SPAN ? room - SLACK : RIP_SPAN;
      if (rip - frame.base >= span || rip < frame.base) rip = frame.base + BigInt(PROGRAM_STUB_SIZE);
    }
    g.regs.set(REG.RIP, g.mode64 ? rip : rip & LOW32);
  }
  /** A VM exit: where to go on. */
  #stop(g: GuestContext, machine: Machine, length: number): "exit" {
    machine.rip = g.regs.get(REG.RIP);
    machine.next = length > 0 ? machine.rip + BigInt(length) : -1n;
    return "exit";
  }

  // ---- Programs

  /** Starts the program whose stub is at the frame's base. */
  #start(g: GuestContext, machine: Machine, frame: Frame): "exit" | "handover" | null {
    const fail = (step: Step): "exit" | "handover" | null =>
      step === Step.EXIT ? this.#stop(g, machine, 0) : this.#deliver(g, machine, null);
    const entry = this.#linear(g);
    const stub = this.#fetchStub(g, entry);
    if (stub.step !== Step.DONE) return fail(stub.step);
    if (stub.distance === null) return this.#leaveToMachine(g, machine, frame);
    const header = new Uint8Array(PROGRAM_HEADER_MAX);
    // The name's length is known from the fixed part; the rest is read only as far as the name goes.
    const at = entry + BigInt(stub.distance);
    let step = g.loadBytes(at, header.subarray(0, 16));
    if (step !== Step.DONE) return fail(step);
    const nameLength = Math.min(new DataView(header.buffer).getUint32(12, true), PROGRAM_HEADER_MAX - 16);
    step = g.loadBytes(at + 16n, header.subarray(16, 16 + nameLength));
    if (step !== Step.DONE) return fail(step);
    const name = decodeProgramHeader(header.subarray(0, 16 + nameLength))?.name;
    const program = name === undefined ? undefined : this.#programs.get(name);
    // The stub's first bytes are UD2: that is what happens without the program.
    if (!program) return fail(g.raise(6));
    frame.generator = program(snapshot(g.regs));
    this.#setRip(g, frame, frame.base + BigInt(PROGRAM_STUB_SIZE));
    g.retire(1);
    return null;
  }

  #transfer(
    g: GuestContext,
    machine: Machine,
    frame: Frame,
    op: Extract<GuestOp, { op: "call" | "jump" }>,
  ): "exit" | "handover" | null {
    const { regs } = g;
    const callee = newFrame("program", BigInt.asUintN(64, op.gla));
    if (op.op === "jump") {
      place(regs, op.regs);
      machine.frames[machine.frames.length - 1] = callee;
    } else {
      const before = regs.gpr(Gpr.RSP);
      const back = regs.get(REG.RIP) + CALL_LENGTH;
      const size = g.mode64 ? 8 : 4;
      const rsp = BigInt.asUintN(size * 8, (op.regs.rsp ?? before) - BigInt(size));
      const step = g.store(
        Number(rsp & LOW32),
        Number((rsp >> 32n) & LOW32),
        size,
        Number(back & LOW32),
        Number((back >> 32n) & LOW32),
      );
      if (step === Step.EXIT) return this.#stop(g, machine, 0);
      if (step === Step.EVENT) return this.#deliver(g, machine, op);
      place(regs, op.regs);
      regs.setGpr(Gpr.RSP, rsp);
      frame.rip = back;
      frame.rsp = before;
      machine.frames.push(callee);
    }
    regs.set(REG.RIP, callee.base);
    g.retire(1);
    return null;
  }

  /** The call or jump went to machine code: the engine steps back. */
  #leaveToMachine(g: GuestContext, machine: Machine, frame: Frame): "exit" | "handover" | null {
    const caller = machine.frames.at(-2);
    machine.frames.pop();
    if (!caller || frame.kind === "handler") {
      if (machine.frames.length === 0) this.#machines.delete(g.vmcs);
      return "handover";
    }
    caller.calledMachine = true;
    machine.rip = -1n;
    machine.next = caller.rip;
    return "handover";
  }
  #machineReturned(g: GuestContext, frame: Frame): void {
    frame.calledMachine = false;
    g.regs.setGpr(Gpr.RSP, frame.rsp);
    frame.resume = snapshot(g.regs);
    frame.op = null;
    this.#setRip(g, frame, g.regs.get(REG.RIP));
  }

  /** The program or handler returned. */
  #finish(g: GuestContext, machine: Machine, frame: Frame): "exit" | "handover" | null {
    if (frame.kind === "handler") {
      this.#iret(g, machine, frame);
      return null;
    }
    // RET: to the program that called it, to machine code, or to whatever stands on the stack.
    const { regs } = g;
    const size = g.mode64 ? 8 : 4;
    const rsp = regs.gpr(Gpr.RSP);
    const step = g.load(Number(rsp & LOW32), Number((rsp >> 32n) & LOW32), size, Access.READ);
    if (step === Step.EXIT) return this.#stop(g, machine, 0);
    if (step === Step.EVENT) return this.#deliver(g, machine, null);
    const back = size === 8 ? (BigInt(g.high) << 32n) | BigInt(g.low) : BigInt(g.low);
    if (frame.value !== undefined) regs.setGpr(Gpr.RAX, frame.value);
    regs.setGpr(Gpr.RSP, BigInt.asUintN(64, rsp + BigInt(size)));
    regs.set(REG.RIP, back);
    g.retire(1);
    const caller = machine.frames.at(-2);
    if (caller?.op?.op === "call" && back === caller.rip) {
      regs.setGpr(Gpr.RSP, caller.rsp);
      machine.frames.pop();
      caller.resume = snapshot(regs);
      caller.op = null;
      this.#setRip(g, caller, back);
      return null;
    }
    this.#machines.delete(g.vmcs);
    return "handover";
  }

  // ---- Events

  /**
   * Delivers `g.event` to the program's handler.
   * @param op the operation that faulted, null between operations (then the pending one, for an injected exception)
   */
  #deliver(g: GuestContext, machine: Machine, op: GuestOp | null): "exit" | "handover" | null {
    const { event, regs } = g;
    const interrupted = machine.frames.at(-1)!;
    if (event.type === 3) op ??= interrupted.op;
    let handler = machine.handlers?.get(event.vector);
    if (!handler) {
      if (!machine.handlers && regs.get32(REG.IDTR_LIMIT) > 0) return this.#deliverToMachine(g, machine);
      handler = machine.handlers?.get(8);
      if (!handler || event.vector === 8) {
        g.setDelivering(true);
        g.tripleFault();
        return this.#stop(g, machine, 0);
      }
      event.vector = 8;
      event.hasErrorCode = true;
      event.errorCode = 0;
    }
    if (event.type >= 4) regs.set(REG.RIP, regs.get(REG.RIP) + BigInt(event.length));
    regs.set32(REG.ACTIVITY, 0);
    const frame = newFrame("handler", interrupted.base);
    frame.rip = regs.get(REG.RIP);
    frame.rflags = regs.get32(REG.RFLAGS);
    frame.frame = {
      vector: event.vector,
      errorCode: event.hasErrorCode ? event.errorCode : null,
      cr2: regs.get(REG.CR2),
      op,
      regs: snapshot(regs),
      instructionLength: op ? (OPS[op.op] as unknown as { length(op: GuestOp): number }).length(op) : 0,
    };
    if (event.type === 2) regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) | 8);
    // Interrupt gates: IF is clear in the handler.
    regs.set32(REG.RFLAGS, frame.rflags & ~0x300);
    frame.generator = handler(frame.frame);
    machine.frames.push(frame);
    return null;
  }
  /** The program installed no handlers: the IDT in memory gets the event. IRET comes back to RIP. */
  #deliverToMachine(g: GuestContext, machine: Machine): "exit" | "handover" {
    machine.rip = g.regs.get(REG.RIP);
    machine.next = -1n;
    return g.deliver() === Step.EXIT ? "exit" : "handover";
  }
  #iret(g: GuestContext, machine: Machine, frame: Frame): void {
    machine.frames.pop();
    const { regs } = g;
    const saved = frame.frame!;
    place(regs, saved.regs);
    regs.set(REG.RIP, frame.rip);
    regs.set32(REG.RFLAGS, frame.rflags);
    // IRET ends blocking by NMI.
    regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) & ~8);
    g.retire(1);
    g.attention = true;
    const interrupted = machine.frames.at(-1)!;
    if (saved.op && saved.result !== undefined && interrupted.op === saved.op) {
      interrupted.resume = saved.result;
      interrupted.op = null;
      this.#setRip(g, interrupted, frame.rip + BigInt(saved.instructionLength));
    }
  }
}
