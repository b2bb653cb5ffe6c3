/**
 * The interpreter's view of an instruction: operands come from the decoded record at `pc`. Hot instructions are cases of
 * the dispatch loop, with flags and budget in its locals; the others are functions of their own that find the flags in
 * memory.
 */
import { Access, ENGINE, RECORD, RECORD_SIZE, Status, TLB, TLB_ENTRIES, Misc } from "../layout.js";
import { I32, I64, type ValType } from "../wasm/encoder.js";
import { call, type Code, i32, i64, type Label, type Local, LOAD, type V } from "../wasm/expr.js";
import { REG } from "../register-file.js";
import { Context } from "./context.js";

/** Constants and functions that generated code refers to. */
export interface EngineLayout {
  /** Address of the register file. */
  readonly core: number;
  /** Address of the buffer for accesses that are not plain memory. */
  readonly scratch: number;
  /** Function indexes by helper name. */
  readonly functions: ReadonlyMap<string, { index: number; result: ValType | 0x40 }>;
}

/** log2 of a TLB entry's size. */
const ENTRY_SHIFT = 5;

abstract class InterpreterContext extends Context {
  constructor(
    code: Code,
    readonly pc: Local,
    readonly tlb: V,
    flags: [Local, Local, Local],
    readonly layout: EngineLayout,
  ) {
    super(code, ...flags);
  }

  field(offset: number): { address: V; offset: number } {
    return { address: i32(0), offset: this.layout.core + offset };
  }
  protected operandAddress(i: number): { address: V; offset: number } {
    if (i === 1) return { address: this.pc.load(LOAD.i32, RECORD.B), offset: 0 };
    return { address: this.pc.load(LOAD.i32_16u, i === 0 ? RECORD.A : RECORD.C), offset: this.layout.core };
  }
  immediate(): V {
    return this.pc.load(LOAD.i64, RECORD.IMM);
  }
  addressSize(): V {
    return this.pc.load(LOAD.i32_16u, RECORD.MISC).shr_u(Misc.ADDRESS_SHIFT);
  }
  repeat(): V {
    return this.pc.load(LOAD.i32_16u, RECORD.A);
  }
  scratch(): V {
    return i32(this.layout.scratch);
  }
  helper(name: string, ...operands: V[]): V {
    const f = this.layout.functions.get(name);
    if (!f) throw new RangeError(`no helper ${name}`);
    return call(f.index, f.result as typeof I32, ...operands);
  }

  private simpleAddress(): V {
    const register = (field: number) => this.pc.load(LOAD.i32_16u, field).load(LOAD.i64, this.layout.core);
    return register(RECORD.BASE)
      .add(register(RECORD.INDEX).shl(this.pc.load(LOAD.i64_8u, RECORD.SCALE)))
      .add(this.pc.load(LOAD.i64_32s, RECORD.DISP));
  }
  effectiveAddress(): V {
    const ea = this.code.temp(I64);
    this.code.if(
      this.pc.load(LOAD.i32_16u, RECORD.SEGMENT).eq(ENGINE.POISON),
      () => this.code.set(ea, this.helper("address", this.pc)),
      () => this.code.set(ea, this.simpleAddress()),
    );
    return ea;
  }
  memory(bytes: number, access: number, displacement?: V): Local {
    const segment = this.pc.load(LOAD.i32_16u, RECORD.SEGMENT).load(LOAD.i64, this.layout.core);
    let address = this.simpleAddress().add(segment);
    if (displacement) address = address.add(displacement);
    const descriptor = i32(bytes | access);
    return this.probe(address, bytes, access, () =>
      this.helper("memory", this.pc, displacement ?? i64(0), descriptor),
    );
  }
  stackMemory(address: V, bytes: number, access: number): Local {
    return this.probe(address, bytes, access, (ea) =>
      this.helper("linear", ea, i32(bytes | access | Access.STACK), this.pc),
    );
  }
  segmentMemory(segment: number, offset: V, bytes: number, access: number): Local {
    const number =
      segment >= 0 ? i32(segment) : this.pc.load(LOAD.i32_16u, RECORD.MISC).shr_u(Misc.SEGMENT_SHIFT).and(7);
    return this.checked(this.helper("segment", number, offset, i32(bytes | access), this.pc));
  }
  stackHost(pointer: V, bytes: number, access: number): Local {
    // On a 16-bit stack the upper half of ESP does not count.
    return this.segmentMemory(2, pointer.and(this.load64(ENGINE.STACK_MASK)), bytes, access);
  }
  /** Looks an address up in the TLB; what misses goes to `slow`, which yields 0 for a fault. */
  private probe(address: V, bytes: number, access: number, slow: (ea: V) => V): Local {
    const { code } = this;
    const ea = code.let(address);
    const entry = code.let(
      ea
        .shr_u(12 - ENTRY_SHIFT)
        .wrap()
        .and((TLB_ENTRIES - 1) << ENTRY_SHIFT)
        .add(this.tlb),
    );
    const host = code.temp(I32);
    const last = bytes === 1 ? ea : ea.add(bytes - 1);
    code.if(
      entry.load(LOAD.i64, access & Access.WRITE ? TLB.WRITE : TLB.READ).eq(last.and(-4096)),
      () => code.set(host, ea.wrap().add(entry.load(LOAD.i32, TLB.ADDEND))),
      () => this.checkedInto(host, slow(ea)),
    );
    return host;
  }
  private checked(value: V): Local {
    const host = this.code.temp(I32);
    this.checkedInto(host, value);
    return host;
  }
  private checkedInto(host: Local, value: V): void {
    this.code.if(host.tee(value).eqz(), () => {
      this.undo?.();
      this.fault();
    });
  }
  commit(host: V): void {
    this.code.if(host.eq(this.layout.scratch), () => this.code.do(this.helper("commit")));
  }
  raise(vector: number, errorCode = -1): void {
    this.store32(ENGINE.VECTOR, i32(vector));
    this.store32(ENGINE.ERROR_CODE, i32(errorCode));
    this.store32(ENGINE.STATUS, i32(Status.FAULT));
    this.fault();
  }
  nextRip(): V {
    const masked = this.load64(ENGINE.RIP_BASE)
      .add(this.pc.load(LOAD.i64_16u, RECORD.OFFSET))
      .add(this.pc.load(LOAD.i64_8u, RECORD.LENGTH))
      .and(this.load64(ENGINE.RIP_MASK));
    return masked;
  }
  targetRip(): V {
    const rip = this.load64(ENGINE.RIP_BASE)
      .add(this.pc.load(LOAD.i64_32s, RECORD.IMM))
      .and(this.load64(ENGINE.RIP_MASK));
    return this.operands[0].bits === 16 ? rip.and(0xffff) : rip;
  }
}

/** A case of the dispatch loop. */
export class HotContext extends InterpreterContext {
  constructor(
    code: Code,
    pc: Local,
    tlb: V,
    flags: [Local, Local, Local],
    layout: EngineLayout,
    private readonly labels: {
      /** Continues with the record at pc. */
      readonly dispatch: Label;
      /** Leaves with STATUS; this instruction has not been executed. */
      fault: Label;
      /** Goes to the record in `target`, counting this instruction. */
      readonly transfer: Label;
    },
    private readonly target: Local,
  ) {
    super(code, pc, tlb, flags, layout);
  }
  next(): void {
    this.code.set(this.pc, this.pc.add(RECORD_SIZE));
    this.code.br(this.labels.dispatch);
  }
  fault(): void {
    this.code.br(this.labels.fault);
  }
  again(): void {
    throw new RangeError("only called functions run again");
  }
  branch(): void {
    this.code.if(this.target.tee(this.pc.load(LOAD.i32, RECORD.TARGET)).eqz(), () => {
      this.code.set(this.target, this.helper("resolve", this.pc));
    });
    this.code.br(this.labels.transfer);
  }
  jump(rip: V): void {
    this.code.set(this.target, this.helper("lookup", rip));
    this.code.br(this.labels.transfer);
  }
}

/** A function of its own: (pc) → Status. */
export class ColdContext extends InterpreterContext {
  constructor(code: Code, layout: EngineLayout) {
    const flags: [Local, Local, Local] = [code.local(I64), code.local(I64), code.local(I64)];
    super(code, code.param(0), i32(0).load(LOAD.i32, layout.core + ENGINE.TLB), flags, layout);
    code.set(flags[0], this.load64(ENGINE.FLAG_Z));
    code.set(flags[1], this.load64(ENGINE.FLAG_S));
    code.set(flags[2], this.load64(ENGINE.FLAG_C));
  }
  private storeFlags(): void {
    this.store64(ENGINE.FLAG_Z, this.flagZ);
    this.store64(ENGINE.FLAG_S, this.flagS);
    this.store64(ENGINE.FLAG_C, this.flagC);
  }
  next(): void {
    this.storeFlags();
    this.code.return(i32(Status.NEXT));
  }
  again(): void {
    this.storeFlags();
    this.code.return(i32(Status.AGAIN));
  }
  fault(): void {
    this.code.return(this.load32(ENGINE.STATUS));
  }
  branch(): void {
    this.jump(this.targetRip());
  }
  jump(rip: V): void {
    this.storeFlags();
    this.store64(REG.RIP, rip);
    this.code.return(i32(Status.JUMP));
  }
}
