/** Moves: MOV, MOVZX, MOVSX, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, CBW/CWD families, LAHF, SAHF, XLAT. SDM vol. 2. */
import type { Context, Emitter, Semantics } from "../emit/context.js";
import { REG } from "../register-file.js";
import { i32, type V } from "../wasm/expr.js";

const CONDITIONS = "o no b nb z nz be nbe s ns p np l nl le nle".split(" ");

/** Reverses the bytes of a value. */
export function byteSwap(bits: number, value: V, c: Context): V {
  if (bits === 16) return value.shl(8).or(value.shr_u(8)).and(0xffff);
  if (bits === 32) {
    const v = c.code.let(value);
    return v.rotl(8).and(0x00ff00ff).or(v.rotr(8).and(-0xff0100));
  }
  const v = c.code.let(value);
  const pairs = c.code.let(v.and(0x00ff00ff00ff00ffn).shl(8).or(v.shr_u(8).and(0x00ff00ff00ff00ffn)));
  const words = c.code.let(
    pairs.and(0x0000ffff0000ffffn).shl(16).or(pairs.shr_u(16).and(0x0000ffff0000ffffn)),
  );
  return words.rotl(32);
}

/** A narrower source, extended to the destination's size. */
const extend =
  (signed: boolean): Emitter =>
  (c) => {
    const from = c.operands[1].bits;
    const v = c.read(1);
    if (!signed) return c.write(0, c.bits === 64 ? v.u64() : v);
    const s = from === 64 ? v : c.signExtend(from, v);
    c.write(0, c.bits === 64 ? s.s64() : s.wrap());
  };

export const move: Semantics = {
  mov: (c) => c.write(0, c.read(1, c.bits)),
  movnti: (c) => c.write(0, c.read(1)),
  movdiri: (c) => c.write(0, c.read(1)),
  movzx: extend(false),
  movsx: extend(true),
  movsxd: extend(true),
  lea: (c) => {
    const ea = c.effectiveAddress();
    c.write(0, c.bits === 64 ? ea : ea.wrap());
  },
  xchg: (c) => {
    const b = c.read(1);
    let old: V | undefined;
    c.modify(0, (a) => {
      old = a;
      return b;
    });
    c.write(1, old!);
  },
  // 90+r: the other operand is the accumulator, and with it the instruction is NOP.
  xchgz: (c) => {
    const a = c.read(0);
    const b = c.code.let(c.gpr(0, c.bits));
    const { address, offset } = c.operand(0);
    const accumulator = c.field(0);
    c.code.if(address.add(offset).ne(accumulator.address.add(accumulator.offset)), () => {
      c.setGpr(0, a, c.bits);
      c.write(0, b);
    });
  },
  bswap: (c) => c.write(0, c.bits === 16 ? i32(0) : byteSwap(c.bits, c.read(0), c)),
  movbe: (c) => c.write(0, byteSwap(c.bits, c.read(1), c)),
  cbw: (c) => {
    if (c.bits === 16) c.setGpr(0, c.gpr(0, 8).extend8(), 16);
    else if (c.bits === 32) c.setGpr(0, c.gpr(0, 16).extend16(), 32);
    else c.setGpr(0, c.gpr(0).extend32());
  },
  cwd: (c) => {
    if (c.bits === 16) c.setGpr(2, c.gpr(0, 16).extend16().shr_s(31), 16);
    else c.setGpr(2, c.gpr(0, c.bits).shr_s(c.bits - 1), c.bits);
  },
  sahf: (c) => c.setFlags(c.gpr(0, 32).shr_u(8).and(0xd5).or(c.of().shl(11))),
  lahf: (c) => {
    const { address, offset } = c.field(1);
    c.code.store(0x3a, address, c.getFlags().and(0xd5).or(2), offset);
  },
  salc: (c) => c.setGpr(0, i32(0).sub(c.cf()), 8),
  clc: (c) => c.setCarry(i32(0)),
  stc: (c) => c.setCarry(i32(1)),
  cld: (c) => c.store32(REG.RFLAGS, c.load32(REG.RFLAGS).and(~0x400)),
  std: (c) => c.store32(REG.RFLAGS, c.load32(REG.RFLAGS).or(0x400)),
  cmc: (c) => c.setCarry(c.code.let(c.cf().xor(1))),
  nop: () => {},
  endbr: () => {},
  lfence: () => {},
  mfence: () => {},
  sfence: () => {},
};
CONDITIONS.forEach((name, n) => {
  move[`set${name}`] = (c) => c.write(0, c.condition(n), 8);
  move[`cmov${name}`] = (c) => {
    // The load happens, and may fault, whatever the condition; a 32-bit destination is zero-extended always.
    const b = c.read(1);
    c.write(0, c.choose(c.condition(n), b, c.read(0)));
  };
});
export { CONDITIONS };
