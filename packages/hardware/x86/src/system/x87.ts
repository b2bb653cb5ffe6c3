/**
 * The x87 unit's opcodes: D8 to DF and FWAIT. What precedes an instruction (#UD, #NM, #MF) and follows it (the pointers
 * to the last instruction) is here; what it does, in x87-move.ts, x87-arithmetic.ts, x87-control.ts and
 * x87-environment.ts. SDM vol. 1 ch. 8, vol. 2 appendix A.
 */
import type { X86Core } from "../core.js";
import { ENGINE, FpuBlock, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { fieldA } from "./memory.js";
import type { Operation } from "./operations.js";
import { ARITHMETIC_MEMORY, ARITHMETIC_REGISTER } from "./x87-arithmetic.js";
import { CONTROL, CONTROL_NO_WAIT } from "./x87-control.js";
import { environmentRow } from "./x87-environment.js";
import { MOVES_MEMORY, MOVES_REGISTER, type Row } from "./x87-move.js";
import { pending, setPointer, waits } from "./x87-state.js";

interface Entry {
  readonly row: Row;
  /** Looks for pending exceptions first. */
  readonly waiting: boolean;
  /** Leaves the pointers to the last instruction alone. */
  readonly control: boolean;
}
/** Opcode's low bits and ModRM.reg. */
const MEMORY_ENTRIES = 64;
/** Opcode's low bits and the low six of ModRM. */
const REGISTER_ENTRIES = 512;

function tables(bits: number): { memory: (Entry | undefined)[]; register: (Entry | undefined)[] } {
  const memory = Array<Entry | undefined>(MEMORY_ENTRIES).fill(undefined);
  const register = Array<Entry | undefined>(REGISTER_ENTRIES).fill(undefined);
  const add = (rows: Record<string, Row>, waiting: boolean, control: boolean): void => {
    for (const [key, row] of Object.entries(rows)) {
      const opcode = parseInt(key.slice(0, 2), 16) & 7;
      const entry = { row, waiting, control };
      if (key[2] === "/") memory[opcode * 8 + Number(key[3])] = entry;
      else {
        const modrm = parseInt(key.slice(3, 5), 16) & 63;
        register.fill(entry, opcode * 64 + modrm, opcode * 64 + modrm + (key.endsWith("+") ? 8 : 1));
      }
    }
  };
  const environment = environmentRow(bits);
  add(MOVES_MEMORY, true, false);
  add(MOVES_REGISTER, true, false);
  add(ARITHMETIC_MEMORY, true, false);
  add(ARITHMETIC_REGISTER, true, false);
  add(CONTROL, true, true);
  add(CONTROL_NO_WAIT, false, true);
  add({ "d9/4": environment("fldenv"), "dd/4": environment("frstor") }, true, true);
  add({ "d9/6": environment("fnstenv"), "dd/6": environment("fnsave") }, false, true);
  return { memory, register };
}
const NARROW = tables(16);
const WIDE = tables(32);

/** Operation field of a record: the opcode's low three bits and ModRM. */
function x87(core: X86Core, pc: number, bits: number, memory: boolean): number {
  const field = fieldA(core, pc);
  const { memory: memories, register: registers } = bits === 16 ? NARROW : WIDE;
  const entry = memory
    ? memories[((field >> 5) & 0x38) | ((field >> 3) & 7)]
    : registers[((field >> 2) & 0x1c0) | (field & 63)];
  if (entry === undefined) return core.raise(Vector.UD);
  if (core.get32(ENGINE.FPU_BLOCK) & FpuBlock.X87_NM) return core.raise(Vector.NM);
  if (entry.waiting && waits(core)) return Status.FAULT;
  const was = pending(core);
  const status = entry.row(core, pc, field & 7);
  if (status !== Status.NEXT || entry.control) return status;
  setPointer(core, REG.FIP, core.get32(REG.RIP), core.get32(REG.RIP + 4));
  // Opcode and data pointer are of the last instruction with an unmasked exception (CPUID.7.EBX[6]).
  if (!was && pending(core)) {
    core.set32(REG.FOP, field & 0x7ff);
    if (memory) core.set64(REG.FDP, core.fn.address(pc));
  }
  return status;
}

export const x87Operations: Record<string, Operation> = {
  x87,
  wait: (core) => {
    if (core.get32(ENGINE.FPU_BLOCK) & FpuBlock.WAIT_NM) return core.raise(Vector.NM);
    return waits(core) ? Status.FAULT : Status.NEXT;
  },
};
