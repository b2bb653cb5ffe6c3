/** MMX and SSE to SSE4.1 integer and logic instructions, as wasm SIMD. SDM vol. 2. */
import { type Context, type Emitter, loadBits, type Semantics } from "../emit/context.js";
import { Access } from "../layout.js";
import { I32, V128 } from "../wasm/encoder.js";
import { i32, i64, LOAD, type Local, select, simdOp, STORE, type V } from "../wasm/expr.js";
import {
  enterMmx,
  isMm,
  lane64,
  op,
  readVector,
  replace64,
  requireSse,
  requireVector,
  shuffle,
  splat32,
  splat64,
  usesMm,
  v128,
  writeMm,
  writeVector,
  ZERO,
} from "./vector-operand.js";

const IOTA = v128(...Array.from({ length: 16 }, (_, i) => i));
const swizzle = (a: V, indexes: V): V => op(14, a, indexes);
const splat8 = (v: V): V => op(15, v);
const splat16 = (v: V): V => op(16, v);
const replace32 = (v: V, n: number, x: V): V => simdOp(28, V128, [v, x], [n]);
const bitselect = (yes: V, no: V, mask: V): V => op(0x52, yes, no, mask);
const anyTrue = (v: V): V => simdOp(0x53, I32, [v]);
const not = (v: V): V => op(0x4d, v);

type Compute = (a: V, b: V, c: Context) => V;
/** @param mm the same for the low halves alone, where that is not simply the low half of the result */
const binary =
  (compute: Compute, mm = compute): Emitter =>
  (c) => {
    requireVector(c);
    const b = readVector(c, 1);
    const a = readVector(c, 0);
    writeVector(c, 0, (usesMm(c) ? mm : compute)(a, b, c));
  };
/** The low halves of two values as one. */
const join = (low: V, high: V, c: Context): Local =>
  c.code.let(shuffle(low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]));
/** Operation of one wasm instruction on (destination, source). */
const direct = (code: number): Emitter => binary((a, b) => op(code, a, b));
const unary =
  (compute: (b: V, c: Context) => V): Emitter =>
  (c) => {
    requireVector(c);
    writeVector(c, 0, compute(readVector(c, 1), c));
  };
function interleavedLanes(bytes: number, high: boolean): number[] {
  const lanes: number[] = [];
  for (let i = 0; i < 8 / bytes; i++) {
    for (const side of [0, 16]) {
      for (let k = 0; k < bytes; k++) lanes.push(side + (high ? 8 : 0) + i * bytes + k);
    }
  }
  return lanes;
}
/** Interleaves the lanes of the low or high halves. */
const interleave = (bytes: number, high: boolean): Emitter => {
  const lanes = interleavedLanes(bytes, high);
  // Of mm registers, the interleaved low halves have the result's low and high part.
  const low = interleavedLanes(bytes, false).slice(high ? 8 : 0);
  const half = [...low.slice(0, 8), ...low.slice(0, 8)];
  return binary(
    (a, b) => shuffle(a, b, lanes),
    (a, b) => shuffle(a, b, half),
  );
};
/** Even or odd lanes of both operands, for horizontal operations. */
const gather = (bytes: number, odd: number, a: V, b: V): V => {
  const lanes: number[] = [];
  for (let i = 0; i < 16 / bytes; i++) for (let k = 0; k < bytes; k++) lanes.push((2 * i + odd) * bytes + k);
  return shuffle(a, b, lanes);
};
const horizontal = (bytes: number, code: number): Emitter =>
  binary(
    (a, b) => op(code, gather(bytes, 0, a, b), gather(bytes, 1, a, b)),
    (a, b, c) => {
      const both = join(a, b, c);
      return op(code, gather(bytes, 0, both, both), gather(bytes, 1, both, both));
    },
  );
/** Narrows the lanes of both operands. */
const pack = (code: number): Emitter =>
  binary(
    (a, b) => op(code, a, b),
    (a, b, c) => {
      const both = join(a, b, c);
      return op(code, both, both);
    },
  );
/** Bytes `at`, `at`+1 of each 32-bit lane of two vectors. */
const halves = (low: V, high: V, at: number): V =>
  shuffle(
    low,
    high,
    Array.from({ length: 16 }, (_, i) => (i >> 1) * 4 + at + (i & 1)),
  );
const highProduct = (low: number, high: number): Emitter =>
  binary((a, b) => halves(op(low, a, b), op(high, a, b), 2));
const sign = (negate: number, shift: number, equal: number, bits: number): Emitter =>
  binary((a, b, c) => {
    const negative = c.code.let(op(shift, b, i32(bits - 1)));
    const subtract = { 8: 0x71, 16: 0x91, 32: 0xb1 }[bits]!;
    void negate;
    return op(0x4f, op(subtract, op(0x51, a, negative), negative), op(equal, b, ZERO));
  });

/** Shifts of all lanes by one count; counts beyond the lane clear it, or fill it with the sign. */
function shiftLanes(c: Context, code: number, bits: number, arithmetic: boolean, value: V, count: V): V {
  const n = c.code.let(count);
  const most = i64(bits - 1);
  const small = c.code.let(select(n.gt_u(bits - 1), most, n).wrap());
  const shifted = op(code, value, small);
  return arithmetic ? shifted : select(n.gt_u(bits - 1), ZERO, shifted);
}
const shift = (code: number, bits: number, arithmetic = false): Emitter =>
  binary((a, b, c) => shiftLanes(c, code, bits, arithmetic, a, lane64(b, 0)));
const shiftImmediate =
  (code: number, bits: number, arithmetic = false): Emitter =>
  (c) => {
    requireVector(c);
    const count = c.read(1, 8).u64();
    writeVector(c, 0, shiftLanes(c, code, bits, arithmetic, readVector(c, 0), count));
  };
/** Moves bytes up or down by a count of at most 16. */
const shiftBytes =
  (left: boolean): Emitter =>
  (c) => {
    requireSse(c);
    const n = c.code.let(c.read(1, 8));
    const count = splat8(select(n.gt_u(15), i32(16), n));
    writeVector(c, 0, swizzle(readVector(c, 0), op(left ? 0x71 : 0x6e, IOTA, count)));
  };
/** The immediate behind two operands. */
const imm = (c: Context): Local => c.code.let(c.immediate().wrap().and(0xff));
/** Byte indexes of four 32-bit lanes chosen by the four two-bit fields of the immediate. */
function dwordIndexes(c: Context, control: V): V {
  let v: V = ZERO;
  for (let k = 0; k < 4; k++) {
    v = replace32(
      v,
      k,
      control
        .shr_u(2 * k)
        .and(3)
        .mul(0x04040404)
        .add(0x03020100),
    );
  }
  return c.code.let(v);
}
/** Byte indexes that permute the words of one half. */
function wordIndexes(control: V, high: boolean): V {
  let v: V = IOTA;
  for (let k = 0; k < 2; k++) {
    const field = (n: number) =>
      control
        .shr_u(2 * n)
        .and(3)
        .mul(0x0202);
    const base = high ? 0x0908 : 0x0100;
    const pair = field(2 * k)
      .add(base)
      .or(
        field(2 * k + 1)
          .add(base)
          .shl(16),
      );
    v = replace32(v, (high ? 2 : 0) + k, pair);
  }
  return v;
}
const withImmediate =
  (compute: (a: V, b: V, control: Local, c: Context) => V): Emitter =>
  (c) => {
    requireVector(c);
    const b = readVector(c, 1);
    const control = imm(c);
    writeVector(c, 0, compute(readVector(c, 0), b, control, c));
  };
/** Lanes of `b` where the immediate's bits are set. */
const blend = (bytes: number): Emitter => {
  const bits: number[] = [];
  for (let i = 0; i < 16 / bytes; i++) {
    const bit = 1 << i;
    for (let k = 0; k < bytes; k++) bits.push(k === 0 ? bit : 0);
  }
  const splat = { 2: splat16, 4: splat32, 8: (v: V) => splat64(v.u64()) }[bytes]!;
  const equal = { 2: 0x2d, 4: 0x37, 8: 0xd6 }[bytes]!;
  const constant = v128(...bits);
  return withImmediate((a, b, control) =>
    bitselect(b, a, op(equal, op(0x4e, splat(control), constant), constant)),
  );
};
/** Lanes of the source where xmm0's lanes have their top bit. */
const blendVariable = (code: number, bits: number): Emitter =>
  binary((a, b, c) => {
    const { address, offset } = c.field(768);
    return bitselect(b, a, op(code, address.loadV128(offset), i32(bits - 1)));
  });
const extend = (...codes: number[]): Emitter => unary((b) => codes.reduce((v, code) => op(code, v), b));

const move =
  (aligned: boolean): Emitter =>
  (c) => {
    requireSse(c);
    writeVector(c, 0, readVector(c, 1, aligned), aligned);
  };
/** A scalar move: a register keeps its upper part, a load clears it. */
const moveScalar =
  (bits: 32 | 64): Emitter =>
  (c) => {
    requireSse(c);
    const destination = c.operands[0].kind;
    const source = c.operands[1].kind;
    if (destination === "m") {
      const { address, offset } = c.operand(1);
      const value = c.code.let(loadBits(bits, address, offset));
      const host = c.memory(bits / 8, Access.WRITE);
      c.storeMemory(host, bits, value);
    } else if (source === "m") writeVector(c, 0, readVector(c, 1));
    else {
      const from = c.operand(1);
      const to = c.operand(0);
      const value = c.code.let(loadBits(bits, from.address, from.offset));
      c.code.store(bits === 64 ? STORE.i64 : STORE.i32, to.address, value, to.offset);
    }
  };
/** Moves of 64-bit halves: from half `from` (or memory) to half `to`, the rest stays. */
const moveHalf =
  (from: number, to: number): Emitter =>
  (c) => {
    requireSse(c);
    if (c.operands[0].kind === "m") {
      const { address, offset } = c.operand(1);
      const value = c.code.let(address.load(LOAD.i64, offset + to * 8));
      c.storeMemory(c.memory(8, Access.WRITE), 64, value);
      return;
    }
    const source = c.operands[1].kind === "m" ? undefined : c.operand(1);
    const value = c.code.let(
      source ? source.address.load(LOAD.i64, source.offset + from * 8) : c.memory(8, 0).load(LOAD.i64),
    );
    const { address, offset } = c.operand(0);
    c.code.store(STORE.i64, address, value, offset + to * 8);
  };
/** MOVD, MOVQ between general registers or memory and mm or xmm. */
const movd: Emitter = (c) => {
  requireVector(c);
  const { kind, bits } = c.operands[0];
  if (kind === "x" || kind === "n") {
    const value = c.read(1).u64();
    if (kind === "x") writeVector(c, 0, replace64(ZERO, 0, value));
    else {
      if (c.operands[1].kind === "m") enterMmx(c);
      writeMm(c, 0, value);
    }
  } else if (kind === "m") storeLow(c, bits as 32 | 64);
  else {
    const { address, offset } = c.operand(1);
    c.write(0, c.code.let(loadBits(bits, address, offset)), bits);
  }
};
/** Stores the low bits of vector register operand 1. */
function storeLow(c: Context, bits: 32 | 64): void {
  const host = c.memory(bits / 8, Access.WRITE);
  if (usesMm(c)) enterMmx(c);
  const { address, offset } = c.operand(1);
  c.storeMemory(host, bits, loadBits(bits, address, offset));
}
const movq: Emitter = (c) => {
  requireVector(c);
  if (c.operands[0].kind === "m") {
    storeLow(c, 64);
    return;
  }
  if (isMm(c, 0)) {
    writeVector(c, 0, readVector(c, 1));
    return;
  }
  const from = c.operands[1].kind === "m" ? undefined : c.operand(1);
  const value = c.code.let(from ? from.address.load(LOAD.i64, from.offset) : c.memory(8, 0).load(LOAD.i64));
  writeVector(c, 0, replace64(ZERO, 0, value));
};
/** Address of a lane of a register operand. */
function laneAddress(c: Context, i: number, bytes: number): { address: V; offset: number } {
  const { address, offset } = c.operand(i);
  return {
    address: address.add(
      imm(c)
        .and((isMm(c, i) ? 8 : 16) / bytes - 1)
        .mul(bytes),
    ),
    offset,
  };
}
const insert =
  (bits: 8 | 16 | 0): Emitter =>
  (c) => {
    requireVector(c);
    const width = bits || (c.operands[1].bits as 32 | 64);
    const value = c.read(1, width);
    if (isMm(c, 0)) {
      if (c.operands[1].kind === "m") enterMmx(c);
      const whole = c.operand(0);
      c.code.store(STORE.i32_16, whole.address, i32(0xffff), whole.offset + 8);
    }
    const { address, offset } = laneAddress(c, 0, width / 8);
    const opcode = { 8: STORE.i32_8, 16: STORE.i32_16, 32: STORE.i32, 64: STORE.i64 }[width];
    c.code.store(opcode, address, value, offset);
  };
const extract =
  (bits: 8 | 16 | 0): Emitter =>
  (c) => {
    requireVector(c);
    const width = bits || c.bits;
    const { address, offset } = laneAddress(c, 1, width / 8);
    const value = c.code.let(loadBits(width, address, offset));
    c.write(0, value, c.operands[0].kind === "m" ? width : Math.max(32, width));
  };
const mask =
  (code: number): Emitter =>
  (c) => {
    requireVector(c);
    c.write(0, simdOp(code, I32, [readVector(c, 1)]), 32);
  };
const wide32 = (v: V): V => op(0x4e, v, v128(-1, -1, -1, -1, 0, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0));
const signed32 = (v: V): V => op(0xcc, op(0xcb, v, i32(32)), i32(32));

export const vectorInteger: Semantics = {
  punpcklbw: interleave(1, false),
  punpcklwd: interleave(2, false),
  punpckldq: interleave(4, false),
  punpcklqdq: interleave(8, false),
  punpckhbw: interleave(1, true),
  punpckhwd: interleave(2, true),
  punpckhdq: interleave(4, true),
  punpckhqdq: interleave(8, true),
  unpcklps: interleave(4, false),
  unpckhps: interleave(4, true),
  packsswb: pack(0x65),
  packuswb: pack(0x66),
  packssdw: pack(0x85),
  packusdw: pack(0x86),
  pcmpeqb: direct(0x23),
  pcmpeqw: direct(0x2d),
  pcmpeqd: direct(0x37),
  pcmpeqq: direct(0xd6),
  pcmpgtb: direct(0x27),
  pcmpgtw: direct(0x31),
  pcmpgtd: direct(0x3b),
  pcmpgtq: direct(0xd9),
  pand: direct(0x4e),
  pandn: binary((a, b) => op(0x4f, b, a)),
  por: direct(0x50),
  pxor: direct(0x51),
  andps: direct(0x4e),
  andnps: binary((a, b) => op(0x4f, b, a)),
  orps: direct(0x50),
  xorps: direct(0x51),
  paddb: direct(0x6e),
  paddw: direct(0x8e),
  paddd: direct(0xae),
  paddq: direct(0xce),
  psubb: direct(0x71),
  psubw: direct(0x91),
  psubd: direct(0xb1),
  psubq: direct(0xd1),
  paddsb: direct(0x6f),
  paddsw: direct(0x8f),
  paddusb: direct(0x70),
  paddusw: direct(0x90),
  psubsb: direct(0x72),
  psubsw: direct(0x92),
  psubusb: direct(0x73),
  psubusw: direct(0x93),
  pminub: direct(0x77),
  pmaxub: direct(0x79),
  pminsb: direct(0x76),
  pmaxsb: direct(0x78),
  pminsw: direct(0x96),
  pmaxsw: direct(0x98),
  pminuw: direct(0x97),
  pmaxuw: direct(0x99),
  pminsd: direct(0xb6),
  pmaxsd: direct(0xb8),
  pminud: direct(0xb7),
  pmaxud: direct(0xb9),
  pavgb: direct(0x7b),
  pavgw: direct(0x9b),
  pmullw: direct(0x95),
  pmulld: direct(0xb5),
  pmulhw: highProduct(0xbc, 0xbd),
  pmulhuw: highProduct(0xbe, 0xbf),
  pmulhrsw: binary((a, b) => {
    const round = (v: V) => op(0xad, op(0xae, op(0xad, v, i32(14)), splat32(i32(1))), i32(1));
    return halves(round(op(0xbc, a, b)), round(op(0xbd, a, b)), 0);
  }),
  pmaddwd: direct(0xba),
  pmaddubsw: binary((a, b) => {
    const even = op(0x95, op(0x4e, a, splat16(i32(0xff))), op(0x8c, op(0x8b, b, i32(8)), i32(8)));
    const odd = op(0x95, op(0x8d, a, i32(8)), op(0x8c, b, i32(8)));
    return op(0x8f, even, odd);
  }),
  pmuludq: binary((a, b) => op(0xd5, wide32(a), wide32(b))),
  pmuldq: binary((a, b) => op(0xd5, signed32(a), signed32(b))),
  psadbw: binary((a, b, c) => {
    const difference = op(0x71, op(0x79, a, b), op(0x77, a, b));
    const sums = c.code.let(op(0x7f, op(0x7d, difference)));
    return wide32(op(0xae, sums, op(0xcd, sums, i32(32))));
  }),
  pabsb: unary((b) => op(0x60, b)),
  pabsw: unary((b) => op(0x80, b)),
  pabsd: unary((b) => op(0xa0, b)),
  psignb: sign(0x61, 0x6c, 0x23, 8),
  psignw: sign(0x81, 0x8c, 0x2d, 16),
  psignd: sign(0xa1, 0xac, 0x37, 32),
  phaddw: horizontal(2, 0x8e),
  phaddd: horizontal(4, 0xae),
  phaddsw: horizontal(2, 0x8f),
  phsubw: horizontal(2, 0x91),
  phsubd: horizontal(4, 0xb1),
  phsubsw: horizontal(2, 0x92),
  // Bit 7 of an index clears the byte; wasm clears for any index above 15.
  pshufb: binary(
    (a, b) => swizzle(a, op(0x4e, b, splat8(i32(0x8f)))),
    (a, b) => swizzle(a, op(0x4e, b, splat8(i32(0x87)))),
  ),
  psllw: shift(0x8b, 16),
  pslld: shift(0xab, 32),
  psllq: shift(0xcb, 64),
  psrlw: shift(0x8d, 16),
  psrld: shift(0xad, 32),
  psrlq: shift(0xcd, 64),
  psraw: shift(0x8c, 16, true),
  psrad: shift(0xac, 32, true),
  psllwi: shiftImmediate(0x8b, 16),
  pslldi: shiftImmediate(0xab, 32),
  psllqi: shiftImmediate(0xcb, 64),
  psrlwi: shiftImmediate(0x8d, 16),
  psrldi: shiftImmediate(0xad, 32),
  psrlqi: shiftImmediate(0xcd, 64),
  psrawi: shiftImmediate(0x8c, 16, true),
  psradi: shiftImmediate(0xac, 32, true),
  psrldq: shiftBytes(false),
  pslldq: shiftBytes(true),
  palignr: withImmediate((a, b, control, c) => {
    const n = c.code.let(select(control.gt_u(32), i32(32), control));
    const indexes = c.code.let(op(0x6e, IOTA, splat8(n)));
    if (usesMm(c)) return swizzle(join(b, a, c), indexes);
    return op(0x50, swizzle(b, indexes), swizzle(a, op(0x71, indexes, splat8(i32(16)))));
  }),
  pshufd: withImmediate((_a, b, control, c) => swizzle(b, dwordIndexes(c, control))),
  pshufw: withImmediate((_a, b, control) => swizzle(b, wordIndexes(control, false))),
  pshuflw: withImmediate((_a, b, control) => swizzle(b, wordIndexes(control, false))),
  pshufhw: withImmediate((_a, b, control) => swizzle(b, wordIndexes(control, true))),
  shufps: withImmediate((a, b, control, c) => {
    const indexes = dwordIndexes(c, control);
    return shuffle(
      swizzle(a, indexes),
      swizzle(b, indexes),
      [0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31],
    );
  }),
  shufpd: withImmediate((a, b, control) => {
    const low = select(control.and(1), lane64(a, 1), lane64(a, 0));
    const high = select(control.and(2), lane64(b, 1), lane64(b, 0));
    return replace64(splat64(low), 1, high);
  }),
  pblendw: blend(2),
  blendps: blend(4),
  blendpd: blend(8),
  pblendvb: blendVariable(0x6c, 8),
  blendvps: blendVariable(0xac, 32),
  blendvpd: blendVariable(0xcc, 64),
  pmovsxbw: extend(0x87),
  pmovsxbd: extend(0x87, 0xa7),
  pmovsxbq: extend(0x87, 0xa7, 0xc7),
  pmovsxwd: extend(0xa7),
  pmovsxwq: extend(0xa7, 0xc7),
  pmovsxdq: extend(0xc7),
  pmovzxbw: extend(0x89),
  pmovzxbd: extend(0x89, 0xa9),
  pmovzxbq: extend(0x89, 0xa9, 0xc9),
  pmovzxwd: extend(0xa9),
  pmovzxwq: extend(0xa9, 0xc9),
  pmovzxdq: extend(0xc9),
  ptest: (c) => {
    requireSse(c);
    const b = readVector(c, 1);
    const a = readVector(c, 0);
    const cf = c.code.let(anyTrue(op(0x4f, b, a)).eqz());
    c.code.set(c.flagC, cf.u64().shl(63).or(cf.u64().shl(62)));
    c.code.set(c.flagS, 1);
    c.code.set(c.flagZ, anyTrue(op(0x4e, a, b)).u64());
  },
  movups: move(false),
  movdqu: move(false),
  movaps: move(true),
  movdqa: move(true),
  movss: moveScalar(32),
  movsd: moveScalar(64),
  movlps: moveHalf(0, 0),
  movhps: moveHalf(0, 1),
  movhlps: moveHalf(1, 0),
  movlhps: moveHalf(0, 1),
  movsldup: unary((b) => shuffle(b, b, [0, 1, 2, 3, 0, 1, 2, 3, 8, 9, 10, 11, 8, 9, 10, 11])),
  movshdup: unary((b) => shuffle(b, b, [4, 5, 6, 7, 4, 5, 6, 7, 12, 13, 14, 15, 12, 13, 14, 15])),
  movddup: unary((b) => splat64(lane64(b, 0))),
  movd,
  movq,
  movntq: movq,
  movq2dq: (c) => {
    requireVector(c);
    writeVector(c, 0, readVector(c, 1));
  },
  movdq2q: (c) => {
    requireVector(c);
    writeVector(c, 0, readVector(c, 1));
  },
  movmskps: mask(0xa4),
  movmskpd: mask(0xc4),
  pmovmskb: mask(0x64),
  pinsrb: insert(8),
  pinsrw: insert(16),
  pinsrd: insert(0),
  pextrb: extract(8),
  pextrw: extract(16),
  pextrd: extract(0),
  extractps: extract(0),
  insertps: (c) => {
    requireSse(c);
    const control = imm(c);
    let value: V;
    if (c.operands[1].kind === "m") value = c.read(1, 32);
    else {
      const { address, offset } = c.operand(1);
      value = c.code.let(address.add(control.shr_u(6).mul(4)).load(LOAD.i32, offset));
    }
    const { address, offset } = c.operand(0);
    c.code.store(STORE.i32, address.add(control.shr_u(4).and(3).mul(4)), value, offset);
    const bits = v128(1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0);
    const clear = op(0x37, op(0x4e, splat32(control), bits), bits);
    writeVector(c, 0, op(0x4e, readVector(c, 0), not(clear)));
  },
};
