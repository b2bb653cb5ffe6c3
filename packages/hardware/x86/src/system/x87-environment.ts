/**
 * FNSTENV, FLDENV, FNSAVE, FRSTOR: the environment in the four formats of SDM vol. 1 figures 8-9 to 8-12. FCS and FDS are
 * deprecated (CPUID.7.EBX[13]) and stored as 0; in real-address mode the offsets stand for linear addresses.
 */
import type { X86Core } from "../core.js";
import { Status } from "../layout.js";
import { REG } from "../register-file.js";
import { setControl } from "./x87-control.js";
import { type Row, operand, writes, written } from "./x87-move.js";
import {
  a,
  getTop,
  initialize,
  readExtended,
  setPointer,
  setTagWord,
  summarize,
  tagWord,
  writeExtended,
} from "./x87-state.js";

const REGISTERS = 80;
/** Bytes of the environment. */
const lengthOf = (wide: boolean): number => (wide ? 28 : 14);

/** Fields follow one another in 4 or 2 bytes; unused halves of the wide format are ones, or zeros behind pointers. */
function put(core: X86Core, host: number, wide: boolean, field: number, value: number, upper: number): void {
  if (wide) core.dv.setUint32(host + field * 4, (value & 0xffff) | (upper << 16), true);
  else core.dv.setUint16(host + field * 2, value, true);
}
function get(core: X86Core, host: number, wide: boolean, field: number): number {
  return wide ? core.dv.getUint32(host + field * 4, true) : core.dv.getUint16(host + field * 2, true);
}
function storeEnvironment(core: X86Core, host: number, wide: boolean): void {
  put(core, host, wide, 0, core.get32(REG.FCW), 0xffff);
  put(core, host, wide, 1, core.get32(REG.FSW), 0xffff);
  put(core, host, wide, 2, tagWord(core), 0xffff);
  const ip = core.get32(REG.FIP);
  const dp = core.get32(REG.FDP);
  const opcode = core.get32(REG.FOP) & 0x7ff;
  if (core.protectedMode) {
    put(core, host, wide, 3, ip, ip >>> 16);
    put(core, host, wide, 4, 0, opcode);
    put(core, host, wide, 5, dp, dp >>> 16);
    put(core, host, wide, 6, 0, 0xffff);
  } else {
    // Bits 31:16 of an address (19:16 in the narrow format) are bits 27:12 of the next field.
    put(core, host, wide, 3, ip, 0xffff);
    put(core, host, wide, 4, ((ip >>> 4) & 0xf000) | opcode, ip >>> 20);
    put(core, host, wide, 5, dp, 0xffff);
    put(core, host, wide, 6, (dp >>> 4) & 0xf000, dp >>> 20);
  }
}
function loadEnvironment(core: X86Core, host: number, wide: boolean): void {
  setControl(core, get(core, host, wide, 0));
  core.set32(REG.FSW, get(core, host, wide, 1) & 0xffff);
  setTagWord(core, get(core, host, wide, 2));
  const upper = (field: number): number => ((get(core, host, wide, field) >>> 12) & 0xffff) << 16;
  if (core.protectedMode) {
    setPointer(core, REG.FIP, get(core, host, wide, 3), 0);
    setPointer(core, REG.FDP, get(core, host, wide, 5), 0);
    core.set32(REG.FOP, wide ? (get(core, host, wide, 4) >>> 16) & 0x7ff : 0);
  } else {
    setPointer(core, REG.FIP, (get(core, host, wide, 3) & 0xffff) | upper(4), 0);
    setPointer(core, REG.FDP, (get(core, host, wide, 5) & 0xffff) | upper(6), 0);
    core.set32(REG.FOP, get(core, host, wide, 4) & 0x7ff);
  }
  summarize(core);
}

const isWide = (bits: number): boolean => bits !== 16;
/** @param bits operand size */
export const environmentRow =
  (bits: number) =>
  (name: "fnstenv" | "fldenv" | "fnsave" | "frstor"): Row =>
  (core, pc) => {
    const wide = isWide(bits);
    const length = lengthOf(wide);
    const whole = name === "fnsave" || name === "frstor";
    const bytes = whole ? length + REGISTERS : length;
    const storing = name === "fnstenv" || name === "fnsave";
    const host = storing ? writes(core, pc, bytes) : operand(core, pc, bytes);
    if (host === 0) return core.status;
    if (storing) storeEnvironment(core, host, wide);
    else loadEnvironment(core, host, wide);
    if (whole) {
      const top = getTop(core);
      for (let n = 0; n < 8; n++) {
        const register = core.regs.base + REG.ST + ((top + n) & 7) * 16;
        const memory = host + length + n * 10;
        readExtended(core, storing ? register : memory, a);
        writeExtended(core, storing ? memory : register, a);
      }
    }
    if (storing) {
      written(core, host);
      // FNSTENV masks all exceptions, FNSAVE leaves the unit as FNINIT does.
      if (whole) initialize(core);
      else {
        core.set32(REG.FCW, core.get32(REG.FCW) | 0x3f);
        summarize(core);
      }
    }
    return Status.NEXT;
  };
