/**
 * String instructions with REP: MOVS, STOS, LODS, CMPS, SCAS. SDM vol. 2. Registers are committed after every element
 * (or page of elements), so that a fault leaves them at the element that faulted.
 */
import { type Context, type Emitter, loadBits, type Semantics } from "../emit/context.js";
import { ENGINE, PAGE_SIZE } from "../layout.js";
import { REG } from "../register-file.js";
import { VOID } from "../wasm/encoder.js";
import { i32, i64, type Local, V } from "../wasm/expr.js";
import { addressMask } from "./control.js";

const RSI = 6;
const RDI = 7;
const RCX = 1;
const ES = 0;

/** State of a string instruction within its function. */
interface StringState {
  c: Context;
  bits: number;
  size: Local;
  mask: Local;
  rep: Local;
  /** Plus or minus the element's size. */
  step: Local;
  /** Elements done in this round. */
  n: Local;
}

function advance(s: StringState, register: number): void {
  const { c } = s;
  const old = c.code.let(c.gpr(register));
  const moved = c.code.let(old.add(s.step.mul(s.n)).and(s.mask));
  c.setGpr(register, c.choose(s.size.eqz(), old.and(-0x10000n).or(moved), moved));
}
const pointer = (s: StringState, register: number): V => s.c.code.let(s.c.gpr(register).and(s.mask));
function source(s: StringState): Local {
  const host = s.c.segmentMemory(-1, pointer(s, RSI), s.bits / 8, 0);
  return host;
}
function destination(s: StringState, access: number): Local {
  return s.c.segmentMemory(ES, pointer(s, RDI), s.bits / 8, access);
}
/** Elements from a host address to the end of its page, or 1 if it is not plain memory or the direction is down. */
function room(s: StringState, host: V): Local {
  const { c } = s;
  const left = c.code.let(
    i32(PAGE_SIZE)
      .sub(host.and(PAGE_SIZE - 1))
      .shr_u(Math.log2(s.bits / 8))
      .u64(),
  );
  const plain = host.ne(c.scratch()).and(s.step.gt_s(0)).and(left.ne(0));
  return c.code.let(c.choose(plain, left, i64(1)));
}
function least(s: StringState, a: V, b: V): Local {
  return s.c.code.let(s.c.choose(a.lt_u(b), a, b));
}

/** @param body one round; it may do several elements at once and then says so in `n` @param until ZF that ends, if any */
function string(body: (s: StringState) => void, registers: number[], compares: boolean): Emitter {
  return (c) => {
    const bits = c.operands[0]?.bits ?? 8;
    const size = c.code.let(c.addressSize());
    const s: StringState = {
      c,
      bits,
      size,
      mask: c.code.let(addressMask(c, size)),
      rep: c.code.let(c.repeat()),
      step: c.code.let(c.choose(c.load32(REG.RFLAGS).and(0x400), i64(-bits / 8), i64(bits / 8))),
      n: c.code.let(i64(1)),
    };
    const rounds = c.code.let(c.load32(ENGINE.REP_ROUNDS));
    c.code.block((done) => {
      c.code.if(s.rep, () => c.code.brIf(c.gpr(RCX).and(s.mask).eqz(), done));
      c.code.loop((again) => {
        c.code.set(s.n, 1);
        body(s);
        for (const r of registers) advance(s, r);
        c.code.brIf(s.rep.eqz(), done);
        const old = c.code.let(c.gpr(RCX));
        const left = c.code.let(old.sub(s.n).and(s.mask));
        c.setGpr(RCX, c.choose(s.size.eqz(), old.and(-0x10000n).or(left), left));
        c.code.brIf(left.eqz(), done);
        if (compares) c.code.brIf(s.rep.eq(1).ne(c.zf()), done);
        c.code.set(rounds, rounds.sub(1));
        c.code.brIf(rounds, again);
      });
      c.again();
    });
  };
}

const movs = string(
  (s) => {
    const { c, bits } = s;
    const from = source(s);
    const value = c.code.let(loadBits(bits, from));
    const to = destination(s, 0x100);
    c.code.block((copied) => {
      c.code.if(s.rep, () => {
        const n = least(s, c.code.let(c.gpr(RCX).and(s.mask)), least(s, room(s, from), room(s, to)));
        // An overlapping copy upwards repeats bytes, which a block copy would not.
        const bytes = c.code.let(n.wrap().shl(Math.log2(bits / 8)));
        c.code.if(n.gt_u(1).and(to.sub(from).ge_u(bytes)), () => {
          c.code.set(s.n, n);
          c.code.do(memoryCopy(to, from, bytes));
          c.code.br(copied);
        });
      });
      c.storeMemory(to, bits, value);
    });
  },
  [RSI, RDI],
  false,
);
const stos = string(
  (s) => {
    const { c, bits } = s;
    const to = destination(s, 0x100);
    c.code.block((filled) => {
      const value = c.code.let(c.gpr(0, bits));
      c.code.if(s.rep, () => {
        const n = least(s, c.code.let(c.gpr(RCX).and(s.mask)), room(s, to));
        const byte = c.code.let(value.wrap().and(0xff));
        const uniform =
          bits === 8
            ? i32(1)
            : value.eq(
                bits === 64 ? byte.u64().mul(0x0101010101010101n) : byte.mul(bits === 16 ? 0x101 : 0x1010101),
              );
        c.code.if(n.gt_u(1).and(uniform), () => {
          c.code.set(s.n, n);
          c.code.do(memoryFill(to, byte, n.wrap().shl(Math.log2(bits / 8))));
          c.code.br(filled);
        });
      });
      c.storeMemory(to, bits, value);
    });
  },
  [RDI],
  false,
);
const lods = string(
  (s) => {
    const value = s.c.code.let(loadBits(s.bits, source(s)));
    s.c.setGpr(0, value, s.bits);
  },
  [RSI],
  false,
);
const cmps = string(
  (s) => {
    const { c, bits } = s;
    const a = c.code.let(loadBits(bits, source(s)));
    const b = c.code.let(loadBits(bits, destination(s, 0)));
    c.flagsSub(bits, a, b, c.code.let(a.sub(b)));
  },
  [RSI, RDI],
  true,
);
const scas = string(
  (s) => {
    const { c, bits } = s;
    const b = c.code.let(loadBits(bits, destination(s, 0)));
    const a = c.code.let(c.gpr(0, bits));
    c.flagsSub(bits, a, b, c.code.let(a.sub(b)));
  },
  [RDI],
  true,
);

/** memory.copy and memory.fill of the bulk memory instructions. */
function memoryCopy(to: V, from: V, bytes: V): V {
  return new V(VOID as never, (out) => {
    for (const v of [to, from, bytes]) v.emit(out);
    for (const b of [0xfc, 10, 0, 0]) out.byte(b);
  });
}
function memoryFill(to: V, byte: V, bytes: V): V {
  return new V(VOID as never, (out) => {
    for (const v of [to, byte, bytes]) v.emit(out);
    for (const b of [0xfc, 11, 0]) out.byte(b);
  });
}

export const strings: Semantics = {
  movsb: movs,
  movs,
  stosb: stos,
  stos,
  lodsb: lods,
  lods,
  cmpsb: cmps,
  cmps,
  scasb: scas,
  scas,
};
