/**
 * What an instruction's semantics are written against: operands, flags, memory, control flow. The interpreter's context
 * reads operands through the decoded record; a compiler's may know them as constants and keep registers in locals.
 *
 * Arithmetic flags are three 64-bit values, exact and free of branches:
 *  Z: ZF is Z = 0.  S: SF is S < 0, PF the parity of its low byte.
 *  C: bit 63 is CF, bit 63 xor bit 62 is OF, bit 3 is AF (the carries out of these bit positions, shifted so that the
 *  operand's top carry is at bit 63). Results are sign-extended to 64 bits.
 */
import { I32, I64, type ValType } from "../wasm/encoder.js";
import { type Code, i32, i64, type Local, LOAD, type Operand, select, STORE, V } from "../wasm/expr.js";

/** Where an operand is, from the handler key: see `handlerKey`. */
export interface OperandPlace {
  readonly kind: string;
  readonly bits: number;
}

export type Bits = 8 | 16 | 32 | 64;

export abstract class Context {
  constructor(
    readonly code: Code,
    readonly flagZ: Local,
    readonly flagS: Local,
    readonly flagC: Local,
  ) {}
  /** Operands of the instruction being emitted. */
  operands: readonly OperandPlace[] = [];
  /** The emitter has ended the instruction itself. */
  ended = false;

  // --- provided by the tier

  /** i32 address of a register operand or immediate. */
  protected abstract operandAddress(i: number): { address: V; offset: number };
  /** The 64-bit immediate. */
  abstract immediate(): V;
  /** Host address (i32) of the memory operand, after the access checks. `access` from Access; leaves on a fault. */
  abstract memory(bytes: number, access: number, displacement?: V): Local;
  /** The same for an explicit linear address (64-bit mode) in the stack segment. */
  abstract stackMemory(address: V, bytes: number, access: number): Local;
  /** Linear or effective address of the memory operand without an access, for LEA (64-bit value). */
  abstract effectiveAddress(): V;
  /** i32 host address that `memory` yields for accesses that are not plain memory. */
  abstract scratch(): V;
  /** Must follow a store to a host address. */
  abstract commit(host: V): void;
  /** i32 address of a field of the register file, as base and static offset. */
  abstract field(offset: number): { address: V; offset: number };
  /** Raises an exception at this instruction. */
  abstract raise(vector: number, errorCode?: number): void;
  /** Leaves with the exception that a called function has prepared. */
  abstract fault(): void;
  /** Goes to the direct branch's target. */
  abstract branch(): void;
  /** Goes to an address computed at run time. */
  abstract jump(rip: V): void;
  /** RIP of the following instruction. */
  abstract nextRip(): V;
  /** RIP of the direct branch's target. */
  abstract targetRip(): V;
  /** i32: 0 16, 1 32, 2 64 bits; i32: 0 none, 1 F3, 2 F2. */
  abstract addressSize(): V;
  abstract repeat(): V;
  /** Host address of an offset in a segment (of the operand's segment if -1) of any mode; leaves on a fault. */
  abstract segmentMemory(segment: number, offset: V, bytes: number, access: number): Local;
  /** Host address of a stack pointer value in any mode. */
  abstract stackHost(pointer: V, bytes: number, access: number): Local;
  /** To be done before leaving if a memory access faults. */
  undo: (() => void) | undefined;
  /** Leaves an instruction that is to be executed again. */
  abstract again(): void;
  /** Ends the instruction here. */
  abstract next(): void;
  /** Calls a helper function of the engine; see interpreter/helpers.ts. */
  abstract helper(name: string, ...operands: V[]): V;

  // --- operands

  /** Address of a register operand or immediate. */
  operand(i: number): { address: V; offset: number } {
    return this.operandAddress(i);
  }
  get bits(): Bits {
    return this.operands[0].bits as Bits;
  }
  /** Type in which operands of this width are computed. */
  static type(bits: number): ValType {
    return bits === 64 ? I64 : I32;
  }
  /** Operand `i`, zero-extended to 32 bits or the full 64. */
  read(i: number, bits: number = this.operands[i].bits): Local {
    const { kind } = this.operands[i];
    if (kind === "i") {
      const value = this.immediate();
      return this.code.let(bits === 64 ? value : this.zeroExtend(bits, value.wrap()));
    }
    if (kind === "m") return this.code.let(loadBits(bits, this.memory(bits / 8, 0)));
    const { address, offset } = this.operandAddress(i);
    return this.code.let(loadBits(bits, address, offset));
  }
  /** Writes operand `i`; a 32-bit register is zero-extended. */
  write(i: number, value: V, bits: number = this.operands[i].bits): void {
    if (this.operands[i].kind === "m") {
      const host = this.memory(bits / 8, 0x100);
      this.storeMemory(host, bits, value);
      return;
    }
    const { address, offset } = this.operandAddress(i);
    if (bits === 64 || bits === 32) this.code.store(STORE.i64, address, value.u64(), offset);
    else this.code.store(bits === 8 ? STORE.i32_8 : STORE.i32_16, address, value.wrap(), offset);
  }
  storeMemory(host: V, bits: number, value: V): void {
    if (bits === 64) this.code.store(STORE.i64, host, value);
    else
      this.code.store(bits === 8 ? STORE.i32_8 : bits === 16 ? STORE.i32_16 : STORE.i32, host, value.wrap());
    this.commit(host);
  }
  /** Reads, computes and writes operand `i` with one access check. */
  modify(i: number, change: (value: Local) => V): void {
    const bits = this.operands[i].bits;
    if (this.operands[i].kind === "m") {
      const host = this.memory(bits / 8, 0x100);
      const value = this.code.let(loadBits(bits, host));
      this.storeMemory(host, bits, change(value));
    } else this.write(i, change(this.read(i)));
  }
  /** General register by number. */
  gpr(n: number, bits = 64): V {
    const { address, offset } = this.field(n * 8);
    return loadBits(bits, address, offset);
  }
  setGpr(n: number, value: V, bits = 64): void {
    const { address, offset } = this.field(n * 8);
    if (bits >= 32) this.code.store(STORE.i64, address, value.u64(), offset);
    else this.code.store(bits === 8 ? STORE.i32_8 : STORE.i32_16, address, value.wrap(), offset);
  }
  load32(field: number): V {
    const { address, offset } = this.field(field);
    return address.load(LOAD.i32, offset);
  }
  load64(field: number): V {
    const { address, offset } = this.field(field);
    return address.load(LOAD.i64, offset);
  }
  store32(field: number, value: V): void {
    const { address, offset } = this.field(field);
    this.code.store(STORE.i32, address, value, offset);
  }
  store64(field: number, value: V): void {
    const { address, offset } = this.field(field);
    this.code.store(STORE.i64, address, value, offset);
  }

  // --- widths

  signExtend(bits: number, value: V): V {
    return bits === 8 ? value.extend8() : bits === 16 ? value.extend16() : value;
  }
  zeroExtend(bits: number, value: V): V {
    return bits === 8 ? value.and(0xff) : bits === 16 ? value.and(0xffff) : value;
  }
  constant(bits: number, value: Operand): V {
    return value instanceof V ? value : bits === 64 ? i64(value) : i32(Number(value));
  }

  // --- flags

  /** ZF, SF and PF of a result. */
  setResult(bits: number, result: V): void {
    this.code.set(this.flagS, this.signExtend(bits, result).s64());
    this.code.set(this.flagZ, this.flagS);
  }
  /** CF, OF and AF from the carries out of each bit. */
  setCarries(bits: number, carries: V): void {
    if (bits === 64) return this.code.set(this.flagC, carries);
    const wide = this.code.let(carries.u64());
    this.code.set(this.flagC, wide.shl(64 - bits).or(wide));
  }
  addCarries(a: V, b: V, result: V): V {
    return a.and(b).or(a.or(b).and(result.not()));
  }
  subCarries(a: V, b: V, result: V): V {
    return a.not().and(b).or(a.not().or(b).and(result));
  }
  flagsAdd(bits: number, a: V, b: V, result: V): void {
    this.setCarries(bits, this.addCarries(a, b, result));
    this.setResult(bits, result);
  }
  flagsSub(bits: number, a: V, b: V, result: V): void {
    this.setCarries(bits, this.subCarries(a, b, result));
    this.setResult(bits, result);
  }
  flagsLogic(bits: number, result: V): void {
    this.code.set(this.flagC, 0);
    this.setResult(bits, result);
  }
  /** As for ADD or SUB, but CF stays. */
  keepCarry(set: () => void): void {
    const old = this.code.let(this.flagC.and(1n << 63n));
    set();
    const change = this.code.let(this.flagC.xor(old).and(1n << 63n));
    this.code.set(this.flagC, this.flagC.xor(change).xor(change.shr_u(1)));
  }
  /** CF and OF together (i32 0 or 1 each); the rest stays. */
  setCarryOverflow(cf: V, of: V): void {
    this.code.set(this.flagC, cf.u64().shl(63).or(cf.xor(of).u64().shl(62)).or(this.flagC.and(8)));
  }
  /** CF alone (i32 0 or 1). */
  setCarry(cf: V): void {
    const change = this.code.let(this.flagC.shr_u(63).xor(cf.u64()).shl(63));
    this.code.set(this.flagC, this.flagC.xor(change).xor(change.shr_u(1)));
  }
  /** All six from the bits of RFLAGS (i32). */
  setFlags(flags: V): void {
    const f = this.code.let(flags);
    const cf = f.and(1);
    const of = f.shr_u(11).and(1);
    this.code.set(this.flagC, cf.u64().shl(63).or(cf.xor(of).u64().shl(62)).or(f.shr_u(1).and(8).u64()));
    this.code.set(this.flagZ, f.shr_u(6).and(1).xor(1).u64());
    this.code.set(this.flagS, f.shr_u(7).and(1).u64().shl(63).or(f.shr_u(2).and(1).xor(1).u64()));
  }
  /** The six arithmetic flags at their places in RFLAGS (i32). */
  getFlags(): V {
    return this.cf()
      .or(this.pf().shl(2))
      .or(this.flagC.wrap().shl(1).and(16))
      .or(this.zf().shl(6))
      .or(this.sf().shl(7))
      .or(this.of().shl(11));
  }
  cf(): V {
    return this.flagC.shr_u(63).wrap();
  }
  of(): V {
    return this.flagC.xor(this.flagC.shl(1)).shr_u(63).wrap();
  }
  zf(): V {
    return this.flagZ.eqz();
  }
  sf(): V {
    return this.flagS.shr_u(63).wrap();
  }
  pf(): V {
    return this.flagS.wrap().and(0xff).popcnt().and(1).xor(1);
  }
  /** Condition by its number in the opcode (i32 0 or 1). */
  condition(n: number): V {
    const base = [
      () => this.of(),
      () => this.cf(),
      () => this.zf(),
      () => this.cf().or(this.zf()),
      () => this.sf(),
      () => this.pf(),
      () => this.flagS.xor(this.flagC).xor(this.flagC.shl(1)).lt_s(0),
      () => this.flagS.xor(this.flagC).xor(this.flagC.shl(1)).lt_s(0).or(this.zf()),
    ][n >> 1]();
    return n & 1 ? base.eqz() : base;
  }

  // --- control

  /** `value` if the condition holds, else `otherwise`. */
  choose(condition: V, value: V, otherwise: V): V {
    return select(condition, value, otherwise);
  }
}

/** A zero-extended load of 8 to 64 bits. */
export function loadBits(bits: number, address: V, offset = 0): V {
  return address.load(
    bits === 64 ? LOAD.i64 : bits === 32 ? LOAD.i32 : bits === 16 ? LOAD.i32_16u : LOAD.i32_8u,
    offset,
  );
}

/** An instruction's semantics: emits code for the operands that the context describes. */
export type Emitter = (c: Context) => void;
/** Semantics by instruction name. */
export type Semantics = Record<string, Emitter>;
/** Defines a function of the generated module for `Context.helper`; `body` returns the result. */
export type DefineHelper = (
  name: string,
  params: ValType[],
  result: ValType,
  body: (code: Code, ...p: Local[]) => void,
) => void;
