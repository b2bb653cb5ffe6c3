/** A vCPU of a simulated TD: runs guest programs, one operation at a time, until user space has to do something. */
import {
  decodeProgramHeader,
  decodeProgramStub,
  Errno,
  GPR_NAMES,
  type GprName,
  type Guest,
  type GuestFrame,
  type GuestHandler,
  type GuestOp,
  type GuestProgram,
  KVM_RUN_PIO_OFFSET,
  KVM_SYSTEM_EVENT_TDX_FATAL,
  PAGE_SIZE,
  PROGRAM_STUB_SIZE,
  TD_METADATA,
  TDCALL_LEAF,
  TDREPORT_STRUCT,
  TDVMCALL,
  TDX_STATUS,
} from "@swtdx/abi";
import { type Step, step } from "../../../qemu/test/support/fake-kvm.js";
import { GuestFault, type SimulatedTd, SimulationError, type VeInformation } from "./simulated-td.js";

type Registers = Record<GprName, bigint>;
interface Frame {
  generator: Guest<bigint | void>;
  op: GuestOp | null;
  resume: unknown;
  /** A handler's frame. */
  interrupt: (GuestFrame & { regs: Registers }) | null;
  /** RSP of the caller, for a called program. */
  callerRsp: bigint | null;
}
/** What an operation comes to: a result, or work for user space after which there is one. */
type Effect = { result: unknown } | { step: Step; result: () => unknown };

const VE = 20;
const RETURN_ADDRESS = 0x5a5a_5a5an;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const low32 = (value: bigint) => Number(value & 0xffff_ffffn);
const sizeMask = (size: number) => (1n << BigInt(8 * size)) - 1n;

export class SimulatedVcpu {
  readonly #frames: Frame[] = [];
  #handlers: ReadonlyMap<number, GuestHandler> | null = null;
  readonly #cr = new Map<number, bigint>([
    [0, 0x21n],
    [2, 0n],
    [3, 0n],
    [4, 0x40n],
    [8, 0n],
  ]);
  #mode64 = false;
  readonly #tlb = new Map<number, { base: number; shared: boolean }>();
  #ve: VeInformation | null = null;
  #pending: { frame: Frame; step: Step; result: () => unknown } | null = null;
  readonly regs = Object.fromEntries(GPR_NAMES.map((name) => [name, 0n])) as Registers;
  /** #VEs by exit reason. */
  readonly ves = new Map<number, number>();

  constructor(
    readonly td: SimulatedTd,
    readonly index: number,
    readonly programs: ReadonlyMap<string, GuestProgram>,
    hob: bigint,
  ) {
    Object.assign(this.regs, { rbx: BigInt(td.gpaw), rcx: hob, r8: hob, rsi: BigInt(index) });
  }

  /** KVM_RUN. @returns 0 with an exit in kvm_run, or -errno */
  run(view: DataView, area: Uint8Array, budget = 20_000): number {
    if (this.#pending) {
      const { frame, step: done, result } = this.#pending;
      done.after?.(view, area);
      frame.resume = result();
      frame.op = null;
      this.#pending = null;
    }
    if (this.#frames.length === 0) this.#frames.push(this.#start(0xffff_fff0n));
    for (let i = 0; i < budget; i++) {
      this.td.clock += 1000n;
      const frame = this.#frames.at(-1)!;
      if (!frame.op) {
        const next = frame.generator.next(frame.resume);
        frame.resume = undefined;
        if (next.done) {
          this.#return(frame, typeof next.value === "bigint" ? next.value : null);
          continue;
        }
        frame.op = next.value;
      }
      try {
        const effect = this.#execute(frame, frame.op);
        if (!effect) continue;
        if ("step" in effect) {
          this.#pending = { frame, ...effect };
          return effect.step.prepare(view, area);
        }
        frame.resume = effect.result;
        frame.op = null;
      } catch (fault) {
        if (!(fault instanceof GuestFault)) throw fault;
        this.#deliver(frame, fault);
      }
    }
    return -Errno.EINTR;
  }

  // ---- Programs

  #start(address: bigint): Frame {
    const stub = decodeProgramStub(this.#read(address, PROGRAM_STUB_SIZE));
    if (stub === null) throw new SimulationError(`no program at 0x${address.toString(16)}`);
    const at = address + BigInt(stub);
    const length = new DataView(this.#read(at, 16).buffer).getUint32(12, true);
    const name = decodeProgramHeader(this.#read(at, 16 + length))?.name ?? "?";
    const program = this.programs.get(name);
    if (!program) throw new SimulationError(`program ${name} is not registered`);
    return {
      generator: program({ ...this.regs }),
      op: null,
      resume: undefined,
      interrupt: null,
      callerRsp: null,
    };
  }

  #return(frame: Frame, value: bigint | null): void {
    this.#frames.pop();
    const below = this.#frames.at(-1);
    if (!below) throw new SimulationError("the last program returned");
    if (frame.interrupt) {
      Object.assign(this.regs, frame.interrupt.regs);
      if (frame.interrupt.result !== undefined) {
        below.resume = frame.interrupt.result;
        below.op = null;
      }
      return;
    }
    const back = new DataView(this.#read(this.regs.rsp, 8).buffer).getBigUint64(0, true);
    if (back !== RETURN_ADDRESS) throw new SimulationError(`RET to 0x${back.toString(16)}`);
    this.regs.rsp = frame.callerRsp!;
    if (value !== null) this.regs.rax = BigInt.asUintN(64, value);
    below.resume = { ...this.regs };
    below.op = null;
  }

  #deliver(frame: Frame, fault: GuestFault): void {
    const handler = this.#handlers?.get(fault.vector);
    if (!handler)
      throw new SimulationError(
        `triple fault: exception ${fault.vector}, CR2 0x${fault.cr2.toString(16)}, at ${frame.op?.op}`,
      );
    const interrupt = {
      vector: fault.vector,
      errorCode: fault.errorCode,
      cr2: fault.cr2,
      op: frame.op,
      regs: { ...this.regs },
      instructionLength: 2,
    };
    this.#frames.push({
      generator: handler(interrupt),
      op: null,
      resume: undefined,
      interrupt,
      callerRsp: null,
    });
  }

  // ---- Memory

  /** Address and kind of the page at a linear address. */
  #translate(gla: bigint): { gpa: number; shared: boolean } {
    if ((this.#cr.get(0)! & CR0_PG) === 0n) return { gpa: Number(gla & 0xffff_ffffn), shared: false };
    const page = Number(gla >> 12n);
    const offset = Number(gla & 0xfffn);
    let entry = this.#tlb.get(page);
    if (!entry) this.#tlb.set(page, (entry = this.#walk(gla)));
    return { gpa: entry.base + offset, shared: entry.shared };
  }
  #walk(gla: bigint): { base: number; shared: boolean } {
    const mask = BigInt(this.td.sharedMask) - 1n;
    let table = this.#cr.get(3)! & mask & ~0xfffn;
    for (let shift = 39n; ; shift -= 9n) {
      const page = this.td.page(Number(table), false)!;
      const entry = new DataView(page.buffer).getBigUint64(Number((gla >> shift) & 511n) * 8, true);
      if ((entry & 1n) === 0n) throw new GuestFault(14, 0, gla);
      if (shift === 12n || (entry & 0x80n) !== 0n) {
        const offsetMask = (1n << shift) - 1n;
        const address = entry & 0x000f_ffff_ffff_f000n & ~offsetMask;
        const base = Number((address & mask) | (gla & offsetMask & ~0xfffn));
        return { base, shared: (address & BigInt(this.td.sharedMask)) !== 0n };
      }
      table = entry & 0x000f_ffff_ffff_f000n;
    }
  }
  /** The page's bytes from `gla` on; an access to a device is a #VE. */
  #bytes(gla: bigint): Uint8Array {
    const { gpa, shared } = this.#translate(gla);
    const page = this.td.page(gpa, shared);
    if (page) return page.subarray(gpa % PAGE_SIZE);
    throw this.#virtualizationException(48, 0n, gla, BigInt(gpa) | BigInt(this.td.sharedMask));
  }
  #read(gla: bigint, length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const part = this.#bytes(gla + BigInt(done)).subarray(0, length - done);
      out.set(part, done);
      done += part.length;
    }
    return out;
  }
  #write(gla: bigint, source: Uint8Array): void {
    for (let done = 0; done < source.length;) {
      const target = this.#bytes(gla + BigInt(done));
      const part = source.subarray(done, done + target.length);
      target.set(part);
      done += part.length;
    }
  }
  /** A TDCALL's memory operand, by GPA. */
  #operand(gpa: bigint, align: number): Uint8Array {
    if (Number(gpa) % align !== 0) throw new SimulationError(`operand at 0x${gpa.toString(16)}`);
    const shared = (gpa & BigInt(this.td.sharedMask)) !== 0n;
    return this.td.page(Number(gpa) % this.td.sharedMask, shared)!.subarray(Number(gpa) % PAGE_SIZE);
  }

  // ---- Instructions

  #virtualizationException(reason: number, qualification = 0n, gla = 0n, gpa = 0n): GuestFault {
    if (this.#ve) throw new SimulationError(`#VE ${reason} while #VE ${this.#ve.reason} is not read`);
    this.#ve = { reason, qualification, gla, gpa, instruction: 2n };
    this.ves.set(reason, (this.ves.get(reason) ?? 0) + 1);
    return new GuestFault(VE);
  }

  #execute(frame: Frame, op: GuestOp): Effect | null {
    const { td, regs } = this;
    switch (op.op) {
      case "load":
        return {
          result: this.#read(op.gla, op.size).reduceRight((all, byte) => (all << 8n) | BigInt(byte), 0n),
        };
      case "store": {
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, op.value), true);
        this.#write(op.gla, bytes.subarray(0, op.size));
        return { result: undefined };
      }
      case "loadBytes":
        return { result: this.#read(op.gla, op.length) };
      case "storeBytes":
        this.#write(op.gla, op.bytes);
        return { result: undefined };
      case "cpuid":
        return { result: this.#cpuid(op.leaf >>> 0) };
      case "in":
      case "out":
        throw this.#virtualizationException(30);
      case "hlt":
        throw this.#virtualizationException(12);
      case "rdmsr":
        if (op.index === 0xc000_0080) return { result: 0x901n };
        throw this.#virtualizationException(31);
      case "wrmsr":
        throw this.#virtualizationException(32);
      case "tdcall":
        return this.#tdcall({ ...regs, ...op.regs });
      case "readCr":
        return { result: this.#cr.get(op.cr)! };
      case "writeCr":
        return { result: this.#writeCr(op.cr, op.value) };
      case "ljmp64":
        if ((this.#cr.get(0)! & CR0_PG) === 0n) throw new GuestFault(13, 0);
        this.#mode64 = true;
        return { result: undefined };
      case "lidt":
        this.#handlers = op.handlers;
        return { result: undefined };
      case "cli":
      case "sti":
      case "pause":
      case "wbinvd":
        return { result: undefined };
      case "invlpg":
        this.#tlb.delete(Number(op.gla >> 12n));
        if (op.gla % 0x20_0000n === 0n)
          for (let i = 0; i < 512; i++) this.#tlb.delete(Number(op.gla >> 12n) + i);
        return { result: undefined };
      case "rdtsc":
        return { result: td.clock };
      case "rdrand":
      case "rdseed":
        return { result: td.clock * 0x9e37_79b9n };
      case "getRegs":
        return { result: { ...regs } };
      case "ud2":
        throw new GuestFault(6);
      case "call": {
        const callerRsp = regs.rsp;
        Object.assign(regs, op.regs);
        regs.rsp -= 8n;
        const back = new Uint8Array(8);
        new DataView(back.buffer).setBigUint64(0, RETURN_ADDRESS, true);
        this.#write(regs.rsp, back);
        this.#frames.push({ ...this.#start(op.gla), callerRsp });
        return null;
      }
      case "jump": {
        Object.assign(regs, op.regs);
        const { callerRsp } = frame;
        this.#frames[this.#frames.length - 1] = { ...this.#start(op.gla), callerRsp };
        return null;
      }
      case "vmcall":
        throw new GuestFault(6);
    }
  }

  #writeCr(cr: number, value: bigint): void {
    if (cr === 0 && (value & CR0_PG) !== 0n && (this.#cr.get(4)! & CR4_PAE) === 0n)
      throw new GuestFault(13, 0);
    if (cr === 4 && (value & 0x40n) === 0n) throw this.#virtualizationException(28);
    this.#cr.set(cr, value);
    this.#tlb.clear();
  }

  #cpuid(leaf: number): { eax: number; ebx: number; ecx: number; edx: number } {
    const known: Record<number, [number, number, number, number]> = {
      0: [0x23, 0x756e6547, 0x6c65746e, 0x49656e69],
      1: [0x806f8, this.index << 24, 0x80000000, 0x1f8bfbff],
      0x15: [1, 80, 25_000_000, 0],
      0x16: [0, 0, 0, 0],
      0x21: [0, 0x65746e49, 0x20202020, 0x5844546c],
    };
    if (leaf >= 0x4000_0000 && leaf < 0x5000_0000) throw this.#virtualizationException(10);
    const [eax, ebx, ecx, edx] = known[leaf] ?? [0, 0, 0, 0];
    return { eax, ebx, ecx, edx };
  }

  // ---- The TDX module

  #tdcall(input: Registers): Effect {
    if (!this.#mode64) throw new GuestFault(13, 0);
    Object.assign(this.regs, input);
    const { td, regs } = this;
    const done = (rax: bigint, out: Partial<Registers> = {}): Effect => {
      Object.assign(regs, out, { rax });
      return { result: { ...regs } };
    };
    switch (Number(input.rax)) {
      case TDCALL_LEAF["TDG.VP.VMCALL"]:
        return this.#vmcall(input);
      case TDCALL_LEAF["TDG.VP.INFO"]:
        return done(0n, {
          rcx: BigInt(td.gpaw),
          rdx: td.attributes,
          r8: BigInt(td.numVcpus) | (BigInt(td.numVcpus) << 32n),
          r9: BigInt(this.index),
          r10: 0n,
          r11: 0n,
        });
      case TDCALL_LEAF["TDG.MR.RTMR.EXTEND"]:
        if (input.rdx > 3n) return done(TDX_STATUS.TDX_OPERAND_INVALID | 2n);
        td.extend(Number(input.rdx), this.#operand(input.rcx, 64).slice(0, 48));
        return done(0n);
      case TDCALL_LEAF["TDG.VP.VEINFO.GET"]: {
        const ve = this.#ve;
        this.#ve = null;
        if (!ve) return done(TDX_STATUS.TDX_NO_VALID_VE_INFO);
        const { qualification: rdx, gla: r8, gpa: r9, instruction: r10 } = ve;
        return done(0n, { rcx: BigInt(ve.reason), rdx, r8, r9, r10 });
      }
      case TDCALL_LEAF["TDG.MR.REPORT"]: {
        const report = TDREPORT_STRUCT.encode({
          REPORTMACSTRUCT: { REPORTDATA: this.#operand(input.rdx, 64).slice(0, 64) },
          TDINFO_STRUCT: { ATTRIBUTES: td.attributes, XFAM: 3n, MRTD: td.mrtd, RTMR: td.rtmr },
        } as never);
        this.#operand(input.rcx, 1024).set(report);
        return done(0n);
      }
      case TDCALL_LEAF["TDG.MEM.PAGE.ACCEPT"]:
        return done(td.accept(input.rcx));
      case TDCALL_LEAF["TDG.VM.RD"]: {
        const value = td.metadata.get(input.rdx);
        return value === undefined
          ? done(TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT)
          : done(0n, { r8: value });
      }
      case TDCALL_LEAF["TDG.VM.WR"]: {
        const old = input.rdx === TD_METADATA.NOTIFY_ENABLES.id ? 0n : td.metadata.get(input.rdx);
        if (old === undefined) return done(TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
        td.metadata.set(input.rdx, (old & ~input.r9) | (input.r8 & input.r9));
        return done(0n, { r8: old });
      }
      default:
        throw new SimulationError(`TDCALL leaf ${input.rax}`);
    }
  }

  /** TDG.VP.VMCALL and what KVM does about it. */
  #vmcall(input: Registers): Effect {
    if (input.rcx !== 0xffccn) throw new SimulationError(`VMCALL mask 0x${input.rcx.toString(16)}`);
    const { td, regs } = this;
    let got: Partial<Registers> = {};
    const result = () => {
      Object.assign(regs, { r10: 0n }, got, { rax: 0n });
      return { ...regs };
    };
    const answer = (out: Partial<Registers>): Effect => {
      got = out;
      return { result: result() };
    };
    const after = (one: Step): Effect => ({ step: one, result });
    const size = Number(input.r12);
    switch (Number(input.r11)) {
      case TDVMCALL["Instruction.IO"]: {
        const port = Number(input.r14);
        if (![1, 2, 4].includes(size)) return answer({ r10: 1n << 63n });
        if (input.r13 === 1n) return after(step.out(port, size, Number(input.r15 & sizeMask(size))));
        return after(
          ioRead(port, size, (value) => {
            got = { r11: BigInt(value >>> 0) };
          }),
        );
      }
      case TDVMCALL["Instruction.CPUID"]:
        return answer(
          low32(input.r12) === 0x4000_0000
            ? { r12: 0x4000_0001n, r13: 0x4b4d_564bn, r14: 0x564b_4d56n, r15: 0x4dn }
            : { r12: 0n, r13: 0n, r14: 0n, r15: 0n },
        );
      case TDVMCALL["Instruction.HLT"]:
        return after({ prepare: () => -Errno.EAGAIN });
      case TDVMCALL["Instruction.RDMSR"]:
      case TDVMCALL["Instruction.WRMSR"]:
        return answer({ r10: 1n << 63n });
      case TDVMCALL["#VE.RequestMMIO"]: {
        const gpa = Number(input.r14) % td.sharedMask;
        const write = input.r13 === 1n;
        const bytes = Array.from({ length: size }, (_, i) => Number((input.r15 >> BigInt(8 * i)) & 0xffn));
        return after(
          step.mmio(gpa, bytes, write, (data) => {
            if (!write) got = { r11: data.reduceRight((all, byte) => (all << 8n) | BigInt(byte), 0n) };
          }),
        );
      }
      case TDVMCALL.MapGPA: {
        const toShared = input.r12 >= BigInt(td.sharedMask);
        const gpa = Number(input.r12) % td.sharedMask;
        return after(
          step.mapGpa(gpa, Number(input.r13) / PAGE_SIZE, !toShared, (ret) => {
            got = ret === 0n ? {} : { r10: 1n << 63n };
          }),
        );
      }
      case TDVMCALL.GetQuote:
        return after(
          step.tdx(TDVMCALL.GetQuote, [input.r12 & ~BigInt(td.sharedMask), input.r13], (ret) => {
            got = { r10: ret };
          }),
        );
      case TDVMCALL.SetupEventNotifyInterrupt:
        return after(
          step.tdx(TDVMCALL.SetupEventNotifyInterrupt, [input.r12], (ret) => {
            got = { r10: ret };
          }),
        );
      case TDVMCALL.ReportFatalError: {
        const data = GPR_NAMES.map((name) => (name === "rcx" ? 0xffccn : input[name]));
        return after(step.systemEvent(KVM_SYSTEM_EVENT_TDX_FATAL, data));
      }
      default:
        return answer({ r10: (1n << 63n) | 3n });
    }
  }
}

/** KVM_EXIT_IO for IN of any size. */
const ioRead = (port: number, size: number, got: (value: number) => void): Step => ({
  ...step.in(port, size, () => {}),
  after: (view) =>
    got(
      size === 1
        ? view.getUint8(KVM_RUN_PIO_OFFSET)
        : size === 2
          ? view.getUint16(KVM_RUN_PIO_OFFSET, true)
          : view.getUint32(KVM_RUN_PIO_OFFSET, true),
    ),
});
