/**
 * Typed expressions and statements over the encoder, so that semantics read like formulas.
 *
 * A `V` is code that leaves one value on the wasm stack; it is written out each time it is used, so a value used
 * twice belongs in a local (`Code.let`). Numbers stand for constants of the other operand's type.
 */
import {
  Bytes,
  F32,
  F64,
  type FunctionBody,
  I32,
  I64,
  type Signature,
  V128,
  type ValType,
  VOID,
} from "./encoder.js";

export type Operand = V | number | bigint;

/** Opcodes by operation: [i32, i64]. */
const BINARY = {
  eq: [0x46, 0x51],
  ne: [0x47, 0x52],
  lt_s: [0x48, 0x53],
  lt_u: [0x49, 0x54],
  gt_s: [0x4a, 0x55],
  gt_u: [0x4b, 0x56],
  le_s: [0x4c, 0x57],
  le_u: [0x4d, 0x58],
  ge_s: [0x4e, 0x59],
  ge_u: [0x4f, 0x5a],
  add: [0x6a, 0x7c],
  sub: [0x6b, 0x7d],
  mul: [0x6c, 0x7e],
  div_s: [0x6d, 0x7f],
  div_u: [0x6e, 0x80],
  rem_s: [0x6f, 0x81],
  rem_u: [0x70, 0x82],
  and: [0x71, 0x83],
  or: [0x72, 0x84],
  xor: [0x73, 0x85],
  shl: [0x74, 0x86],
  shr_s: [0x75, 0x87],
  shr_u: [0x76, 0x88],
  rotl: [0x77, 0x89],
  rotr: [0x78, 0x8a],
} as const;
type BinaryName = keyof typeof BINARY;
const UNARY = { clz: [0x67, 0x79], ctz: [0x68, 0x7a], popcnt: [0x69, 0x7b] } as const;

/** A value: its type and the code that computes it. */
export class V {
  constructor(
    readonly type: ValType,
    readonly emit: (out: Bytes) => void,
  ) {}

  private bin(name: BinaryName, other: Operand, result: ValType): V {
    const opcode = BINARY[name][this.type === I64 ? 1 : 0];
    const right = lift(other, this.type);
    if (right.type !== this.type) throw new TypeError(`${name}: operands of different types`);
    return new V(result, (out) => {
      this.emit(out);
      right.emit(out);
      out.byte(opcode);
    });
  }
  private un(opcode: number | number[], result: ValType): V {
    return new V(result, (out) => {
      this.emit(out);
      if (typeof opcode === "number") out.byte(opcode);
      else for (const b of opcode) out.byte(b);
    });
  }
  eq(o: Operand): V {
    return this.bin("eq", o, I32);
  }
  ne(o: Operand): V {
    return this.bin("ne", o, I32);
  }
  lt_s(o: Operand): V {
    return this.bin("lt_s", o, I32);
  }
  lt_u(o: Operand): V {
    return this.bin("lt_u", o, I32);
  }
  gt_s(o: Operand): V {
    return this.bin("gt_s", o, I32);
  }
  gt_u(o: Operand): V {
    return this.bin("gt_u", o, I32);
  }
  le_s(o: Operand): V {
    return this.bin("le_s", o, I32);
  }
  le_u(o: Operand): V {
    return this.bin("le_u", o, I32);
  }
  ge_s(o: Operand): V {
    return this.bin("ge_s", o, I32);
  }
  ge_u(o: Operand): V {
    return this.bin("ge_u", o, I32);
  }
  add(o: Operand): V {
    return this.bin("add", o, this.type);
  }
  sub(o: Operand): V {
    return this.bin("sub", o, this.type);
  }
  mul(o: Operand): V {
    return this.bin("mul", o, this.type);
  }
  div_s(o: Operand): V {
    return this.bin("div_s", o, this.type);
  }
  div_u(o: Operand): V {
    return this.bin("div_u", o, this.type);
  }
  rem_s(o: Operand): V {
    return this.bin("rem_s", o, this.type);
  }
  rem_u(o: Operand): V {
    return this.bin("rem_u", o, this.type);
  }
  and(o: Operand): V {
    return this.bin("and", o, this.type);
  }
  or(o: Operand): V {
    return this.bin("or", o, this.type);
  }
  xor(o: Operand): V {
    return this.bin("xor", o, this.type);
  }
  shl(o: Operand): V {
    return this.bin("shl", o, this.type);
  }
  shr_s(o: Operand): V {
    return this.bin("shr_s", o, this.type);
  }
  shr_u(o: Operand): V {
    return this.bin("shr_u", o, this.type);
  }
  rotl(o: Operand): V {
    return this.bin("rotl", o, this.type);
  }
  rotr(o: Operand): V {
    return this.bin("rotr", o, this.type);
  }
  not(): V {
    return this.xor(this.type === I64 ? -1n : -1);
  }
  neg(): V {
    return lift(0, this.type).sub(this);
  }
  eqz(): V {
    return this.un(this.type === I64 ? 0x50 : 0x45, I32);
  }
  clz(): V {
    return this.un(UNARY.clz[this.type === I64 ? 1 : 0], this.type);
  }
  ctz(): V {
    return this.un(UNARY.ctz[this.type === I64 ? 1 : 0], this.type);
  }
  popcnt(): V {
    return this.un(UNARY.popcnt[this.type === I64 ? 1 : 0], this.type);
  }
  /** To i32; the identity there. */
  wrap(): V {
    return this.type === I32 ? this : this.un(0xa7, I32);
  }
  /** To i64 by zero-extension; the identity there. */
  u64(): V {
    return this.type === I64 ? this : this.un(0xad, I64);
  }
  /** To i64 by sign-extension; the identity there. */
  s64(): V {
    return this.type === I64 ? this : this.un(0xac, I64);
  }
  extend8(): V {
    return this.un(this.type === I64 ? 0xc2 : 0xc0, this.type);
  }
  extend16(): V {
    return this.un(this.type === I64 ? 0xc3 : 0xc1, this.type);
  }
  /** Sign-extends the low 32 bits of an i64. */
  extend32(): V {
    return this.un(0xc4, I64);
  }
  /** A load of `type` from this i32 address. `opcode` from LOAD. */
  load(opcode: readonly [number, ValType], offset = 0): V {
    return new V(opcode[1], (out) => {
      this.emit(out);
      out.byte(opcode[0]);
      out.u32(0);
      out.u32(offset);
    });
  }
  loadV128(offset = 0): V {
    return new V(V128, (out) => {
      this.emit(out);
      simd(out, 0);
      out.u32(0);
      out.u32(offset);
    });
  }
  /** A one-operand instruction given by its bytes. */
  raw(bytes: number[], result: ValType): V {
    return this.un(bytes, result);
  }
}

/** Loads: opcode and type of the result. */
export const LOAD = {
  i32: [0x28, I32],
  i64: [0x29, I64],
  f32: [0x2a, F32],
  f64: [0x2b, F64],
  i32_8s: [0x2c, I32],
  i32_8u: [0x2d, I32],
  i32_16s: [0x2e, I32],
  i32_16u: [0x2f, I32],
  i64_8s: [0x30, I64],
  i64_8u: [0x31, I64],
  i64_16s: [0x32, I64],
  i64_16u: [0x33, I64],
  i64_32s: [0x34, I64],
  i64_32u: [0x35, I64],
} as const satisfies Record<string, readonly [number, ValType]>;

/** Stores: opcode. */
export const STORE = { i32: 0x36, i64: 0x37, f32: 0x38, f64: 0x39, i32_8: 0x3a, i32_16: 0x3b } as const;

/** Writes the prefix and number of a SIMD instruction. */
export function simd(out: Bytes, opcode: number): void {
  out.byte(0xfd);
  out.u32(opcode);
}

/** A SIMD instruction of any number of operands; immediates (lanes) follow the opcode. */
export function simdOp(opcode: number, result: ValType, operands: V[], immediates: number[] = []): V {
  return new V(result, (out) => {
    for (const operand of operands) operand.emit(out);
    simd(out, opcode);
    for (const b of immediates) out.byte(b);
  });
}

export function i32(value: number): V {
  return new V(I32, (out) => {
    out.byte(0x41);
    out.s32(value);
  });
}
export function i64(value: bigint | number): V {
  const wide = BigInt(value);
  return new V(I64, (out) => {
    out.byte(0x42);
    out.s64(wide);
  });
}
function lift(value: Operand, type: ValType): V {
  if (value instanceof V) return value;
  return type === I64 ? i64(value) : i32(Number(value));
}
/** `whenTrue` if the condition is not zero, else `whenFalse`; both are evaluated. */
export function select(condition: V, whenTrue: V, whenFalse: V): V {
  return new V(whenTrue.type, (out) => {
    whenTrue.emit(out);
    whenFalse.emit(out);
    condition.emit(out);
    if (whenTrue.type === V128) {
      out.byte(0x1c);
      out.byte(1);
      out.byte(V128);
    } else out.byte(0x1b);
  });
}

/** A local variable or parameter. */
export class Local extends V {
  constructor(
    type: ValType,
    readonly index: number,
  ) {
    super(type, (out) => {
      out.byte(0x20);
      out.u32(index);
    });
  }
  /** Assigns and yields the value. */
  tee(value: V): V {
    return new V(this.type, (out) => {
      value.emit(out);
      out.byte(0x22);
      out.u32(this.index);
    });
  }
}

/** A label that branches name: the nesting depth of its block. */
export type Label = number & { readonly label: unique symbol };

/** Writer of one function's statements. */
export class Code implements FunctionBody {
  readonly code = new Bytes();
  readonly locals: ValType[] = [];
  private depth = 0;
  private readonly pool = new Map<ValType, Local[]>();
  private readonly used = new Map<ValType, number>();

  constructor(readonly signature: Signature) {}

  param(index: number): Local {
    return new Local(this.signature.params[index], index);
  }
  /** A local that lives for the whole function. */
  local(type: ValType): Local {
    this.locals.push(type);
    return new Local(type, this.signature.params.length + this.locals.length - 1);
  }
  /** A temporary, valid until `releaseTemporaries`. */
  temp(type: ValType): Local {
    const free = this.pool.get(type) ?? [];
    this.pool.set(type, free);
    const n = this.used.get(type) ?? 0;
    if (n === free.length) free.push(this.local(type));
    this.used.set(type, n + 1);
    return free[n];
  }
  releaseTemporaries(): void {
    this.used.clear();
  }
  /** Evaluates once into a temporary. */
  let(value: V): Local {
    const variable = this.temp(value.type);
    this.set(variable, value);
    return variable;
  }
  set(variable: Local, value: Operand): void {
    lift(value, variable.type).emit(this.code);
    this.code.byte(0x21);
    this.code.u32(variable.index);
  }
  store(opcode: number, address: V, value: V, offset = 0): void {
    address.emit(this.code);
    value.emit(this.code);
    this.code.byte(opcode);
    this.code.u32(0);
    this.code.u32(offset);
  }
  storeV128(address: V, value: V, offset = 0): void {
    address.emit(this.code);
    value.emit(this.code);
    simd(this.code, 11);
    this.code.u32(0);
    this.code.u32(offset);
  }
  drop(value: V): void {
    value.emit(this.code);
    this.code.byte(0x1a);
  }
  /** Runs a call without result. */
  do(value: V): void {
    value.emit(this.code);
  }
  block(body: (end: Label) => void): void {
    this.nest(0x02, body);
  }
  loop(body: (again: Label) => void): void {
    this.nest(0x03, body);
  }
  if(condition: V, then: () => void, otherwise?: () => void): void {
    condition.emit(this.code);
    this.code.byte(0x04);
    this.code.byte(VOID);
    this.depth++;
    then();
    if (otherwise) {
      this.code.byte(0x05);
      otherwise();
    }
    this.depth--;
    this.code.byte(0x0b);
  }
  br(label: Label): void {
    this.code.byte(0x0c);
    this.code.u32(this.depth - label);
  }
  brIf(condition: V, label: Label): void {
    condition.emit(this.code);
    this.code.byte(0x0d);
    this.code.u32(this.depth - label);
  }
  brTable(index: V, labels: Label[], fallback: Label): void {
    index.emit(this.code);
    this.code.byte(0x0e);
    this.code.u32(labels.length);
    for (const label of labels) this.code.u32(this.depth - label);
    this.code.u32(this.depth - fallback);
  }
  /** Opens a block that `end` closes; for shapes that closures do not fit. */
  open(): Label {
    this.code.byte(0x02);
    this.code.byte(VOID);
    return ++this.depth as Label;
  }
  end(): void {
    this.depth--;
    this.code.byte(0x0b);
  }
  return(value?: V): void {
    value?.emit(this.code);
    this.code.byte(0x0f);
  }
  unreachable(): void {
    this.code.byte(0x00);
  }
  /** Ends the function's body. */
  finish(): void {
    this.code.byte(0x0b);
  }
  private nest(opcode: number, body: (label: Label) => void): void {
    this.code.byte(opcode);
    this.code.byte(VOID);
    body(++this.depth as Label);
    this.depth--;
    this.code.byte(0x0b);
  }
}

/** A call of a function by index. */
export function call(index: number, result: ValType, ...operands: V[]): V {
  return new V(result, (out) => {
    for (const operand of operands) operand.emit(out);
    out.byte(0x10);
    out.u32(index);
  });
}
/** A call through the table. */
export function callIndirect(type: number, result: ValType, index: V, ...operands: V[]): V {
  return new V(result, (out) => {
    for (const operand of operands) operand.emit(out);
    index.emit(out);
    out.byte(0x11);
    out.u32(type);
    out.u32(0);
  });
}
