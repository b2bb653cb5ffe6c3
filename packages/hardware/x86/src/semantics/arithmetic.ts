/** Arithmetic and logic: ADD to CMP, INC, DEC, NEG, NOT, TEST, XADD, CMPXCHG, ADCX, ADOX. SDM vol. 2. */
import type { Context, Emitter, Semantics } from "../emit/context.js";
import type { V } from "../wasm/expr.js";

/** The sources of all these may be read before the destination's access check: only loads can fault. */
const binary =
  (compute: (c: Context, bits: number, a: V, b: V) => V): Emitter =>
  (c) => {
    const bits = c.bits;
    const b = c.read(1, bits);
    c.modify(0, (a) => c.code.let(c.zeroExtend(bits, compute(c, bits, a, b))));
  };

const add = (c: Context, bits: number, a: V, b: V) => {
  const r = c.code.let(a.add(b));
  c.flagsAdd(bits, a, b, r);
  return r;
};
const sub = (c: Context, bits: number, a: V, b: V) => {
  const r = c.code.let(a.sub(b));
  c.flagsSub(bits, a, b, r);
  return r;
};
const carryIn = (c: Context, bits: number) => (bits === 64 ? c.flagC.shr_u(63) : c.cf());
const logic = (op: "and" | "or" | "xor") => (c: Context, bits: number, a: V, b: V) => {
  const r = c.code.let(a[op](b));
  c.flagsLogic(bits, r);
  return r;
};

export const arithmetic: Semantics = {
  add: binary(add),
  adc: binary((c, bits, a, b) => {
    const r = c.code.let(a.add(b).add(carryIn(c, bits)));
    c.flagsAdd(bits, a, b, r);
    return r;
  }),
  sub: binary(sub),
  sbb: binary((c, bits, a, b) => {
    const r = c.code.let(a.sub(b).sub(carryIn(c, bits)));
    c.flagsSub(bits, a, b, r);
    return r;
  }),
  and: binary(logic("and")),
  or: binary(logic("or")),
  xor: binary(logic("xor")),
  cmp: (c) => {
    const bits = c.bits;
    const a = c.read(0);
    sub(c, bits, a, c.read(1, bits));
  },
  test: (c) => {
    const bits = c.bits;
    const a = c.read(0);
    c.flagsLogic(bits, c.code.let(a.and(c.read(1, bits))));
  },
  inc: (c) => {
    c.modify(0, (a) => {
      const one = c.constant(c.bits, 1);
      const r = c.code.let(a.add(one));
      c.keepCarry(() => c.flagsAdd(c.bits, a, one, r));
      return r;
    });
  },
  dec: (c) => {
    c.modify(0, (a) => {
      const one = c.constant(c.bits, 1);
      const r = c.code.let(a.sub(one));
      c.keepCarry(() => c.flagsSub(c.bits, a, one, r));
      return r;
    });
  },
  neg: (c) => {
    c.modify(0, (a) => sub(c, c.bits, c.constant(c.bits, 0), a));
  },
  not: (c) => {
    c.modify(0, (a) => a.not());
  },
  xadd: (c) => {
    const b = c.read(1);
    let old: V | undefined;
    c.modify(0, (a) => {
      old = a;
      return add(c, c.bits, a, b);
    });
    if (c.operands[0].kind === "m") c.write(1, old!);
    else {
      // Both registers may be the same one: the sum is what remains.
      const sum = c.read(0);
      c.write(1, old!);
      c.write(0, sum);
    }
  },
  cmpxchg: (c) => {
    const bits = c.bits;
    const source = c.read(1);
    const accumulator = c.code.let(c.gpr(0, bits));
    let old: V | undefined;
    if (c.operands[0].kind === "m") {
      c.modify(0, (a) => {
        old = a;
        sub(c, bits, accumulator, a);
        return c.choose(a.eq(accumulator), source, a);
      });
      c.code.if(old!.ne(accumulator), () => c.setGpr(0, old!, bits));
    } else {
      old = c.read(0);
      sub(c, bits, accumulator, old);
      c.code.if(
        old.eq(accumulator),
        () => c.write(0, source),
        () => c.setGpr(0, old!, bits),
      );
    }
  },
  adcx: (c) => {
    const bits = c.bits;
    const b = c.read(1);
    const a = c.read(0);
    const cf = c.code.let(c.cf());
    const r = c.code.let(a.add(b).add(bits === 64 ? cf.u64() : cf));
    c.setCarry(
      c
        .addCarries(a, b, r)
        .shr_u(bits - 1)
        .wrap(),
    );
    c.write(0, r);
  },
  adox: (c) => {
    const bits = c.bits;
    const b = c.read(1);
    const a = c.read(0);
    const of = c.code.let(c.of());
    const r = c.code.let(a.add(b).add(bits === 64 ? of.u64() : of));
    const carry = c.code.let(
      c
        .addCarries(a, b, r)
        .shr_u(bits - 1)
        .wrap(),
    );
    // OF is bit 63 xor bit 62, and CF (bit 63) stays.
    c.code.set(c.flagC, c.flagC.xor(c.of().xor(carry).u64().shl(62)));
    c.write(0, r);
  },
};
