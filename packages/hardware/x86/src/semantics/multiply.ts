/** MUL, IMUL, DIV, IDIV. SDM vol. 2. */
import type { Context, Emitter, Semantics } from "../emit/context.js";
import { ENGINE, Vector } from "../layout.js";
import { i64, type V } from "../wasm/expr.js";

/** RAX, RDX with a two-part result. */
function setPair(c: Context, low: V, high: V): void {
  if (c.bits === 8) c.setGpr(0, low.and(0xff).or(high.shl(8)), 16);
  else {
    c.setGpr(0, low, c.bits);
    c.setGpr(2, high, c.bits);
  }
}
function overflow(c: Context, condition: V): void {
  const o = c.code.let(condition);
  c.setCarryOverflow(o, o);
}

const multiply =
  (signed: boolean): Emitter =>
  (c) => {
    const bits = c.bits;
    const b = c.read(0);
    if (bits === 64) {
      const a = c.code.let(c.gpr(0));
      const high = c.code.let(c.helper(signed ? "mulhs" : "mulhu", a, b));
      const low = c.code.let(a.mul(b));
      setPair(c, low, high);
      overflow(c, high.ne(signed ? low.shr_s(63) : i64(0)));
      return;
    }
    const a = c.code.let(c.gpr(0, bits));
    const x = (v: V) => (signed ? c.signExtend(bits, v).s64() : v.u64());
    const product = c.code.let(x(a).mul(x(b)));
    if (bits === 8) c.setGpr(0, product.wrap(), 16);
    else setPair(c, product.wrap(), product.shr_u(bits).wrap());
    const low = bits === 32 ? product.extend32() : bits === 16 ? product.extend16() : product.extend8();
    overflow(c, signed ? product.ne(low) : product.shr_u(bits).ne(0));
  };

/** Two- and three-operand IMUL. */
function imulTruncating(c: Context, a: V, b: V): void {
  const bits = c.bits;
  if (bits === 64) {
    const low = c.code.let(a.mul(b));
    const high = c.helper("mulhs", a, b);
    overflow(c, high.ne(low.shr_s(63)));
    c.write(0, low);
    return;
  }
  const product = c.code.let(c.signExtend(bits, a).s64().mul(c.signExtend(bits, b).s64()));
  overflow(c, product.ne(bits === 32 ? product.extend32() : product.extend16()));
  c.write(0, product.wrap());
}

const divide =
  (signed: boolean): Emitter =>
  (c) => {
    const bits = c.bits;
    const divisor = c.read(0);
    const error = (condition: V) => c.code.if(condition, () => c.raise(Vector.DE));
    error(divisor.eqz());
    if (bits === 64) {
      const low = c.code.let(c.gpr(0));
      const high = c.code.let(c.gpr(2));
      const status = c.helper(signed ? "idiv128" : "div128", high, low, divisor);
      error(status.eqz());
      const quotient = c.code.let(c.load64(ENGINE.TEMP));
      c.setGpr(2, c.load64(ENGINE.TEMP + 8));
      c.setGpr(0, quotient);
      return;
    }
    const dividend = c.code.let(
      bits === 8
        ? signed
          ? c.gpr(0, 16).extend16().s64()
          : c.gpr(0, 16).u64()
        : bits === 16
          ? signed
            ? c.gpr(2, 16).extend16().shl(16).or(c.gpr(0, 16)).s64()
            : c.gpr(2, 16).shl(16).or(c.gpr(0, 16)).u64()
          : c.gpr(2, 32).u64().shl(32).or(c.gpr(0, 32).u64()),
    );
    const d = c.code.let(signed ? c.signExtend(bits, divisor).s64() : divisor.u64());
    if (signed && bits === 32) error(dividend.eq(1n << 63n).and(d.eq(-1)));
    const quotient = c.code.let(signed ? dividend.div_s(d) : dividend.div_u(d));
    if (signed) {
      const back = bits === 32 ? quotient.extend32() : bits === 16 ? quotient.extend16() : quotient.extend8();
      error(quotient.ne(back));
    } else error(quotient.shr_u(bits).ne(0));
    const remainder = c.code.let((signed ? dividend.rem_s(d) : dividend.rem_u(d)).wrap());
    setPair(c, quotient.wrap(), remainder);
  };

const one = multiply(true);
export const multiplication: Semantics = {
  mul: multiply(false),
  imul: (c) => {
    if (c.operands.length === 1) return one(c);
    const b = c.read(1);
    const a = c.operands.length === 2 ? c.read(0) : c.read(2, c.bits);
    imulTruncating(c, a, b);
  },
  div: divide(false),
  idiv: divide(true),
};
