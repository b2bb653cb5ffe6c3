/** IN, OUT, INS, OUTS and the I/O permission bitmap. SDM vol. 1 ch. 19, vol. 2. */
import type { X86Core } from "../core.js";
import { Hook } from "../environment.js";
import { Access, Misc, Mode, RECORD, Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG } from "../register-file.js";
import { hooked } from "./control.js";
import {
  FAULTED,
  fieldA,
  immediate,
  linearAddress,
  readSegment,
  readSystem,
  writeRegister,
  writeSegment,
} from "./memory.js";
import type { Operation } from "./operations.js";

/** May the ports be used? False with a fault prepared. */
function permitted(core: X86Core, port: number, bytes: number): boolean {
  const v86 = (core.mode & Mode.V86) !== 0;
  if (!(core.mode & Mode.PROTECTED)) return true;
  if (!v86 && core.cpl <= ((core.get32(REG.RFLAGS) >> 12) & 3)) return true;
  const tss = RegisterFile.segment(7);
  const limit = core.get32(tss + SEG.LIMIT) >>> 0;
  const base = core.get64(tss + SEG.BASE);
  if (core.get32(tss + SEG.AR) & 8 && limit >= 0x67) {
    const map = readSystem(core, base + 0x66n, 2);
    if (map === FAULTED) return false;
    const at = Number(map) + (port >> 3);
    if (at + 1 <= limit) {
      const bits = readSystem(core, base + BigInt(at), 2);
      if (bits === FAULTED) return false;
      if (((Number(bits) >> (port & 7)) & ((1 << bytes) - 1)) === 0) return true;
    }
  }
  core.raise(Vector.GP, 0);
  return false;
}
/** Size in bytes, and whether the port is DX. */
interface PortShape {
  readonly bytes: number;
  readonly dx: boolean;
}
/** By the handler's key: "in:r8,b16". */
const shapes = new Map<string, PortShape>();
function shape(core: X86Core, pc: number): PortShape {
  const key = core.built.keys[core.dv.getUint16(pc, true)];
  let found = shapes.get(key);
  if (!found) shapes.set(key, (found = shapeOf(key)));
  return found;
}
function shapeOf(key: string): PortShape {
  const [first, second] = key.slice(key.indexOf(":") + 1, key.indexOf("@")).split(",") as [string, string];
  const input = key.startsWith("in:");
  const accumulator = input ? first : second;
  const dx = (input ? second : first).endsWith("16") && !(input ? second : first).startsWith("i");
  const bytes = Number(accumulator.slice(1)) / 8;
  return { bytes, dx };
}
const portOf = (core: X86Core, pc: number, dx: boolean): number =>
  dx ? core.get32(16) & 0xffff : immediate(core, pc) & 0xff;

const input: Operation = (core, pc) => {
  const { bytes, dx } = shape(core, pc);
  const port = portOf(core, pc, dx);
  if (!permitted(core, port, bytes)) return core.status;
  core.portImmediate = !dx;
  const result = core.environment.portIn(core, port, bytes, false);
  if (result === Hook.DONE || result === Hook.DONE_STOP) writeRegister(core, 0, bytes * 8, core.value);
  return hooked(core, pc, result);
};
const output: Operation = (core, pc) => {
  const { bytes, dx } = shape(core, pc);
  const port = portOf(core, pc, dx);
  if (!permitted(core, port, bytes)) return core.status;
  core.portImmediate = !dx;
  core.value = core.get64(0) & ((1n << BigInt(bytes * 8)) - 1n);
  return hooked(core, pc, core.environment.portOut(core, port, bytes, false));
};

/** INS and OUTS: one element a dispatch, so that interrupts and the environment see each. */
const string =
  (isInput: boolean, byte: boolean): Operation =>
  (core, pc, bits) => {
    const bytes = byte ? 1 : Math.min(bits, 32) / 8;
    const port = core.get32(16) & 0xffff;
    const misc = core.dv.getUint16(pc + RECORD.MISC, true);
    const size = misc >> Misc.ADDRESS_SHIFT;
    const mask = size === 0 ? 0xffffn : size === 1 ? 0xffffffffn : 0xffffffffffffffffn;
    const rep = fieldA(core, pc) !== 0;
    if (!permitted(core, port, bytes)) return core.status;
    if (rep && (core.get64(8) & mask) === 0n) return Status.NEXT;
    core.portImmediate = false;
    core.portRepeated = rep;
    const register = isInput ? 7 : 6;
    const offset = core.get64(register * 8) & mask;
    const segment = isInput ? 0 : (misc >> Misc.SEGMENT_SHIFT) & 7;
    core.portSegment = segment;
    core.portAddressSize = size;
    core.operand = linearAddress(core, segment, offset);
    if (isInput) {
      // The store must be possible before the port is read.
      if (!core.fn.segment(0, offset, bytes | Access.WRITE, pc)) return core.status;
      const result = core.environment.portIn(core, port, bytes, true);
      if (result !== Hook.DONE) return hooked(core, pc, result);
      if (!writeSegment(core, 0, offset, bytes, core.value, pc)) return core.status;
    } else {
      const value = readSegment(core, segment, offset, bytes, pc);
      if (value === FAULTED) return core.status;
      core.value = value;
      const result = core.environment.portOut(core, port, bytes, true);
      if (result !== Hook.DONE) return hooked(core, pc, result);
    }
    const merge = (n: number, value: bigint) =>
      core.set64(n * 8, size === 0 ? (core.get64(n * 8) & ~0xffffn) | (value & mask) : value & mask);
    const step = BigInt(core.get32(REG.RFLAGS) & 0x400 ? -bytes : bytes);
    merge(register, BigInt.asUintN(64, offset + step));
    if (!rep) return Status.NEXT;
    const left = (core.get64(8) - 1n) & mask;
    merge(1, left);
    return left === 0n ? Status.NEXT : Status.AGAIN;
  };

export const portOperations: Record<string, Operation> = {
  in: input,
  out: output,
  insb: string(true, true),
  ins: string(true, false),
  outsb: string(false, true),
  outs: string(false, false),
};
