/**
 * Decoder: bytes to the fields of a record (layout.ts), for 16-, 32- and 64-bit code.
 *
 * Source: Intel SDM vol. 2 ch. 2 (instruction format), appendix A. It allocates nothing, reads no byte at or behind
 * `end`, and takes at most 15 bytes.
 */
import { ENGINE } from "../layout.js";
import { REG, RegisterFile, SEG } from "../register-file.js";
import { type OpcodeForm, type OpcodeTable, type OperandSpec } from "./opcode-table.js";

/** What decoding found. */
export const Decoded = {
  OK: 0,
  /** The instruction goes on behind `end`. */
  TRUNCATED: 1,
  /** No such instruction: #UD. */
  UNDEFINED: 2,
  /** More than 15 bytes: #GP(0). */
  TOO_LONG: 3,
} as const;

/** Code sizes. */
export const CodeSize = { BITS16: 0, BITS32: 1, BITS64: 2 } as const;

const MAX_LENGTH = 15;
/** Base and index registers of 16-bit addresses by ModRM.rm: BX SI, BX DI, BP SI, BP DI, SI, DI, BP, BX. */
const BASE16 = [3, 3, 5, 5, 6, 7, 5, 3];
const INDEX16 = [6, 7, 6, 7, 16, 16, 16, 16];
const segmentBase = (n: number) => RegisterFile.segment(n) + SEG.BASE;

export class Decoder {
  /** Results of the last `decode`. */
  form: OpcodeForm | undefined;
  length = 0;
  /** 16, 32 or 64. */
  operandSize = 32;
  /** 0 16 bits, 1 32 bits, 2 64 bits. */
  addressSize = 1;
  memory = false;
  modrm = 0;
  /** ModRM.reg with REX.R (0..15). */
  reg = 0;
  /** Operands' places: register file offset of operand 0, 1 and 2; -1 none. */
  a = 0;
  b = 0;
  c = 0;
  /** Operand 1 is an immediate. */
  bImmediate = false;
  /** Base and index numbers (16 none, 17 RIP), scale as a shift, segment number, displacement. */
  base = 16;
  index = 16;
  scale = 0;
  segment = 3;
  /** A segment prefix was given. */
  override = false;
  displacement = 0;
  /** Displacement of 64 bits (moffs): high half. */
  displacementHigh = 0;
  /** The memory operand is a moffs. */
  absolute = false;
  /** Immediate as two halves, sign-extended. */
  immLow = 0;
  immHigh = 0;
  /** 0 none, 1 F3, 2 F2. */
  rep = 0;
  lock = false;
  /** Has an immediate, or a branch displacement, in imm. */
  hasImmediate = false;
  private rex = 0;
  private bytes!: Uint8Array;
  private position = 0;
  private end = 0;
  private start = 0;
  private vvvv = 0;

  constructor(private readonly table: OpcodeTable) {}

  /** @param end no byte at or behind it is read @param code CodeSize @returns Decoded */
  decode(bytes: Uint8Array, start: number, end: number, code: number): number {
    this.bytes = bytes;
    this.start = this.position = start;
    this.end = end;
    this.code64 = code === CodeSize.BITS64;
    const status = this.instruction(code);
    this.length = this.position - start;
    if (this.length > MAX_LENGTH) return Decoded.TOO_LONG;
    return status;
  }

  /** Next byte, or -1 behind the end or after 15 bytes. */
  private next(): number {
    if (this.position - this.start >= MAX_LENGTH) {
      this.position = this.start + MAX_LENGTH + 1;
      return -1;
    }
    if (this.position >= this.end) return -1;
    return this.bytes[this.position++];
  }
  private short(): number {
    return this.position - this.start > MAX_LENGTH ? Decoded.TOO_LONG : Decoded.TRUNCATED;
  }

  private instruction(code: number): number {
    let operand16 = false;
    let address = false;
    this.rep = 0;
    this.lock = false;
    this.rex = 0;
    this.override = false;
    this.segment = 3;
    this.memory = false;
    this.hasImmediate = false;
    this.absolute = false;
    this.bImmediate = false;
    this.immLow = this.immHigh = 0;
    this.a = this.b = this.c = 0;
    this.base = this.index = 16;
    this.scale = this.displacement = this.displacementHigh = 0;
    this.form = undefined;
    let opcode: number;
    prefixes: for (;;) {
      opcode = this.next();
      if (opcode < 0) return this.short();
      switch (opcode) {
        case 0x66:
          operand16 = true;
          break;
        case 0x67:
          address = true;
          break;
        case 0xf0:
          this.lock = true;
          break;
        case 0xf2:
          this.rep = 2;
          break;
        case 0xf3:
          this.rep = 1;
          break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
          if (code !== CodeSize.BITS64) {
            this.segment = (opcode >> 3) & 3;
            this.override = true;
          }
          break;
        case 0x64:
        case 0x65:
          this.segment = opcode - 0x60;
          this.override = true;
          break;
        default:
          if (code === CodeSize.BITS64 && (opcode & 0xf0) === 0x40) {
            this.rex = opcode;
            continue;
          }
          break prefixes;
      }
      this.rex = 0; // only directly before the opcode does it count
    }
    this.addressSize =
      code === CodeSize.BITS64 ? (address ? 1 : 2) : (code === CodeSize.BITS32) !== address ? 1 : 0;

    let map = 0;
    this.vvvv = 0;
    if ((opcode === 0xc4 || opcode === 0xc5) && (code === CodeSize.BITS64 || this.peekRegisterForm())) {
      if (operand16 || this.lock || this.rep || this.rex) return Decoded.UNDEFINED;
      let p = this.next();
      if (p < 0) return this.short();
      this.rex = 0x40 | (p & 0x80 ? 0 : 4);
      map = 4;
      if (opcode === 0xc4) {
        this.rex |= (p & 0x40 ? 0 : 2) | (p & 0x20 ? 0 : 1);
        map = 3 + (p & 31);
        if (map < 4 || map > 6) return Decoded.UNDEFINED;
        p = this.next();
        if (p < 0) return this.short();
        if (p & 0x80) this.rex |= 8;
      }
      if (code !== CodeSize.BITS64) this.rex &= 0;
      this.vvvv = (~p >> 3) & 15;
      if (p & 4) return Decoded.UNDEFINED;
      operand16 = (p & 3) === 1;
      this.rep = (p & 3) === 2 ? 1 : (p & 3) === 3 ? 2 : 0;
      opcode = this.next();
      if (opcode < 0) return this.short();
    } else if (opcode === 0x0f) {
      opcode = this.next();
      map = 1;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? 2 : 3;
        opcode = this.next();
      }
      if (opcode < 0) return this.short();
    }
    const forms = this.table[map * 256 + opcode];
    if (!forms) return Decoded.UNDEFINED;

    let modrm = -1;
    if (forms[0].hasModrm) {
      modrm = this.next();
      if (modrm < 0) return this.short();
      this.modrm = modrm;
    }
    const form = this.choose(forms, operand16, modrm, code);
    if (!form) return Decoded.UNDEFINED;
    this.form = form;

    // A prefix that chooses the form is not an operand size as well, except where a general register is sized by it.
    const sizing = operand16 && form.prefix !== "66";
    const wide = (this.rex & 8) !== 0 && code === CodeSize.BITS64;
    if (code === CodeSize.BITS64) {
      this.operandSize = wide || form.force64 ? 64 : sizing ? 16 : form.default64 ? 64 : 32;
    } else this.operandSize = (code === CodeSize.BITS32) !== sizing ? 32 : 16;

    this.reg = ((modrm >> 3) & 7) | ((this.rex & 4) << 1);
    if (form.hasModrm) {
      this.memory = modrm < 0xc0 && !form.ignoresMod;
      if (this.memory && !this.modrmAddress(modrm)) return this.short();
    }
    if (this.lock && !(form.lockable && this.memory && form.operands[0].kind !== "G"))
      return Decoded.UNDEFINED;
    const operands = form.operands;
    for (let i = 0; i < operands.length; i++) {
      const status = this.operand(operands[i], i, opcode, modrm, code);
      if (status !== Decoded.OK) return status;
    }
    return Decoded.OK;
  }

  /** In 16- and 32-bit code C4 and C5 are VEX only if what follows looks like ModRM's register form. */
  private peekRegisterForm(): boolean {
    return this.position < this.end && this.bytes[this.position] >= 0xc0;
  }

  private choose(
    forms: readonly OpcodeForm[],
    operand16: boolean,
    modrm: number,
    code: number,
  ): OpcodeForm | undefined {
    for (let i = 0; i < forms.length; i++) {
      const f = forms[i];
      if (f.prefix !== "") {
        if (
          this.rep === 1
            ? f.prefix !== "f3"
            : this.rep === 2
              ? f.prefix !== "f2"
              : operand16
                ? f.prefix !== "66"
                : f.prefix !== "np"
        )
          continue;
      }
      if (f.reg >= 0 && f.reg !== ((modrm >> 3) & 7)) continue;
      if (f.hasModrm) {
        // Moves from and to control and debug registers ignore ModRM.mod.
        const memory = modrm < 0xc0;
        if (!(memory ? f.memForm : f.regForm)) continue;
        if (f.rm >= 0 && (memory || f.rm !== (modrm & 7))) continue;
      }
      if (!(code === CodeSize.BITS64 ? f.in64 : f.in32)) continue;
      return f;
    }
    return undefined;
  }

  /** ModRM's memory operand. False if bytes are missing. */
  private modrmAddress(modrm: number): boolean {
    const mod = modrm >> 6;
    let rm = modrm & 7;
    if (this.addressSize === 0) {
      this.base = BASE16[rm]!;
      this.index = INDEX16[rm]!;
      if (mod === 0 && rm === 6) {
        this.base = 16;
        if (!this.disp16()) return false;
      } else if (mod === 1) {
        if (!this.disp8()) return false;
      } else if (mod === 2 && !this.disp16()) return false;
      if (!this.override && this.base === 5) this.segment = 2;
      return true;
    }
    let noBase = false;
    if (rm === 4) {
      const sib = this.next();
      if (sib < 0) return false;
      this.scale = sib >> 6;
      const index = ((sib >> 3) & 7) | ((this.rex & 2) << 2);
      this.index = index === 4 ? 16 : index;
      rm = sib & 7;
      noBase = rm === 5 && mod === 0;
    } else if (rm === 5 && mod === 0) {
      if (!this.disp32()) return false;
      this.base = this.code64 ? 17 : 16;
      return true;
    }
    if (noBase) return this.disp32();
    this.base = rm | ((this.rex & 1) << 3);
    if (!this.override && (this.base === 4 || this.base === 5)) this.segment = 2;
    if (mod === 1) return this.disp8();
    if (mod === 2) return this.disp32();
    return true;
  }
  private code64 = false;

  private disp8(): boolean {
    const d = this.next();
    this.displacement = (d << 24) >> 24;
    return d >= 0;
  }
  private disp16(): boolean {
    const low = this.next();
    const high = this.next();
    this.displacement = ((high << 24) >> 16) | low;
    return high >= 0;
  }
  private disp32(): boolean {
    if (!this.fetch(4)) return false;
    this.displacement = this.fetched;
    return true;
  }
  /** Little-endian 1 to 4 bytes, sign-extended, in `fetched`. */
  private fetched = 0;
  private fetch(count: number): boolean {
    let value = 0;
    for (let i = 0; i < count; i++) {
      const b = this.next();
      if (b < 0) return false;
      value |= b << (8 * i);
    }
    const shift = 32 - 8 * count;
    this.fetched = (value << shift) >> shift;
    return true;
  }
  private immediate(count: number): boolean {
    if (count === 8) {
      if (!this.fetch(4)) return false;
      this.immLow = this.fetched;
      if (!this.fetch(4)) return false;
      this.immHigh = this.fetched;
    } else {
      if (!this.fetch(count)) return false;
      this.immLow = this.fetched;
      this.immHigh = this.fetched >> 31;
    }
    this.hasImmediate = true;
    return true;
  }

  private place(i: number, offset: number): void {
    if (i === 0) this.a = offset;
    else if (i === 1) this.b = offset;
    else this.c = offset;
  }
  /** Register file offset of a general register; 8-bit registers 4..7 without REX are AH CH DH BH. */
  private gpr(n: number, eight: boolean): number {
    return eight && this.rex === 0 && n >= 4 && n < 8 ? (n - 4) * 8 + 1 : n * 8;
  }

  private operand(spec: OperandSpec, i: number, opcode: number, modrm: number, code: number): number {
    const rmNumber = (modrm & 7) | ((this.rex & 1) << 3);
    switch (spec.kind) {
      case "E":
      case "R":
        if (!this.memory) this.place(i, this.gpr(rmNumber, spec.size === "b"));
        break;
      case "M":
        if (!this.memory) return Decoded.UNDEFINED;
        break;
      case "G":
        this.place(i, this.gpr(this.reg, spec.size === "b"));
        break;
      case "B":
        this.place(i, (code === CodeSize.BITS64 ? this.vvvv : this.vvvv & 7) * 8);
        break;
      case "Z":
        this.place(i, this.gpr((opcode & 7) | ((this.rex & 1) << 3), spec.size === "b"));
        break;
      case "f":
        this.place(i, spec.value * 8);
        break;
      case "n":
        if (i === 1) this.bImmediate = this.hasImmediate = true;
        else this.a = spec.value;
        this.immLow = spec.value;
        break;
      case "V":
        this.place(i, REG.ZMM + this.reg * 64);
        break;
      case "W":
      case "U":
        if (!this.memory) this.place(i, REG.ZMM + rmNumber * 64);
        break;
      case "P":
        this.place(i, REG.ST + (this.reg & 7) * 16);
        break;
      case "Q":
      case "N":
        if (!this.memory) this.place(i, REG.ST + (modrm & 7) * 16);
        break;
      case "S":
        if ((this.reg & 7) > 5 || (i === 0 && (this.reg & 7) === 1)) return Decoded.UNDEFINED;
        this.number(i, this.reg & 7);
        break;
      case "C":
        if (this.reg !== 0 && this.reg !== 2 && this.reg !== 3 && this.reg !== 4 && this.reg !== 8)
          return Decoded.UNDEFINED;
        this.number(i, this.reg);
        break;
      case "D":
        if (this.reg > 7) return Decoded.UNDEFINED;
        this.number(i, this.reg);
        break;
      case "F":
        this.a = ((opcode & 7) << 8) | modrm;
        break;
      case "I":
        if (spec.size === "b2") {
          // ENTER's second immediate goes to bits 16..23 of the first.
          const level = this.next();
          if (level < 0) return this.short();
          this.immLow = (this.immLow & 0xffff) | (level << 16);
          break;
        }
        if (!this.immediate(this.immediateSize(spec.size))) return this.short();
        if (i === 1) this.bImmediate = true;
        break;
      case "J":
        if (!this.immediate(spec.size === "b" ? 1 : this.operandSize === 16 ? 2 : 4)) return this.short();
        break;
      case "A": {
        if (!this.fetch(this.operandSize === 16 ? 2 : 4)) return this.short();
        const offset = this.fetched;
        if (!this.fetch(2)) return this.short();
        this.immLow = this.operandSize === 16 ? offset & 0xffff : offset;
        this.immHigh = this.fetched & 0xffff;
        this.hasImmediate = true;
        break;
      }
      case "O":
        this.memory = this.absolute = true;
        if (this.addressSize === 2) {
          if (!this.immediate(8)) return this.short();
          this.displacement = this.immLow;
          this.displacementHigh = this.immHigh;
          this.hasImmediate = false;
        } else if (this.addressSize === 1) {
          if (!this.disp32()) return this.short();
        } else if (!this.disp16()) return this.short();
        break;
      default:
        break;
    }
    return Decoded.OK;
  }
  private number(i: number, value: number): void {
    if (i === 0) this.a = value;
    else {
      this.immLow = value;
      this.bImmediate = this.hasImmediate = true;
    }
  }
  private immediateSize(size: string): number {
    switch (size) {
      case "b":
      case "s":
        return 1;
      case "w":
        return 2;
      case "v":
        return this.operandSize / 8;
      default:
        return this.operandSize === 16 ? 2 : 4;
    }
  }

  /** Register file offset of what a segment adds to an address in 64-bit code. */
  static segmentOffset64(segment: number): number {
    return segment >= 4 ? segmentBase(segment) : ENGINE.ZERO;
  }
}
