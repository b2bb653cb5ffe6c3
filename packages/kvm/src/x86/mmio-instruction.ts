/**
 * The instruction behind an MMIO exit of an ordinary VM, from its bytes: the forms that device drivers use (MOV, MOVZX,
 * MOVSX).
 * Source: Intel SDM vol. 2A ch. 2; Linux arch/x86/kvm/emulate.c, which knows them all.
 */

/** A load or store between a register (or a constant) and memory. */
export interface MmioInstruction {
  readonly kind: "load" | "store";
  /** Bytes in memory. */
  readonly size: 1 | 2 | 4 | 8;
  /** Register number; null: the constant. `high`: AH, CH, DH, BH. */
  readonly gpr: number | null;
  readonly high: boolean;
  readonly constant: bigint;
  /** Loads: bytes of the register that are written, and whether the value is sign-extended to them. */
  readonly registerSize: 1 | 2 | 4 | 8;
  readonly signed: boolean;
  /** Bytes of the instruction. */
  readonly length: number;
}

/** Size of code: 2, 4, or 8 for 64-bit mode. */
export type CodeSize = 2 | 4 | 8;

/** @returns null for an instruction that is not among the known ones */
export function decodeMmio(code: Uint8Array, mode: CodeSize): MmioInstruction | null {
  let at = 0;
  let operand = mode === 2 ? 2 : 4;
  let address: number = mode;
  let rex = 0;
  for (; at < 14; at++) {
    const byte = code[at];
    if (byte === 0x66) operand = mode === 2 ? 4 : 2;
    else if (byte === 0x67) address = mode === 8 ? 4 : mode === 4 ? 2 : 4;
    else if ([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf0, 0xf2, 0xf3].includes(byte)) continue;
    else break;
  }
  if (mode === 8 && (code[at] & 0xf0) === 0x40) rex = code[at++]!;
  if ((rex & 8) !== 0) operand = 8;
  const opcode = code[at] === 0x0f ? 0x0f00 | code[at + 1] : code[at];
  at += opcode > 0xff ? 2 : 1;
  const full = operand as 2 | 4 | 8;

  const make = (
    kind: "load" | "store",
    size: 1 | 2 | 4 | 8,
    gpr: number | null,
    rest: Partial<MmioInstruction> = {},
  ): MmioInstruction => ({
    kind,
    size,
    gpr,
    high: false,
    constant: 0n,
    registerSize: size,
    signed: false,
    length: at,
    ...rest,
  });

  // MOV with an address in the instruction: AL/eAX only.
  if (opcode >= 0xa0 && opcode <= 0xa3) {
    at += address;
    return make(opcode < 0xa2 ? "load" : "store", (opcode & 1) === 0 ? 1 : full, 0);
  }
  const form = FORMS.get(opcode);
  if (!form) return null;
  const modrm = code[at];
  const length = modrmLength(code, at, address);
  if (length === null) return null;
  at += length;
  const register = ((modrm >>> 3) & 7) | ((rex & 4) << 1);
  const size = form.size === 0 ? full : form.size;
  if (form.immediate) {
    if ((modrm & 0x38) !== 0) return null;
    const bytes = size === 8 ? 4 : size;
    const constant = readConstant(code, at, bytes);
    at += bytes;
    return make("store", size, null, { constant: BigInt.asUintN(size * 8, constant) });
  }
  // Without REX, byte registers 4-7 are the high halves of 0-3.
  const byteRegister = size === 1 && !form.extend;
  const high = byteRegister && rex === 0 && register >= 4;
  return make(form.kind, size, high ? register - 4 : register, {
    high,
    registerSize: form.extend ? full : size,
    signed: form.signed,
  });
}

interface Form {
  readonly kind: "load" | "store";
  /** 0: the operand size. */
  readonly size: 0 | 1 | 2;
  readonly immediate: boolean;
  readonly extend: boolean;
  readonly signed: boolean;
}
const form = (kind: "load" | "store", size: 0 | 1 | 2, rest: Partial<Form> = {}): Form => ({
  kind,
  size,
  immediate: false,
  extend: false,
  signed: false,
  ...rest,
});
const FORMS: ReadonlyMap<number, Form> = new Map([
  [0x88, form("store", 1)],
  [0x89, form("store", 0)],
  [0x8a, form("load", 1)],
  [0x8b, form("load", 0)],
  [0xc6, form("store", 1, { immediate: true })],
  [0xc7, form("store", 0, { immediate: true })],
  [0x0fb6, form("load", 1, { extend: true })],
  [0x0fb7, form("load", 2, { extend: true })],
  [0x0fbe, form("load", 1, { extend: true, signed: true })],
  [0x0fbf, form("load", 2, { extend: true, signed: true })],
]);

/** Bytes of ModRM, SIB and displacement; null for a register operand. */
function modrmLength(code: Uint8Array, at: number, address: number): number | null {
  const modrm = code[at];
  const mod = modrm >>> 6;
  const rm = modrm & 7;
  if (mod === 3) return null;
  if (address === 2) return 1 + (mod === 1 ? 1 : mod === 2 || rm === 6 ? 2 : 0);
  let length = 1;
  let base = rm;
  if (rm === 4) {
    base = code[at + 1] & 7;
    length++;
  }
  if (mod === 1) return length + 1;
  if (mod === 2) return length + 4;
  return base === 5 ? length + 4 : length;
}

function readConstant(code: Uint8Array, at: number, bytes: number): bigint {
  let value = 0n;
  for (let i = bytes - 1; i >= 0; i--) value = (value << 8n) | BigInt(code[at + i]);
  return BigInt.asIntN(bytes * 8, value);
}

/** What a load leaves in its register. */
export function loadResult(instruction: MmioInstruction, before: bigint, data: bigint): bigint {
  const bits = instruction.size * 8;
  const value = BigInt.asUintN(bits, data);
  if (instruction.high) return (before & ~0xff00n) | (value << 8n);
  const wide = BigInt.asUintN(
    instruction.registerSize * 8,
    instruction.signed ? BigInt.asIntN(bits, value) : value,
  );
  // 32-bit results clear the upper half; shorter ones leave the rest.
  if (instruction.registerSize >= 4) return wide;
  const mask = (1n << BigInt(instruction.registerSize * 8)) - 1n;
  return (before & ~mask) | wide;
}
/** What a store puts into memory. */
export function storeValue(instruction: MmioInstruction, register: bigint): bigint {
  if (instruction.gpr === null) return instruction.constant;
  return BigInt.asUintN(instruction.size * 8, instruction.high ? register >> 8n : register);
}
