/**
 * Operands of MMX and SSE instructions as 128-bit values, and the checks that precede such instructions. An mm register
 * is the low half of a value whose upper half is zero. SDM vol. 1 ch. 9 and 10, vol. 3A ch. 12 and 13.
 */
import { type Context, loadBits } from "../emit/context.js";
import { Access, ENGINE, FpuBlock, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { I64, V128 } from "../wasm/encoder.js";
import { i32, LOAD, type Local, simd, simdOp, STORE, V } from "../wasm/expr.js";

/** A SIMD instruction with a vector result, by its opcode. */
export const op = (code: number, ...operands: V[]): V => simdOp(code, V128, operands);
export const v128 = (...bytes: number[]): V =>
  new V(V128, (out) => {
    simd(out, 12);
    for (const b of bytes) out.byte(b & 0xff);
  });
export const ZERO = v128(...(Array(16).fill(0) as number[]));
export const shuffle = (a: V, b: V, lanes: number[]): V => simdOp(13, V128, [a, b], lanes);
export const splat32 = (v: V): V => op(17, v);
export const splat64 = (v: V): V => op(18, v);
export const lane64 = (v: V, n: number): V => simdOp(29, I64, [v], [n]);
export const replace64 = (v: V, n: number, x: V): V => simdOp(30, V128, [v, x], [n]);

const MM = "no";
const XMM = "xyz";
/** Operand `i` is an mm register. */
export const isMm = (c: Context, i: number): boolean => MM.includes(c.operands[i].kind);
/** The instruction has an mm register among its operands. */
export const usesMm = (c: Context): boolean => c.operands.some((_, i) => isMm(c, i));

/** #UD or #NM if SSE may not run now. */
export function requireSse(c: Context): void {
  const block = c.load32(ENGINE.FPU_BLOCK);
  c.code.if(block.and(FpuBlock.SSE_UD | FpuBlock.SSE_NM), () => {
    c.code.if(block.and(FpuBlock.SSE_UD), () => c.raise(Vector.UD));
    c.raise(Vector.NM);
  });
}
/** Top of the x87 stack and the summary of pending exceptions in the status word. */
const TOP = 0x3800;
const PENDING = 0x80;
/** #UD, #NM, or #MF for an x87 exception that is pending, if MMX may not run now. */
export function requireMmx(c: Context): void {
  const block = c.load32(ENGINE.FPU_BLOCK);
  c.code.if(block.and(FpuBlock.MMX_UD | FpuBlock.SSE_NM), () => {
    c.code.if(block.and(FpuBlock.MMX_UD), () => c.raise(Vector.UD));
    c.raise(Vector.NM);
  });
  c.code.if(c.load32(REG.FSW).and(PENDING), () => c.code.if(c.helper("waits"), () => c.fault()));
}
/** To MMX mode: all tags valid, top of stack 0. Behind the last access that can fault, before mm registers are used. */
export function enterMmx(c: Context): void {
  c.code.if(c.load32(REG.FSW).and(TOP).or(c.load32(REG.FTW).and(0xffff)), () =>
    c.code.do(c.helper("enterMmx")),
  );
}
/** The checks of an instruction on mm or xmm registers. With a memory operand, `enterMmx` is up to its access. */
export function requireVector(c: Context): void {
  const mm = usesMm(c);
  const kinds = c.operands.map((o) => o.kind);
  if (!mm || kinds.some((kind) => XMM.includes(kind))) requireSse(c);
  if (!mm) return;
  requireMmx(c);
  if (!kinds.includes("m")) enterMmx(c);
}
/** Host address of a 16-byte operand that must be aligned. */
function alignedMemory(c: Context, access: number): Local {
  const host = c.memory(16, access | Access.ALIGNED);
  c.code.if(host.and(15), () => c.raise(Vector.GP, 0));
  return host;
}

/** An operand: its value, memory by its size and zero-extended, xmm registers whole; and where it is. */
export interface VectorSource {
  readonly value: Local;
  readonly address: V;
}
export function vectorSource(c: Context, i: number, aligned = true): VectorSource {
  const { kind, bits } = c.operands[i];
  if (kind !== "m") {
    const { address, offset } = c.operand(i);
    const value = isMm(c, i) ? replace64(ZERO, 0, address.load(LOAD.i64, offset)) : address.loadV128(offset);
    return { value: c.code.let(value), address: address.add(offset) };
  }
  const host = bits === 128 && aligned ? alignedMemory(c, 0) : c.memory(bits / 8, 0);
  if (usesMm(c)) enterMmx(c);
  if (bits === 128) return { value: c.code.let(host.loadV128()), address: host };
  const scalar = bits === 64 ? host.load(LOAD.i64) : loadBits(bits, host).u64();
  return { value: c.code.let(replace64(ZERO, 0, scalar)), address: host };
}
export function readVector(c: Context, i: number, aligned = true): Local {
  return vectorSource(c, i, aligned).value;
}
export function writeVector(c: Context, i: number, value: V, aligned = true): void {
  if (isMm(c, i)) return writeMm(c, i, lane64(value, 0));
  if (c.operands[i].kind !== "m") {
    const { address, offset } = c.operand(i);
    c.code.storeV128(address, value, offset);
    return;
  }
  const host = aligned ? alignedMemory(c, Access.WRITE) : c.memory(16, Access.WRITE);
  c.code.storeV128(host, value);
  c.commit(host);
}
/** Writes an mm register; sign and exponent of the x87 register become ones. */
export function writeMm(c: Context, i: number, value: V): void {
  const { address, offset } = c.operand(i);
  c.code.store(STORE.i64, address, value, offset);
  c.code.store(STORE.i32_16, address, i32(0xffff), offset + 8);
}
/** The low bits of a value to an xmm register, whose rest stays. */
export function writeScalar(c: Context, i: number, bits: 32 | 64, value: V): void {
  const { address, offset } = c.operand(i);
  const low = lane64(value, 0);
  if (bits === 64) c.code.store(STORE.i64, address, low, offset);
  else c.code.store(STORE.i32, address, low.wrap(), offset);
}
