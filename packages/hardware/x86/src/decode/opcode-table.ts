/**
 * The opcode maps as the decoder uses them, built from the rows of integer-opcodes.ts, vector-opcodes.ts and
 * x87-opcodes.ts. A form is looked up by map and opcode; the few forms that share an opcode are told apart by
 * mandatory prefix, ModRM.reg, ModRM.rm and register or memory form.
 */
import { INTEGER_OPCODES } from "./integer-opcodes.js";
import { VECTOR_OPCODES } from "./vector-opcodes.js";

/** Operand as the manual writes it: a letter for the place, a size. */
export interface OperandSpec {
  /** E G I J M O S C D Z R B A, V W U P Q N, F (x87), n (a number), f (a fixed register), t (size only). */
  readonly kind: string;
  /** b w d q v z y s x, empty for none; of E two letters: register, memory. */
  readonly size: string;
  readonly value: number;
}

/** One instruction form. */
export interface OpcodeForm {
  readonly name: string;
  readonly operands: readonly OperandSpec[];
  /** Mandatory prefix: "" any, "np", "66", "f3", "f2". */
  readonly prefix: string;
  /** ModRM.reg and ModRM.rm, -1 any. */
  readonly reg: number;
  readonly rm: number;
  /** Register form, memory form allowed. */
  readonly regForm: boolean;
  readonly memForm: boolean;
  readonly hasModrm: boolean;
  /** Valid in 64-bit mode; valid elsewhere. */
  readonly in64: boolean;
  readonly in32: boolean;
  readonly default64: boolean;
  readonly force64: boolean;
  readonly lockable: boolean;
  /** Always the register form, whatever ModRM.mod says (moves from and to control and debug registers). */
  readonly ignoresMod: boolean;
  /** Handler numbers by [operand size 16, 32, 64][register, memory], filled by the interpreter's builder. */
  readonly handlers: Int32Array;
}

/** Maps: one byte, 0F, 0F38, 0F3A, and the three of VEX. */
export const MAPS = ["", "0f", "0f38", "0f3a", "v0f", "v0f38", "v0f3a"] as const;

const FIXED: Record<string, [size: string, register: number]> = {
  AL: ["b", 0],
  CL: ["b", 1],
  DX: ["w", 2],
  rAX: ["v", 0],
  eAX: ["z", 0],
};

function parseOperand(text: string): OperandSpec {
  const fixed = FIXED[text];
  if (fixed) return { kind: "f", size: fixed[0], value: fixed[1] };
  if (/^\d$/.test(text)) return { kind: "n", size: "b", value: Number(text) };
  if (text === "v" || text === "z") return { kind: "t", size: text, value: 0 };
  return { kind: text[0], size: text.slice(1), value: 0 };
}

function parseRow(row: string): { map: number; opcode: number; range: number; form: OpcodeForm } {
  const [where, name, operandText, ...flags] = row.trim().split(/\s+/) as [
    string,
    string,
    string,
    ...string[],
  ];
  const match = /^(?:(np|66|f3|f2)\.)?(v?0f38|v?0f3a|v?0f)?([0-9a-f]{2})(?:\/(\d))?(?:\/(\d))?$/.exec(where);
  if (!match) throw new RangeError(`opcode row: ${row}`);
  const operands = operandText === "-" ? [] : operandText.split(",").map(parseOperand);
  const reg = match[4] === undefined ? -1 : Number(match[4]);
  const rm = match[5] === undefined ? -1 : Number(match[5]);
  const hasModrm = reg >= 0 || operands.some((o) => "EGMSCDRVWUPQNF".includes(o.kind));
  const onlyMem = flags.includes("mem");
  const onlyReg = flags.includes("reg");
  return {
    map: MAPS.indexOf((match[2] ?? "") as (typeof MAPS)[number]),
    opcode: parseInt(match[3], 16),
    range: flags.includes("x") ? 8 : 1,
    form: {
      name,
      operands,
      prefix: match[1] ?? "",
      reg,
      rm,
      regForm: hasModrm ? !onlyMem : true,
      memForm: hasModrm ? !onlyReg && rm < 0 : false,
      hasModrm,
      in64: !flags.includes("i64"),
      in32: !flags.includes("o64"),
      default64: flags.includes("d64"),
      force64: flags.includes("f64"),
      lockable: flags.includes("L"),
      ignoresMod: operands.some((o) => o.kind === "C" || o.kind === "D"),
      handlers: new Int32Array(6),
    },
  };
}

/** Forms by map * 256 + opcode; forms with a mandatory prefix first, then with ModRM.reg and rm. */
export type OpcodeTable = readonly (readonly OpcodeForm[] | undefined)[];

/** x87: the whole opcode and ModRM byte are the operation's number. */
const X87 = [0, 1, 2, 3, 4, 5, 6, 7].map((n) => `d${(8 + n).toString(16)} x87 F`).join("\n");

export function buildOpcodeTable(): OpcodeTable {
  const table: OpcodeForm[][] = [];
  for (const row of `${INTEGER_OPCODES}\n${VECTOR_OPCODES}\n${X87}`.split("\n")) {
    if (row.trim() === "") continue;
    const { map, opcode, range, form } = parseRow(row);
    for (let i = 0; i < range; i++) (table[map * 256 + opcode + i] ??= []).push(form);
  }
  const weight = (f: OpcodeForm) => {
    const prefix = f.prefix === "" ? 0 : f.prefix === "np" ? 1 : 2;
    return prefix * 4 + (f.rm >= 0 ? 2 : 0) + (f.reg >= 0 ? 1 : 0);
  };
  for (const forms of table) forms?.sort((a, b) => weight(b) - weight(a));
  return table;
}

/** Size in bits of an operand for an operand size in bits. */
export function operandBits(size: string, operandSize: number): number {
  switch (size) {
    case "b":
      return 8;
    case "w":
      return 16;
    case "d":
      return 32;
    case "q":
      return 64;
    case "x":
      return 128;
    case "v":
    case "s":
      return operandSize;
    case "z":
      return operandSize === 16 ? 16 : 32;
    case "y":
      return operandSize === 64 ? 64 : 32;
    default:
      return 0;
  }
}

/**
 * The key of the semantics a form needs: name and, per operand, a letter for where the record holds it and the size.
 * r register of operand 0, b register or immediate of operand 1, c register of operand 2, i immediate, m memory,
 * x/y/z xmm register of operand 0/1/2, n/o mm register of operand 0/1, s number, j branch target, v size only.
 */
export function handlerKey(form: OpcodeForm, operandSize: number, memory: boolean): string {
  const parts = form.operands.map((operand, i) => {
    const bits = operandBits(operand.size, operandSize);
    switch (operand.kind) {
      case "E":
      case "W":
      case "Q":
      case "M":
        if (memory) return `m${operandBits(operand.size.slice(-1), operandSize)}`;
        if (operand.kind === "W") return "xyz"[i];
        if (operand.kind === "Q") return "no"[i];
        return "rbc"[i] + operandBits(operand.size[0], operandSize);
      case "O":
        return `m${bits}`;
      case "V":
      case "U":
        return "xyz"[i];
      case "P":
      case "N":
        return "no"[i];
      case "I":
        if (i === 0) return `i${operandSize}`;
        return i === 1 ? `b${operand.size === "b" ? 8 : operandSize}` : "i";
      case "J":
        return `j${operandSize}`;
      case "n":
        return i === 1 ? "b8" : "s";
      case "S":
      case "C":
      case "D":
        return "s";
      case "A":
        return `p${operandSize}`;
      case "F":
        return memory ? "m0" : "s";
      case "t":
        return `v${operandBits(operand.size, operandSize)}`;
      default:
        return "rbc"[i] + bits;
    }
  });
  return `${form.name}:${parts.join(",")}`;
}
