/** x87 data transfer: FLD, FST, FILD, FIST, FISTTP, FBLD, FBSTP, FXCH, FCMOVcc, constants. SDM vol. 1 ch. 8.3.3, 8.3.4. */
import { RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Access, Status } from "../layout.js";
import {
  DOUBLE,
  type Format,
  SINGLE,
  bits,
  fromDecimal,
  fromInteger,
  narrow,
  toDecimal,
  toInteger,
  widen,
} from "../x87/convert.js";
import { type Extended, Kind } from "../x87/extended.js";
import { Exception, Rounding, quiet, setIndefinite } from "../x87/rounding.js";
import {
  a,
  b,
  begin,
  copyRegister,
  cx,
  isEmpty,
  load,
  pop,
  pops,
  pushed,
  readExtended,
  report,
  result,
  stackFault,
  store,
  writeExtended,
} from "./x87-state.js";

/** Executes a row of the opcode table. @param n ModRM's low bits @returns Status */
export type Row = (core: X86Core, pc: number, n: number) => number;

/** Host address of the memory operand; 0 on a fault. */
export const operand = (core: X86Core, pc: number, bytes: number): number => core.fn.memory(pc, 0n, bytes);
export function writes(core: X86Core, pc: number, bytes: number): number {
  return core.fn.memory(pc, 0n, bytes | Access.WRITE);
}
export function written(core: X86Core, host: number): void {
  if (host === core.scratch) core.commit();
}

/** Ends a load: pushes `v`, unless there is no room or an exception is unmasked. */
function push(core: X86Core, v: Extended): number {
  if (!isEmpty(core, 7)) {
    if (stackFault(true)) {
      setIndefinite(result);
      pushed(core, result);
    }
  } else if (!cx.stopped) pushed(core, v);
  report(core);
  return Status.NEXT;
}

/** A single or double from the memory operand to `out`. @returns its Kind, or -1 on a fault */
export function readReal(core: X86Core, pc: number, format: Format, out: Extended): number {
  const host = operand(core, pc, format.bytes);
  if (host === 0) return -1;
  const low = core.dv.getUint32(host, true);
  return widen(out, format, format === SINGLE ? 0 : core.dv.getUint32(host + 4, true), low);
}
/** An integer from the memory operand to `out`. @returns its Kind, or -1 on a fault */
export function readInteger(core: X86Core, pc: number, bytes: number, out: Extended): number {
  const host = operand(core, pc, bytes);
  if (host === 0) return -1;
  const low = bytes === 2 ? core.dv.getInt16(host, true) : core.dv.getInt32(host, true);
  fromInteger(out, bytes === 8 ? core.dv.getUint32(host + 4, true) : low >> 31, low >>> 0);
  return out.high === 0 ? Kind.ZERO : Kind.NORMAL;
}

const loadReal =
  (format: Format): Row =>
  (core, pc) => {
    const kind = readReal(core, pc, format, a);
    if (kind < 0) return core.status;
    begin(core);
    if (kind === Kind.SNAN) {
      cx.flags |= Exception.IE;
      quiet(a);
    }
    if (kind === Kind.DENORMAL) cx.denormal();
    return push(core, a);
  };
const loadInteger =
  (bytes: number): Row =>
  (core, pc) => {
    if (readInteger(core, pc, bytes, a) < 0) return core.status;
    begin(core);
    return push(core, a);
  };
const loadExtended: Row = (core, pc) => {
  const host = operand(core, pc, 10);
  if (host === 0) return core.status;
  readExtended(core, host, a);
  begin(core);
  return push(core, a);
};
const loadDecimal: Row = (core, pc) => {
  const host = operand(core, pc, 10);
  if (host === 0) return core.status;
  fromDecimal(a, core.u8, host);
  begin(core);
  return push(core, a);
};
const loadRegister: Row = (core, _pc, n) => {
  begin(core);
  if (!isEmpty(core, n)) {
    load(core, n, a);
    return push(core, a);
  }
  if (stackFault(false)) {
    setIndefinite(result);
    pushed(core, result);
  }
  report(core);
  return Status.NEXT;
};

/** ST(0) to `a`, or the indefinite if it is empty. @returns false if that fault is unmasked */
function source(core: X86Core): boolean {
  begin(core);
  if (!isEmpty(core, 0)) {
    load(core, 0, a);
    return true;
  }
  setIndefinite(a);
  return stackFault(false);
}
/** An exception keeps the result from being stored. */
const STORING = Exception.IE | Exception.OE | Exception.UE;
const stores = (): boolean => (cx.flags & STORING & ~cx.control) === 0;

const storeReal =
  (format: Format, count: number): Row =>
  (core, pc) => {
    if (source(core)) {
      narrow(cx, a, format);
      if (stores()) {
        const host = writes(core, pc, format.bytes);
        if (host === 0) return core.status;
        core.dv.setUint32(host, bits.low, true);
        if (format === DOUBLE) core.dv.setUint32(host + 4, bits.high, true);
        written(core, host);
        pops(core, count);
      }
    }
    report(core);
    return Status.NEXT;
  };
const storeExtended: Row = (core, pc) => {
  if (source(core)) {
    const host = writes(core, pc, 10);
    if (host === 0) return core.status;
    writeExtended(core, host, a);
    written(core, host);
    pop(core);
  }
  report(core);
  return Status.NEXT;
};
const storeInteger =
  (bytes: number, count: number, truncate = false): Row =>
  (core, pc) => {
    if (source(core)) {
      toInteger(cx, a, bytes * 8, truncate ? Rounding.ZERO : cx.rounding);
      if (stores()) {
        const host = writes(core, pc, bytes);
        if (host === 0) return core.status;
        if (bytes === 2) core.dv.setUint16(host, bits.low, true);
        else core.dv.setUint32(host, bits.low, true);
        if (bytes === 8) core.dv.setUint32(host + 4, bits.high, true);
        written(core, host);
        pops(core, count);
      }
    }
    report(core);
    return Status.NEXT;
  };
const decimal = new Uint8Array(10);
const storeDecimal: Row = (core, pc) => {
  if (source(core)) {
    toDecimal(cx, a, decimal);
    if (stores()) {
      const host = writes(core, pc, 10);
      if (host === 0) return core.status;
      core.u8.set(decimal, host);
      written(core, host);
      pop(core);
    }
  }
  report(core);
  return Status.NEXT;
};
const storeRegister =
  (count: number): Row =>
  (core, _pc, n) => {
    if (source(core)) {
      store(core, n, a);
      pops(core, count);
    }
    report(core);
    return Status.NEXT;
  };

/** FSTPNCE, an alias of FSTP that does not mind an empty ST(0). */
const storeUnchecked: Row = (core, _pc, n) => {
  begin(core);
  if (!isEmpty(core, 0)) copyRegister(core, 0, n);
  pop(core);
  report(core);
  return Status.NEXT;
};
const exchange: Row = (core, _pc, n) => {
  begin(core);
  const here = isEmpty(core, 0);
  const there = isEmpty(core, n);
  if ((!here && !there) || stackFault(false)) {
    if (here) setIndefinite(a);
    else load(core, 0, a);
    if (there) setIndefinite(b);
    else load(core, n, b);
    store(core, n, a);
    store(core, 0, b);
  }
  report(core);
  return Status.NEXT;
};

const { CF, ZF, PF } = RFLAGS;
const moveIf =
  (flags: number, wanted: boolean): Row =>
  (core, _pc, n) => {
    if (isEmpty(core, 0) || isEmpty(core, n)) {
      begin(core);
      if (stackFault(false)) {
        setIndefinite(result);
        store(core, 0, result);
      }
      report(core);
    } else if (((core.getFlags() & flags) !== 0) === wanted) copyRegister(core, n, 0);
    return Status.NEXT;
  };

/** FLD1 and the others: exponent, significand cut off, 1 if rounding to nearest rounds it up, 0 if not, -1 exact. */
const CONSTANTS: readonly (readonly [exponent: number, high: number, low: number, up: number])[] = [
  [0x3fff, 0x80000000, 0, -1],
  [0x4000, 0xd49a784b, 0xcd1b8afe, 0],
  [0x3fff, 0xb8aa3b29, 0x5c17f0bb, 1],
  [0x4000, 0xc90fdaa2, 0x2168c234, 1],
  [0x3ffd, 0x9a209a84, 0xfbcff798, 1],
  [0x3ffe, 0xb17217f7, 0xd1cf79ab, 1],
  [0, 0, 0, -1],
];
const loadConstant: Row = (core, _pc, n) => {
  begin(core);
  const [exponent, high, low, up] = CONSTANTS[n];
  const more = cx.rounding === Rounding.NEAREST ? up === 1 : cx.rounding === Rounding.UP && up >= 0;
  a.set(0, exponent, high, low + (more ? 1 : 0));
  return push(core, a);
};

/** By opcode and ModRM.reg. */
export const MOVES_MEMORY: Record<string, Row> = {
  "d9/0": loadReal(SINGLE),
  "d9/2": storeReal(SINGLE, 0),
  "d9/3": storeReal(SINGLE, 1),
  "db/0": loadInteger(4),
  "db/1": storeInteger(4, 1, true),
  "db/2": storeInteger(4, 0),
  "db/3": storeInteger(4, 1),
  "db/5": loadExtended,
  "db/7": storeExtended,
  "dd/0": loadReal(DOUBLE),
  "dd/1": storeInteger(8, 1, true),
  "dd/2": storeReal(DOUBLE, 0),
  "dd/3": storeReal(DOUBLE, 1),
  "df/0": loadInteger(2),
  "df/1": storeInteger(2, 1, true),
  "df/2": storeInteger(2, 0),
  "df/3": storeInteger(2, 1),
  "df/4": loadDecimal,
  "df/5": loadInteger(8),
  "df/6": storeDecimal,
  "df/7": storeInteger(8, 1),
};
/** By opcode and ModRM byte, "+" for the eight from there on. Some are aliases that the manual does not list. */
export const MOVES_REGISTER: Record<string, Row> = {
  "d9 c0+": loadRegister,
  "d9 c8+": exchange,
  "dd c8+": exchange,
  "df c8+": exchange,
  "dd d0+": storeRegister(0),
  "dd d8+": storeRegister(1),
  "d9 d8+": storeUnchecked,
  "df d0+": storeRegister(1),
  "df d8+": storeRegister(1),
  "da c0+": moveIf(CF, true),
  "da c8+": moveIf(ZF, true),
  "da d0+": moveIf(CF | ZF, true),
  "da d8+": moveIf(PF, true),
  "db c0+": moveIf(CF, false),
  "db c8+": moveIf(ZF, false),
  "db d0+": moveIf(CF | ZF, false),
  "db d8+": moveIf(PF, false),
  ...Object.fromEntries([0, 1, 2, 3, 4, 5, 6].map((n) => [`d9 ${(0xe8 + n).toString(16)}`, loadConstant])),
};
