/**
 * SSE floating-point instructions. WebAssembly's arithmetic is IEEE 754 with rounding to nearest and no flags, so it
 * serves where that is all there is to see: operands and results that are ordinary numbers, and either MXCSR rounds to
 * nearest with PE masked and already set, or the result is seen to be exact. Everything else is computed by
 * system/vector-float.ts. SDM vol. 1 ch. 10 and 11, vol. 2.
 */
import { type Context, type Emitter, type Semantics } from "../emit/context.js";
import { ENGINE } from "../layout.js";
import { REG } from "../register-file.js";
import { floatNumber } from "../system/vector-float.js";
import { I32, I64 } from "../wasm/encoder.js";
import { i32, i64, type Local, select, simdOp, type V } from "../wasm/expr.js";
import {
  ADD,
  all,
  and,
  type Arithmetic,
  demote,
  DIV,
  equals,
  F32,
  F64,
  finalHelper,
  INEXACT_FIELDS,
  INEXACT_UNNOTICED,
  isZero,
  type LaneFormat,
  MUL,
  or,
  plain,
  plainHelper,
  promote,
  ROUNDING,
  SQRT,
  xor,
} from "./float-lanes.js";
import {
  lane64,
  op,
  replace64,
  requireVector,
  shuffle,
  splat32,
  splat64,
  type VectorSource,
  vectorSource,
  writeScalar,
  writeVector,
  ZERO,
} from "./vector-operand.js";

/** Replaces the result by the exact computation's if it is not `good` (i32). */
function otherwise(
  c: Context,
  good: V,
  result: Local,
  name: string,
  a: VectorSource,
  b: VectorSource,
  control: V,
): void {
  c.code.if(good.eqz(), () => {
    c.code.if(c.helper("float", i32(floatNumber(name)), a.address, b.address, control), () => c.fault());
    c.code.set(result, temporary(c));
  });
}
function temporary(c: Context): V {
  const { address, offset } = c.field(ENGINE.TEMP);
  return address.loadV128(offset);
}
/** The same for results that may be inexact. @param exact i32: seen to be exact; computed only if PE matters */
function otherwiseInexact(
  c: Context,
  good: V,
  exact: () => V,
  ...rest: [Local, string, VectorSource, VectorSource, V]
): void {
  const ok = c.code.let(good);
  c.code.if(ok.eqz().eqz(), () => {
    c.code.if(c.load32(REG.MXCSR).and(INEXACT_FIELDS).ne(INEXACT_UNNOTICED), () =>
      c.code.set(ok, c.load32(REG.MXCSR).and(ROUNDING).eqz().and(exact())),
    );
  });
  otherwise(c, ok, ...rest);
}
function write(c: Context, f: LaneFormat, lanes: number, value: V): void {
  if (lanes === 1) writeScalar(c, 0, f.bits, value);
  else writeVector(c, 0, value);
}

/** i32: the lanes that count are all among `bits`. */
const enough = (lanes: number, bits: V) => bits.and((1 << lanes) - 1).eq((1 << lanes) - 1);
type Prepare = (a: V, b: V) => [V, V];
const arithmetic =
  (name: string, f: LaneFormat, lanes: number, how: Arithmetic, prepare?: Prepare): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    const first = how === SQRT ? b.value : a.value;
    const [x, y] = prepare ? prepare(first, b.value).map((v) => c.code.let(v)) : [first, b.value];
    const r = c.code.let(how.compute(f, x, y));
    otherwise(c, enough(lanes, c.helper(finalHelper(f, how), x, y, r)), r, name, a, b, i32(0));
    write(c, f, lanes, r);
  };
/** Even and odd lanes of both operands. */
const neighbours =
  (f: LaneFormat): Prepare =>
  (a, b) => {
    const bytes = f.bits / 8;
    const lanes = (odd: number) =>
      Array.from({ length: 16 }, (_, i) => (Math.floor(i / bytes) * 2 + odd) * bytes + (i % bytes));
    return [shuffle(a, b, lanes(0)), shuffle(a, b, lanes(1))];
  };
const opposite =
  (f: LaneFormat): Prepare =>
  (a, b) => {
    const [even, odd] = neighbours(f)(a, b);
    return [even, xor(odd, f.sign)];
  };

/** MIN and MAX: exact, so only NaNs and denormals are different. */
const extreme =
  (name: string, f: LaneFormat, lanes: number, code: number): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    // wasm's pmin(x, y) is y < x ? y : x, and SSE's is a < b ? a : b.
    const r = c.code.let(op(code, b.value, a.value));
    const good = enough(lanes, c.helper(plainHelper(f), a.value, b.value));
    otherwise(c, good, r, name, a, b, i32(0));
    write(c, f, lanes, r);
  };
const byte = (c: Context) => c.code.let(c.immediate().wrap().and(0xff));
const comparison =
  (name: string, f: LaneFormat, lanes: number): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    const control = byte(c);
    const predicate = c.code.let(control.and(3));
    // Of ordered operands: equal for 0 and 2, less for 1 and 2, nothing for 3; from 4 on the opposite.
    const when = (condition: V) => splat32(i32(0).sub(condition));
    const r = c.code.let(
      xor(
        or(
          and(op(f.eq, a.value, b.value), when(predicate.and(1).eqz())),
          and(op(f.lt, a.value, b.value), when(predicate.sub(1).lt_u(2))),
        ),
        when(control.shr_u(2).and(1)),
      ),
    );
    const good = enough(lanes, c.helper(plainHelper(f), a.value, b.value));
    otherwise(c, good, r, name, a, b, control);
    write(c, f, lanes, r);
  };
/** COMIS and UCOMIS. */
const flags =
  (name: string, f: LaneFormat): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    const bit = (mask: V) => simdOp(f.bitmask, I32, [mask]).and(1);
    const result = c.code.let(bit(op(f.lt, a.value, b.value)).or(bit(op(f.eq, a.value, b.value)).shl(6)));
    const good = enough(1, c.helper(plainHelper(f), a.value, b.value));
    c.code.if(good.eqz(), () => {
      c.code.if(c.helper("float", i32(floatNumber(name)), a.address, b.address, i32(0)), () => c.fault());
      c.code.set(result, c.load32(ENGINE.TEMP));
    });
    c.setFlags(result);
  };
/** Always computed exactly. */
const exactly =
  (name: string, f: LaneFormat, lanes: number, immediate: boolean): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    const control = immediate ? byte(c) : i32(0);
    c.code.if(c.helper("float", i32(floatNumber(name)), a.address, b.address, control), () => c.fault());
    write(c, f, lanes, temporary(c));
  };

/** ROUNDxx. */
const integral =
  (name: string, f: LaneFormat, lanes: number): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const a = vectorSource(c, 0);
    const control = byte(c);
    const mode = c.code.let(select(control.and(4), c.load32(REG.MXCSR).shr_u(13), control).and(3));
    const [nearest, down, up, zero] = f.rounding;
    const r = c.code.let(op(nearest, b.value));
    c.code.if(mode, () => {
      c.code.set(r, op(zero, b.value));
      c.code.if(mode.eq(1), () => c.code.set(r, op(down, b.value)));
      c.code.if(mode.eq(2), () => c.code.set(r, op(up, b.value)));
    });
    const quiet = control.and(8).or(
      c
        .load32(REG.MXCSR)
        .and(INEXACT_FIELDS & ~ROUNDING)
        .eq(INEXACT_UNNOTICED),
    );
    const good = c.code.let(all(f, lanes, plain(f, b.value)));
    c.code.if(good.and(quiet.eqz()), () => c.code.set(good, all(f, lanes, op(f.eq, r, b.value))));
    otherwise(c, good, r, name, a, b, control);
    write(c, f, lanes, r);
  };

// --- conversions

const [TRUNC32, CONVERT32, TRUNC64, CONVERT64] = [0xf8, 0xfa, 0xfc, 0xfe];
/** Single to double: exact. */
const widen =
  (name: string, lanes: number): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const r = c.code.let(promote(b.value));
    otherwise(c, all(F32, lanes, plain(F32, b.value)), r, name, b, b, i32(0));
    write(c, F64, lanes, r);
  };
/** Double to single. */
const narrow =
  (name: string, lanes: number): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const r = c.code.let(demote(b.value));
    const wide = c.code.let(promote(r));
    // The result as a double, so that all masks have double-precision lanes.
    const magnitude = c.code.let(op(F64.abs, wide));
    const least = splat64(i64(0x3810000000000000n));
    const inRange = and(op(F64.gt, magnitude, least), op(F64.le, magnitude, F64.greatest));
    const good = all(F64, lanes, or(inRange, isZero(F64, b.value)));
    const exact = () => all(F64, lanes, equals(wide, b.value));
    otherwiseInexact(c, good, exact, r, name, b, b, i32(0));
    if (lanes === 1) writeScalar(c, 0, 32, r);
    else writeVector(c, 0, r);
  };
/** 32-bit integers to single. */
const integersToSingle =
  (name: string, half: boolean): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const r = c.code.let(op(CONVERT32, b.value));
    const exact = () => {
      // Up to 24 bits.
      const magnitude = op(0xa0, b.value);
      return all(F32, half ? 2 : 4, op(0x3e, magnitude, splat32(i32(1 << 24))));
    };
    otherwiseInexact(c, i32(1), exact, r, name, b, b, i32(0));
    if (half) writeScalar(c, 0, 64, r);
    else writeVector(c, 0, r);
  };
/** 32-bit integers to double: exact. */
const integersToDouble: Emitter = (c) => {
  requireVector(c);
  writeVector(c, 0, op(CONVERT64, vectorSource(c, 1).value));
};
/** To 32-bit integers, the lanes behind zeros. */
const toIntegers =
  (name: string, f: LaneFormat, lanes: number, truncate: boolean): Emitter =>
  (c) => {
    requireVector(c);
    const b = vectorSource(c, 1);
    const whole = c.code.let(op(f.rounding[truncate ? 3 : 0], b.value));
    const r = c.code.let(op(f === F64 ? TRUNC64 : TRUNC32, whole));
    if (f === F32 && lanes === 2) c.code.set(r, replace64(ZERO, 0, lane64(r, 0)));
    // Below 2^31; denormals raise no DE here, but DAZ changes them.
    const limit = f === F64 ? splat64(i64(0x41dfffffffc00000n)) : splat32(i32(0x4effffff));
    const good = all(f, lanes, and(op(f.le, op(f.abs, whole), limit), plain(f, b.value)));
    const exact = () => all(f, lanes, op(f.eq, whole, b.value));
    otherwiseInexact(c, good, exact, r, name, b, b, i32(0));
    writeVector(c, 0, r);
  };
const F64_OF_I64S = [0xb9, 0xbd];
const I64_OF_F64S = [0xbf, 0xfc, 0x06];
/** The 64 bits of a double, of a general register's value. */
const doubleOf = (value: V): V => value.raw(F64_OF_I64S, I64);
/** CVTSI2SS, CVTSI2SD. */
const fromRegister =
  (name: string, f: LaneFormat): Emitter =>
  (c) => {
    requireVector(c);
    const bits = c.operands[1].bits;
    const value = c.code.let(c.read(1).s64());
    const r = c.code.let(replace64(ZERO, 0, doubleOf(value)));
    if (f === F32) {
      // A single rounding, if the double is exact.
      c.code.set(r, demote(r));
    }
    if (f === F64 && bits === 32) return writeScalar(c, 0, 64, r);
    const fits = (n: number) => value.add(1n << BigInt(n)).lt_u(2n << BigInt(n));
    c.store64(ENGINE.TEMP, value);
    const { address, offset } = c.field(ENGINE.TEMP);
    const at: VectorSource = { value: r, address: address.add(offset) };
    const good = f === F64 || bits === 32 ? i32(1) : fits(53);
    otherwiseInexact(c, good, () => fits(f === F64 ? 53 : 24), r, name, at, at, i32(bits));
    writeScalar(c, 0, f.bits, r);
  };
/** CVT(T)SS2SI, CVT(T)SD2SI. */
const toRegister =
  (name: string, f: LaneFormat, truncate: boolean): Emitter =>
  (c) => {
    requireVector(c);
    const bits = c.operands[0].bits;
    const b = vectorSource(c, 1);
    const value = f === F32 ? c.code.let(promote(b.value)) : b.value;
    const whole = c.code.let(op(F64.rounding[truncate ? 3 : 0], value));
    const r = c.code.let(lane64(whole, 0).raw(I64_OF_F64S, I64));
    const limit = splat64(i64(bits === 32 ? 0x41dfffffffc00000n : 0x43dfffffffffffffn));
    const inRange = all(F64, 1, op(F64.le, op(F64.abs, whole), limit));
    const good = inRange.and(all(f, 1, plain(f, b.value)));
    const ok = c.code.let(good);
    c.code.if(ok.eqz().eqz(), () => {
      const fields = truncate ? INEXACT_FIELDS & ~ROUNDING : INEXACT_FIELDS;
      c.code.if(c.load32(REG.MXCSR).and(fields).ne(INEXACT_UNNOTICED), () =>
        c.code.set(ok, all(F64, 1, equals(whole, value))),
      );
    });
    c.code.if(ok.eqz(), () => {
      c.code.if(c.helper("float", i32(floatNumber(name)), b.address, b.address, i32(bits)), () => c.fault());
      c.code.set(r, c.load64(ENGINE.TEMP));
    });
    c.write(0, bits === 64 ? r : r.wrap());
  };

const SIZES = [
  ["ps", F32, 4],
  ["pd", F64, 2],
  ["ss", F32, 1],
  ["sd", F64, 1],
] as const;
const semantics: Record<string, Emitter> = {};
for (const [suffix, f, lanes] of SIZES) {
  const named = (name: string, emitter: (full: string) => Emitter) =>
    (semantics[name + suffix] = emitter(name + suffix));
  for (const [name, how] of Object.entries({ add: ADD, mul: MUL, div: DIV, sqrt: SQRT })) {
    named(name, (full) => arithmetic(full, f, lanes, how));
  }
  // a - b is a + -b.
  named("sub", (full) => arithmetic(full, f, lanes, ADD, (a, b) => [a, xor(b, f.sign)]));
  named("min", (full) => extreme(full, f, lanes, f.pmin));
  named("max", (full) => extreme(full, f, lanes, f.pmax));
  named("cmp", (full) => comparison(full, f, lanes));
  named("round", (full) => integral(full, f, lanes));
  if (f === F32) {
    named("rcp", (full) => exactly(full, f, lanes, false));
    named("rsqrt", (full) => exactly(full, f, lanes, false));
  }
  if (lanes > 1) {
    named("hadd", (full) => arithmetic(full, f, lanes, ADD, neighbours(f)));
    named("hsub", (full) => arithmetic(full, f, lanes, ADD, opposite(f)));
    named("addsub", (full) => arithmetic(full, f, lanes, ADD, (a, b) => [a, xor(b, f.evenSigns)]));
    named("dp", (full) => exactly(full, f, lanes, true));
  } else {
    for (const name of [`comi${suffix}`, `ucomi${suffix}`]) semantics[name] = flags(name, f);
    semantics[`cvtsi2${suffix}`] = fromRegister(`cvtsi2${suffix}`, f);
    semantics[`cvt${suffix}2si`] = toRegister(`cvt${suffix}2si`, f, false);
    semantics[`cvtt${suffix}2si`] = toRegister(`cvtt${suffix}2si`, f, true);
  }
}

export const vectorFloat: Semantics = {
  ...semantics,
  cvtss2sd: widen("cvtss2sd", 1),
  cvtps2pd: widen("cvtps2pd", 2),
  cvtsd2ss: narrow("cvtsd2ss", 1),
  cvtpd2ps: narrow("cvtpd2ps", 2),
  cvtdq2ps: integersToSingle("cvtdq2ps", false),
  cvtpi2ps: integersToSingle("cvtpi2ps", true),
  cvtdq2pd: integersToDouble,
  cvtpi2pd: integersToDouble,
  cvtps2dq: toIntegers("cvtps2dq", F32, 4, false),
  cvttps2dq: toIntegers("cvttps2dq", F32, 4, true),
  cvtpd2dq: toIntegers("cvtpd2dq", F64, 2, false),
  cvttpd2dq: toIntegers("cvttpd2dq", F64, 2, true),
  cvtps2pi: toIntegers("cvtps2pi", F32, 2, false),
  cvttps2pi: toIntegers("cvttps2pi", F32, 2, true),
  cvtpd2pi: toIntegers("cvtpd2dq", F64, 2, false),
  cvttpd2pi: toIntegers("cvttpd2dq", F64, 2, true),
};
