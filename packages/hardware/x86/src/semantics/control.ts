/** Near control transfers and the stack: Jcc, JMP, CALL, RET, LOOP, JCXZ, PUSH, POP, LEAVE. SDM vol. 2. */
import { type Context, loadBits, type Semantics } from "../emit/context.js";
import { ENGINE, Vector } from "../layout.js";
import { i64, type V } from "../wasm/expr.js";
import { CONDITIONS } from "./move.js";

const RSP = 4;
const RBP = 5;

/** Stack pointer plus `delta`, within the stack's size. */
function moved(c: Context, pointer: V, delta: V): V {
  const mask = c.code.let(c.load64(ENGINE.STACK_MASK));
  const keep = c.code.let(mask.not().and(c.choose(mask.eq(0xffff), i64(-1), i64(0))));
  return c.code.let(c.gpr(RSP).and(keep).or(pointer.add(delta).and(mask)));
}
/** Host address of the slot that a push of `bits` will write, and the new stack pointer. */
export function push(c: Context, bits: number, value: V): void {
  const bytes = bits / 8;
  if (bits === 64) {
    const pointer = c.code.let(c.gpr(RSP).sub(bytes));
    const host = c.stackMemory(pointer, bytes, 0x100);
    c.storeMemory(host, bits, value);
    c.setGpr(RSP, pointer);
    return;
  }
  const pointer = moved(c, c.gpr(RSP), i64(-bytes));
  const host = c.stackHost(pointer, bytes, 0x100);
  c.storeMemory(host, bits, value);
  c.setGpr(RSP, pointer);
}
/** Value at a stack pointer. */
export function peek(c: Context, bits: number, pointer: V): V {
  const bytes = bits / 8;
  return c.code.let(
    loadBits(bits, bits === 64 ? c.stackMemory(pointer, bytes, 0) : c.stackHost(pointer, bytes, 0)),
  );
}
function stepped(c: Context, bits: number, pointer: V, delta: V): V {
  return bits === 64 ? c.code.let(pointer.add(delta)) : moved(c, pointer, delta);
}
/** #GP(0) if RIP would not be canonical; 16- and 32-bit targets are cut to size first. */
function target(c: Context, bits: number, value: V): V {
  if (bits !== 64) return c.code.let(value.u64());
  const rip = c.code.let(value);
  c.code.if(rip.shr_s(c.load64(ENGINE.CANONICAL_SHIFT)).add(1).gt_u(1), () => c.raise(Vector.GP, 0));
  return rip;
}
/** Counts RCX down and yields it, in the width of addresses. */
function countDown(c: Context): V {
  const size = c.code.let(c.addressSize());
  const rcx = c.code.let(c.gpr(1));
  const mask = c.code.let(addressMask(c, size));
  const low = c.code.let(rcx.sub(1).and(mask));
  c.setGpr(1, c.choose(size.eqz(), rcx.and(-0x10000n).or(low), low));
  return low;
}
/** All ones in the width of addresses. */
export function addressMask(c: Context, size: V): V {
  return c.choose(size.eqz(), i64(0xffff), c.choose(size.eq(1), i64(0xffffffff), i64(-1)));
}
const transferBits = (c: Context, i = 0) => c.operands[i].bits;

export const control: Semantics = {
  jmp: (c) => {
    if (c.operands[0].kind === "j") c.branch();
    else c.jump(target(c, c.bits, c.read(0)));
  },
  call: (c) => {
    const bits = transferBits(c);
    if (c.operands[0].kind === "j") {
      const rip = c.nextRip();
      push(c, bits, bits === 64 ? rip : rip.wrap());
      c.branch();
      return;
    }
    const to = target(c, bits, c.read(0));
    const rip = c.nextRip();
    push(c, bits, bits === 64 ? rip : rip.wrap());
    c.jump(to);
  },
  ret: (c) => {
    const withImmediate = c.operands.length === 2;
    const bits = transferBits(c, withImmediate ? 1 : 0);
    const pointer = c.code.let(c.gpr(RSP));
    const to = target(c, bits, peek(c, bits, pointer));
    const release = withImmediate
      ? c
          .immediate()
          .and(0xffff)
          .add(bits / 8)
      : i64(bits / 8);
    c.setGpr(RSP, stepped(c, bits, pointer, release));
    c.jump(to);
  },
  push: (c) => {
    const v = c.read(0, c.bits);
    push(c, c.bits, v);
  },
  pop: (c) => {
    const bits = c.bits;
    const pointer = c.code.let(c.gpr(RSP));
    const v = peek(c, bits, pointer);
    // A destination addressed by RSP sees the new value; a fault there takes it back.
    c.setGpr(RSP, stepped(c, bits, pointer, i64(bits / 8)));
    c.undo = () => c.setGpr(RSP, pointer);
    c.write(0, v);
  },
  leave: (c) => {
    const bits = transferBits(c);
    const pointer = c.code.let(bits === 64 ? c.gpr(RBP) : c.gpr(RBP).and(c.load64(ENGINE.STACK_MASK)));
    const v = peek(c, bits, pointer);
    c.setGpr(RSP, stepped(c, bits, pointer, i64(bits / 8)));
    c.setGpr(RBP, v, bits);
  },
  loop: (c) => {
    const count = countDown(c);
    c.code.if(count.ne(0), () => c.branch());
  },
  loope: (c) => {
    const count = countDown(c);
    c.code.if(count.ne(0).and(c.zf()), () => c.branch());
  },
  loopne: (c) => {
    const count = countDown(c);
    c.code.if(count.ne(0).and(c.zf().eqz()), () => c.branch());
  },
  jcxz: (c) => {
    const mask = addressMask(c, c.code.let(c.addressSize()));
    c.code.if(c.gpr(1).and(mask).eqz(), () => c.branch());
  },
};
CONDITIONS.forEach((name, n) => {
  control[`j${name}`] = (c) => c.code.if(c.condition(n), () => c.branch());
});
