/** x87 control: FNINIT, FNCLEX, FLDCW, FNSTCW, FNSTSW, FINCSTP, FDECSTP, FFREE, FNOP. SDM vol. 1 ch. 8.3.11, vol. 2. */
import type { X86Core } from "../core.js";
import { Status } from "../layout.js";
import { REG } from "../register-file.js";
import { type Row, operand, writes, written } from "./x87-move.js";
import { FSW, getTop, initialize, pop, setEmpty, setTop, summarize } from "./x87-state.js";

/** Bits of the control word that can be written; bit 6 is always set. */
const WRITABLE = 0x1f3f;

export function setControl(core: X86Core, value: number): void {
  core.set32(REG.FCW, (value & WRITABLE) | 0x40);
}
const loadControl: Row = (core, pc) => {
  const host = operand(core, pc, 2);
  if (host === 0) return core.status;
  setControl(core, core.dv.getUint16(host, true));
  summarize(core);
  return Status.NEXT;
};
const storeWord =
  (register: number): Row =>
  (core, pc) => {
    const host = writes(core, pc, 2);
    if (host === 0) return core.status;
    core.dv.setUint16(host, core.get32(register), true);
    written(core, host);
    return Status.NEXT;
  };
const statusToAx: Row = (core) => {
  core.dv.setUint16(core.regs.base, core.get32(REG.FSW), true);
  return Status.NEXT;
};
const init: Row = (core) => {
  initialize(core);
  return Status.NEXT;
};
const clear: Row = (core) => {
  core.set32(REG.FSW, core.get32(REG.FSW) & 0x7f00);
  return Status.NEXT;
};
const turn =
  (by: number): Row =>
  (core) => {
    setTop(core, getTop(core) + by);
    core.set32(REG.FSW, core.get32(REG.FSW) & ~FSW.C1);
    return Status.NEXT;
  };
const free =
  (popping: boolean): Row =>
  (core, _pc, n) => {
    setEmpty(core, n, true);
    core.set32(REG.FSW, core.get32(REG.FSW) & ~FSW.C1);
    if (popping) pop(core);
    return Status.NEXT;
  };
const nothing: Row = () => Status.NEXT;

/** Keys as in x87-move.ts. These look at no pending exception. */
export const CONTROL_NO_WAIT: Record<string, Row> = {
  "d9/7": storeWord(REG.FCW),
  "dd/7": storeWord(REG.FSW),
  "df e0": statusToAx,
  "db e2": clear,
  "db e3": init,
  // FNENI, FNDISI and FNSETPM did something to the 8087 and the 287.
  "db e0": nothing,
  "db e1": nothing,
  "db e4": nothing,
};
export const CONTROL: Record<string, Row> = {
  "d9/5": loadControl,
  "d9 d0": nothing,
  "d9 f6": turn(-1),
  "d9 f7": turn(1),
  "dd c0+": free(false),
  "df c0+": free(true),
};
