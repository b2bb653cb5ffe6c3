/** Functions of the generated module that instructions call: address computation, lookups, wide arithmetic. */
import { CRC32C_POLYNOMIAL } from "../semantics/constants.js";
import {
  ADD,
  DIV,
  emitFinal,
  emitPlain,
  F32,
  F64,
  finalHelper,
  MUL,
  plainHelper,
  SQRT,
} from "../semantics/float-lanes.js";
import type { DefineHelper } from "../emit/context.js";
import { Access, ENGINE, JUMP, JUMP_ENTRIES, Misc, Mode, RECORD, TLB, TLB_ENTRIES } from "../layout.js";
import { buildCryptoHelpers } from "../semantics/vector-crypto.js";
import { buildStringHelpers } from "../semantics/vector-string.js";
import { REG, SEG, SEGMENT_SIZE } from "../register-file.js";
import { I32, I64, type ModuleBuilder, V128, type ValType } from "../wasm/encoder.js";
import { call, Code, i32, i64, type Local, LOAD, select, STORE, type V } from "../wasm/expr.js";

type Functions = Map<string, { index: number; result: ValType | 0x40 }>;

export function buildHelpers(module: ModuleBuilder, functions: Functions, core: number, jumps: number): void {
  const define: DefineHelper = (name, params, result, body) => {
    const code = new Code({ params, results: [result] });
    body(code, ...params.map((_, i) => code.param(i)));
    code.unreachable();
    code.finish();
    functions.set(name, { index: module.addFunction(code), result });
  };
  const f = (name: string, ...operands: V[]): V => {
    const target = functions.get(name)!;
    return call(target.index, target.result as ValType, ...operands);
  };
  const field32 = (offset: number) => i32(0).load(LOAD.i32, core + offset);
  const field64 = (offset: number) => i32(0).load(LOAD.i64, core + offset);
  const store64 = (code: Code, offset: number, value: V) =>
    code.store(STORE.i64, i32(0), value, core + offset);

  /** (linear address, access descriptor, record) → host address or 0. */
  define("linear", [I64, I32, I32], I32, (code, address, descriptor, pc) => {
    const entry = code.let(
      address
        .shr_u(7)
        .wrap()
        .and((TLB_ENTRIES - 1) << 5)
        .add(field32(ENGINE.TLB)),
    );
    const tag = select(
      descriptor.and(Access.WRITE),
      entry.load(LOAD.i64, TLB.WRITE),
      entry.load(LOAD.i64, TLB.READ),
    );
    const last = address.add(descriptor.and(0xff).u64()).sub(1);
    code.if(tag.eq(last.and(-4096)), () => code.return(address.wrap().add(entry.load(LOAD.i32, TLB.ADDEND))));
    code.return(f("slow", address.wrap(), address.shr_u(32).wrap(), descriptor, pc));
  });

  /** (segment number, offset, descriptor, record) → host address or 0: the checks of the mode. */
  define("segment", [I32, I64, I32, I32], I32, (code, segment, offset, descriptor, pc) => {
    const base = code.temp(I64);
    const stack = code.let(select(segment.eq(2), i32(Access.STACK), i32(0)).or(descriptor));
    code.if(field32(ENGINE.MODE).and(Mode.CODE_MASK).eq(2), () => {
      code.set(base, 0);
      code.if(segment.ge_u(4), () => {
        code.set(base, segment.mul(SEGMENT_SIZE).load(LOAD.i64, core + REG.SEGMENT + SEG.BASE));
      });
      code.return(f("linear", offset.add(base), stack, pc));
    });
    const index = segment.shl(2);
    const limit = select(
      descriptor.and(Access.WRITE),
      index.load(LOAD.i64_32u, core + ENGINE.WRITE_LIMIT),
      index.load(LOAD.i64_32u, core + ENGINE.READ_LIMIT),
    );
    code.if(offset.add(descriptor.and(0xff).u64()).sub(1).gt_u(limit), () => {
      code.if(f("segmentCheck", segment, offset.wrap(), descriptor).eqz(), () => code.return(i32(0)));
    });
    code.set(base, segment.mul(SEGMENT_SIZE).load(LOAD.i64, core + REG.SEGMENT + SEG.BASE));
    code.return(f("linear", offset.add(base).and(0xffffffffn), stack, pc));
  });

  /** (record, displacement) → offset within the segment, from the description in MISC. */
  const offsetOf = (code: Code, pc: Local, displacement: V): Local => {
    const misc = code.let(pc.load(LOAD.i32_16u, RECORD.MISC));
    const base = code.let(misc.and(31));
    const index = code.let(misc.shr_u(Misc.INDEX_SHIFT).and(31));
    const ea = code.let(pc.load(LOAD.i64_32s, RECORD.DISP).add(displacement));
    const gpr = (n: V) => n.shl(3).load(LOAD.i64, core);
    code.if(base.lt_u(16), () => code.set(ea, ea.add(gpr(base))));
    code.if(base.eq(17), () => code.set(ea, ea.add(field64(ENGINE.RIP_BASE))));
    code.if(base.eq(18), () => code.set(ea, pc.load(LOAD.i64, RECORD.IMM)));
    code.if(index.lt_u(16), () => {
      code.set(ea, ea.add(gpr(index).shl(pc.load(LOAD.i64_8u, RECORD.SCALE))));
    });
    const size = code.let(misc.shr_u(Misc.ADDRESS_SHIFT));
    code.if(size.eq(1), () => code.set(ea, ea.and(0xffffffffn)));
    code.if(size.eqz(), () => code.set(ea, ea.and(0xffff)));
    return ea;
  };
  define("address", [I32], I64, (code, pc) => code.return(offsetOf(code, pc, i64(0))));
  /** (record, displacement, descriptor) → host address or 0. */
  define("memory", [I32, I64, I32], I32, (code, pc, displacement, descriptor) => {
    const ea = offsetOf(code, pc, displacement);
    const segment = pc.load(LOAD.i32_16u, RECORD.MISC).shr_u(Misc.SEGMENT_SHIFT).and(7);
    code.return(f("segment", segment, ea, descriptor, pc));
  });

  /** (RIP) → record or 0; sets RIP_BASE. */
  define("lookup", [I64], I32, (code, rip) => {
    const low = rip.wrap();
    const entry = code.let(
      low
        .xor(low.shr_u(13))
        .and(JUMP_ENTRIES - 1)
        .shl(4)
        .add(jumps),
    );
    code.if(
      entry
        .load(LOAD.i64, JUMP.RIP)
        .eq(rip)
        .and(entry.load(LOAD.i32, JUMP.KEY).eq(field32(ENGINE.JUMP_KEY))),
      () => {
        const pc = code.let(entry.load(LOAD.i32, JUMP.RECORD));
        store64(code, ENGINE.RIP_BASE, rip.sub(pc.load(LOAD.i64_16u, RECORD.OFFSET)));
        code.return(pc);
      },
    );
    store64(code, REG.RIP, rip);
    code.return(f("find", entry));
  });
  /** (record of a direct branch) → record of the target or 0. */
  define("resolve", [I32], I32, (code, pc) => {
    const target = code.let(pc.load(LOAD.i32, RECORD.IMM));
    const cut = pc.load(LOAD.i32_8u, RECORD.SCALE);
    const rip = code.let(field64(ENGINE.RIP_BASE).add(target.s64()).and(field64(ENGINE.RIP_MASK)));
    code.if(cut, () => code.return(f("lookup", rip.and(0xffff))));
    code.if(target.shr_u(12).eqz(), () => {
      store64(code, REG.RIP, rip);
      code.return(f("resolveInPage", pc));
    });
    code.return(f("lookup", rip));
  });

  /** High half of a 64 by 64 bit product. */
  define("mulhu", [I64, I64], I64, (code, a, b) => {
    const al = a.and(0xffffffffn);
    const ah = a.shr_u(32);
    const bl = b.and(0xffffffffn);
    const bh = b.shr_u(32);
    const low = code.let(al.mul(bl));
    const m1 = code.let(ah.mul(bl).add(low.shr_u(32)));
    const m2 = code.let(al.mul(bh).add(m1.and(0xffffffffn)));
    code.return(ah.mul(bh).add(m1.shr_u(32)).add(m2.shr_u(32)));
  });
  define("mulhs", [I64, I64], I64, (code, a, b) => {
    code.return(f("mulhu", a, b).sub(a.shr_s(63).and(b)).sub(b.shr_s(63).and(a)));
  });
  /** (high, low, divisor) → 1, quotient and remainder in TEMP; 0 if the quotient overflows. */
  define("div128", [I64, I64, I64], I32, (code, high, low, divisor) => {
    code.if(high.ge_u(divisor), () => code.return(i32(0)));
    code.if(high.eqz(), () => {
      store64(code, ENGINE.TEMP, low.div_u(divisor));
      store64(code, ENGINE.TEMP + 8, low.rem_u(divisor));
      code.return(i32(1));
    });
    const n = code.let(i32(64));
    code.loop((again) => {
      const carry = code.let(high.shr_u(63));
      code.set(high, high.shl(1).or(low.shr_u(63)));
      code.set(low, low.shl(1));
      code.if(carry.wrap().or(high.ge_u(divisor)), () => {
        code.set(high, high.sub(divisor));
        code.set(low, low.or(1));
      });
      code.brIf(n.tee(n.sub(1)), again);
    });
    store64(code, ENGINE.TEMP, low);
    store64(code, ENGINE.TEMP + 8, high);
    code.return(i32(1));
  });
  define("idiv128", [I64, I64, I64], I32, (code, high, low, divisor) => {
    const negative = code.let(high.shr_s(63));
    const quotientNegative = code.let(negative.xor(divisor.shr_s(63)));
    code.if(negative.wrap(), () => {
      code.set(low, low.neg());
      code.set(high, high.not().add(low.eqz().u64()));
    });
    const d = code.let(select(divisor.lt_s(0), divisor.neg(), divisor));
    code.if(f("div128", high, low, d).eqz(), () => code.return(i32(0)));
    const q = code.let(field64(ENGINE.TEMP));
    const r = field64(ENGINE.TEMP + 8);
    // The magnitude may be 2^63 only if the quotient is negative.
    code.if(
      q
        .shr_u(1)
        .gt_u((1n << 62n) - 1n)
        .and(q.ne(1n << 63n).or(quotientNegative.eqz())),
      () => code.return(i32(0)),
    );
    store64(code, ENGINE.TEMP, select(quotientNegative.wrap(), q.neg(), q));
    store64(code, ENGINE.TEMP + 8, select(negative.wrap(), r.neg(), r));
    code.return(i32(1));
  });
  define("pdep", [I64, I64], I64, (code, value, mask) => {
    const r = code.let(i64(0));
    code.block((done) => {
      code.loop((again) => {
        code.brIf(mask.eqz(), done);
        code.if(value.wrap().and(1), () => code.set(r, r.or(mask.and(mask.neg()))));
        code.set(value, value.shr_u(1));
        code.set(mask, mask.and(mask.sub(1)));
        code.br(again);
      });
    });
    code.return(r);
  });
  define("pext", [I64, I64], I64, (code, value, mask) => {
    const r = code.let(i64(0));
    const bit = code.let(i64(1));
    code.block((done) => {
      code.loop((again) => {
        code.brIf(mask.eqz(), done);
        code.if(value.and(mask).and(mask.neg()).ne(0), () => code.set(r, r.or(bit)));
        code.set(bit, bit.shl(1));
        code.set(mask, mask.and(mask.sub(1)));
        code.br(again);
      });
    });
    code.return(r);
  });
  /** (CRC, data, bytes) → CRC-32C, bit by bit. */
  define("crc32", [I32, I64, I32], I32, (code, crc, data, bytes) => {
    const n = code.let(bytes.shl(3));
    code.loop((again) => {
      const bit = code.let(crc.xor(data.wrap()).and(1));
      code.set(crc, crc.shr_u(1).xor(i32(0).sub(bit).and(CRC32C_POLYNOMIAL)));
      code.set(data, data.shr_u(1));
      code.brIf(n.tee(n.sub(1)), again);
    });
    code.return(crc);
  });

  for (const f of [F32, F64]) {
    for (const how of [ADD, MUL, DIV, SQRT]) {
      define(finalHelper(f, how), [V128, V128, V128], I32, (code, a, b, r) =>
        emitFinal(code, f, how, field32(REG.MXCSR), a, b, r),
      );
    }
    define(plainHelper(f), [V128, V128], I32, (code, a, b) => emitPlain(code, f, a, b));
  }
  buildCryptoHelpers(define);
  buildStringHelpers(define);
}
