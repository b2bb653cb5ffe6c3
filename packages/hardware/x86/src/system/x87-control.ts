/**
 * x87 control instructions, which firmware and kernels use to find and initialise the unit: FNINIT, FNCLEX, FLDCW,
 * FNSTCW, FNSTSW. Data transfers are in x87-move.ts. x87 arithmetic is not
 * here: those opcodes raise #UD.
 * SDM vol. 1 ch. 8, vol. 2.
 */
import type { X86Core } from "../core.js";
import { ENGINE, FpuBlock, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { FAULTED, fieldA, readOperand, writeOperand } from "./memory.js";
import type { Operation } from "./operations.js";
import { move } from "./x87-move.js";

/** Opcode's low three bits and ModRM.reg of the memory forms; opcode's low bits and ModRM of the register forms. */
const FLDCW = 0x105;
const FNSTCW = 0x107;
const FNSTSW_MEMORY = 0x507;
const FNINIT = 0x3e3;
const FNCLEX = 0x3e2;
const FNSTSW_AX = 0x7e0;

function control(core: X86Core, pc: number, memory: boolean): number {
  const field = fieldA(core, pc);
  const which = memory ? (field & 0x700) | ((field >> 3) & 7) : field;
  switch (which) {
    case FLDCW: {
      const value = readOperand(core, pc, 2);
      if (value === FAULTED) return core.status;
      core.set32(REG.FCW, Number(value) | 0x40);
      return Status.NEXT;
    }
    case FNSTCW:
      return writeOperand(core, pc, 2, BigInt(core.get32(REG.FCW) & 0xffff)) ? Status.NEXT : core.status;
    case FNSTSW_MEMORY:
      return writeOperand(core, pc, 2, BigInt(core.get32(REG.FSW) & 0xffff)) ? Status.NEXT : core.status;
    case FNSTSW_AX:
      core.dv.setUint16(core.regs.base, core.get32(REG.FSW), true);
      return Status.NEXT;
    case FNINIT:
      core.set32(REG.FCW, 0x37f);
      core.set32(REG.FSW, 0);
      core.set32(REG.FTW, 0xffff);
      core.set32(REG.FOP, 0);
      core.set64(REG.FIP, 0n);
      core.set64(REG.FDP, 0n);
      return Status.NEXT;
    case FNCLEX:
      core.set32(REG.FSW, core.get32(REG.FSW) & 0x7f00);
      return Status.NEXT;
    default: {
      const status = move(core, pc, which, memory);
      return status < 0 ? core.raise(Vector.UD) : status;
    }
  }
}

export const x87Operations: Record<string, Operation> = {
  x87: (core, pc, _bits, memory) => {
    if (core.get32(ENGINE.FPU_BLOCK) & FpuBlock.X87_NM) return core.raise(Vector.NM);
    return control(core, pc, memory);
  },
};
