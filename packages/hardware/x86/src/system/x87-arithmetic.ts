/** x87 arithmetic, comparison and functions, from and to the stack. SDM vol. 1 ch. 8.3.5 to 8.3.10; vol. 2. */
import { RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Status } from "../layout.js";
import { REG } from "../register-file.js";
import { add, divide, multiply, squareRoot } from "../x87/arithmetic.js";
import { Condition, EMPTY_CLASS, UNORDERED, compare, examine } from "../x87/compare.js";
import { DOUBLE, SINGLE } from "../x87/convert.js";
import { BIAS, type Extended, Kind, kindOf } from "../x87/extended.js";
import { extract, remainder, roundToInteger, scale } from "../x87/partial.js";
import { type Context, Exception, setIndefinite } from "../x87/rounding.js";
import {
  arcTangent2,
  powerMinusOne,
  timesLogarithm,
  timesLogarithmPlusOne,
  trigonometric,
} from "../x87/transcendental.js";
import { type Row, readInteger, readReal } from "./x87-move.js";
import {
  FSW,
  a,
  b,
  begin,
  cx,
  isEmpty,
  load,
  pops,
  pushed,
  report,
  reportCodes,
  result,
  second,
  stackFault,
  store,
} from "./x87-state.js";

type Binary = (
  context: Context,
  out: Extended,
  left: Extended,
  leftKind: number,
  right: Extended,
  rightKind: number,
) => void;

/** A sign that a NaN keeps. */
const subtract: Binary = (context, out, left, leftKind, right, rightKind) => {
  if (rightKind < Kind.QNAN) right.sign ^= 1;
  add(context, out, left, leftKind, right, rightKind);
};
const reversed =
  (operation: Binary): Binary =>
  (context, out, left, leftKind, right, rightKind) =>
    operation(context, out, right, rightKind, left, leftKind);

/** Reads the memory operand to `b`. @returns its Kind, or -1 on a fault */
type Reader = (core: X86Core, pc: number) => number;
const SOURCES: Record<string, Reader> = {
  d8: (core, pc) => readReal(core, pc, SINGLE, b),
  da: (core, pc) => readInteger(core, pc, 4, b),
  dc: (core, pc) => readReal(core, pc, DOUBLE, b),
  de: (core, pc) => readInteger(core, pc, 2, b),
};

/** Ends an instruction: `result` to ST(n), unless an exception that was found before computing is unmasked. */
function conclude(core: X86Core, n: number, count = 0): number {
  if (!cx.stopped) {
    store(core, n, result);
    pops(core, count);
  }
  report(core);
  return Status.NEXT;
}
/** Stack underflow: the indefinite to ST(n). */
function underflow(core: X86Core, n: number, count = 0): number {
  if (stackFault(false)) {
    setIndefinite(result);
    store(core, n, result);
    pops(core, count);
  }
  report(core);
  return Status.NEXT;
}

/** ST(0) = ST(0) with memory. */
const withMemory =
  (operation: Binary, read: Reader): Row =>
  (core, pc) => {
    const kind = read(core, pc);
    if (kind < 0) return core.status;
    begin(core);
    if (isEmpty(core, 0)) return underflow(core, 0);
    operation(cx, result, a, load(core, 0, a), b, kind);
    return conclude(core, 0);
  };
/** ST(0) = ST(0) with ST(n), or ST(n) = ST(n) with ST(0). */
const withRegister =
  (operation: Binary, toN: boolean, count = 0): Row =>
  (core, _pc, n) => {
    begin(core);
    const to = toN ? n : 0;
    if (isEmpty(core, 0) || isEmpty(core, n)) return underflow(core, to, count);
    operation(cx, result, a, load(core, to, a), b, load(core, toN ? 0 : n, b));
    return conclude(core, to, count);
  };
/** ST(0), or with `count` ST(1), from ST(0) and ST(1). */
const function2 =
  (operation: Binary, popping: boolean): Row =>
  (core) => {
    begin(core);
    const to = popping ? 1 : 0;
    if (isEmpty(core, 0) || isEmpty(core, 1)) return underflow(core, to, to);
    operation(cx, result, a, load(core, 0, a), b, load(core, 1, b));
    return conclude(core, to, to);
  };
const function1 =
  (operation: (context: Context, out: Extended, v: Extended, kind: number) => void): Row =>
  (core) => {
    begin(core);
    if (isEmpty(core, 0)) return underflow(core, 0);
    operation(cx, result, a, load(core, 0, a));
    return conclude(core, 0);
  };

/** The operand is out of range: C2, and nothing else happens. */
function outOfRange(core: X86Core): number {
  report(core);
  core.set32(REG.FSW, core.get32(REG.FSW) | Condition.C2);
  return Status.NEXT;
}

const partialRemainder =
  (nearest: boolean): Row =>
  (core) => {
    begin(core);
    core.set32(REG.FSW, core.get32(REG.FSW) & ~Condition.C2);
    if (isEmpty(core, 0) || isEmpty(core, 1)) return underflow(core, 0);
    const codes = remainder(cx, result, a, load(core, 0, a), b, load(core, 1, b), nearest);
    if (codes < 0) return conclude(core, 0);
    store(core, 0, result);
    reportCodes(core, codes);
    return Status.NEXT;
  };
/** Changes the sign. */
const sign =
  (change: (sign: number) => number): Row =>
  (core) => {
    begin(core);
    if (isEmpty(core, 0)) return underflow(core, 0);
    load(core, 0, result);
    result.sign = change(result.sign);
    return conclude(core, 0);
  };

// --- instructions with two results: one replaces ST(0), one is pushed

/** @param compute sets `result`, for ST(0), and `second`, to be pushed; false: C2 and nothing else */
const two =
  (compute: () => boolean): Row =>
  (core) => {
    begin(core);
    const empty = isEmpty(core, 0);
    if (empty || !isEmpty(core, 7)) {
      if (stackFault(!empty)) {
        setIndefinite(result);
        store(core, 0, result);
        pushed(core, result);
      }
    } else {
      load(core, 0, a);
      if (!compute()) return outOfRange(core);
      if (!cx.stopped) {
        store(core, 0, result);
        pushed(core, second);
      }
    }
    report(core);
    return Status.NEXT;
  };
const clearingC2 =
  (row: Row): Row =>
  (core, pc, n) => {
    core.set32(REG.FSW, core.get32(REG.FSW) & ~Condition.C2);
    return row(core, pc, n);
  };
const extractParts = two(() => {
  extract(cx, result, second, a, kindOf(a));
  return true;
});
const sineCosine = two(() => trigonometric(cx, a, kindOf(a), result, second, undefined));
const tangent = two(() => {
  if (!trigonometric(cx, a, kindOf(a), undefined, undefined, result)) return false;
  if (kindOf(a) >= Kind.INFINITY) second.copy(result);
  else second.set(0, BIAS, 0x80000000, 0);
  return true;
});
const angleFunction =
  (cosine: boolean): Row =>
  (core) => {
    begin(core);
    if (isEmpty(core, 0)) return underflow(core, 0);
    const kind = load(core, 0, a);
    const inRange = trigonometric(
      cx,
      a,
      kind,
      cosine ? undefined : result,
      cosine ? result : undefined,
      undefined,
    );
    if (inRange) return conclude(core, 0);
    return outOfRange(core);
  };

// --- comparison

/** The comparison is invalid, and that is unmasked: nothing is set. */
const compareFails = (): boolean => (cx.flags & Exception.IE & ~cx.control) !== 0;
/** C3, C2, C0 to the status word, then pops. */
function compared(core: X86Core, count: number, kind: number, quiet: boolean): number {
  const codes = compare(cx, a, load(core, 0, a), b, kind, quiet);
  if (compareFails()) report(core);
  else reportCodes(core, codes);
  if (!cx.stopped) pops(core, count);
  return Status.NEXT;
}
function compareUnderflow(core: X86Core, count: number): number {
  if (stackFault(false)) {
    reportCodes(core, UNORDERED);
    pops(core, count);
  } else report(core);
  return Status.NEXT;
}
const compareMemory =
  (read: Reader, count: number): Row =>
  (core, pc) => {
    const kind = read(core, pc);
    if (kind < 0) return core.status;
    begin(core);
    return isEmpty(core, 0) ? compareUnderflow(core, count) : compared(core, count, kind, false);
  };
const compareRegister =
  (quiet: boolean, count: number, one = false): Row =>
  (core, _pc, low) => {
    const n = one ? 1 : low;
    begin(core);
    if (isEmpty(core, 0) || isEmpty(core, n)) return compareUnderflow(core, count);
    return compared(core, count, load(core, n, b), quiet);
  };
const test: Row = (core) => {
  begin(core);
  if (isEmpty(core, 0)) return compareUnderflow(core, 0);
  b.set(0, 0, 0, 0);
  return compared(core, 0, Kind.ZERO, false);
};
/** ZF, PF, CF by C3, C2, C0. */
const compareFlags =
  (quiet: boolean, count: number): Row =>
  (core, _pc, n) => {
    begin(core);
    let codes: number = UNORDERED;
    if (isEmpty(core, 0) || isEmpty(core, n)) stackFault(false);
    else {
      const kind = load(core, n, b);
      codes = compare(cx, a, load(core, 0, a), b, kind, quiet);
    }
    report(core);
    if (!compareFails()) {
      core.setFlags(
        (core.getFlags() & ~(RFLAGS.OF | RFLAGS.SF | RFLAGS.AF | RFLAGS.ZF | RFLAGS.PF | RFLAGS.CF)) |
          (codes & Condition.C3 ? RFLAGS.ZF : 0) |
          (codes & Condition.C2 ? RFLAGS.PF : 0) |
          (codes & Condition.C0 ? RFLAGS.CF : 0),
      );
    }
    if (!cx.stopped) pops(core, count);
    return Status.NEXT;
  };
const examineTop: Row = (core) => {
  const kind = load(core, 0, a);
  const codes = isEmpty(core, 0) ? EMPTY_CLASS | (a.sign === 1 ? FSW.C1 : 0) : examine(a, kind);
  core.set32(REG.FSW, (core.get32(REG.FSW) & ~FSW.CODES) | codes);
  return Status.NEXT;
};

// --- the table

/** FADD, FMUL, FSUB, FSUBR, FDIV, FDIVR by ModRM.reg of the forms to ST(0). */
const OPERATIONS: readonly (readonly [reg: number, operation: Binary])[] = [
  [0, add],
  [1, multiply],
  [4, subtract],
  [5, reversed(subtract)],
  [6, divide],
  [7, reversed(divide)],
];
/** By opcode and ModRM.reg. */
export const ARITHMETIC_MEMORY: Record<string, Row> = Object.fromEntries(
  Object.entries(SOURCES).flatMap(([opcode, read]): (readonly [string, Row])[] => [
    ...OPERATIONS.map(([reg, operation]) => [`${opcode}/${reg}`, withMemory(operation, read)] as const),
    [`${opcode}/2`, compareMemory(read, 0)],
    [`${opcode}/3`, compareMemory(read, 1)],
  ]),
);
const family = (opcode: string, reg: number) => `${opcode} ${(0xc0 + reg * 8).toString(16)}+`;
/** As in x87-move.ts. To ST(n), FSUB and FSUBR, FDIV and FDIVR have changed places. */
export const ARITHMETIC_REGISTER: Record<string, Row> = {
  ...Object.fromEntries(
    OPERATIONS.flatMap(([reg, operation]) => [
      [family("d8", reg), withRegister(operation, false)],
      [family("dc", reg < 4 ? reg : reg ^ 1), withRegister(operation, true)],
      [family("de", reg < 4 ? reg : reg ^ 1), withRegister(operation, true, 1)],
    ]),
  ),
  "d8 d0+": compareRegister(false, 0),
  "d8 d8+": compareRegister(false, 1),
  "dc d0+": compareRegister(false, 0),
  "dc d8+": compareRegister(false, 1),
  "de d0+": compareRegister(false, 1),
  "de d9": compareRegister(false, 2, true),
  "dd e0+": compareRegister(true, 0),
  "dd e8+": compareRegister(true, 1),
  "da e9": compareRegister(true, 2, true),
  "db e8+": compareFlags(true, 0),
  "db f0+": compareFlags(false, 0),
  "df e8+": compareFlags(true, 1),
  "df f0+": compareFlags(false, 1),
  "d9 e0": sign((s) => s ^ 1),
  "d9 e1": sign(() => 0),
  "d9 e4": test,
  "d9 e5": examineTop,
  "d9 f0": function1(powerMinusOne),
  "d9 f1": function2(timesLogarithm, true),
  "d9 f2": clearingC2(tangent),
  "d9 f3": function2(arcTangent2, true),
  "d9 f4": extractParts,
  "d9 f5": partialRemainder(true),
  "d9 f8": partialRemainder(false),
  "d9 f9": function2(timesLogarithmPlusOne, true),
  "d9 fa": function1(squareRoot),
  "d9 fb": clearingC2(sineCosine),
  "d9 fc": function1(roundToInteger),
  "d9 fd": function2(scale, false),
  "d9 fe": clearingC2(angleFunction(false)),
  "d9 ff": clearingC2(angleFunction(true)),
};
