/** Operations written in TypeScript, by instruction name; generated code calls them. */
import type { X86Core } from "../core.js";
import { Vector } from "../layout.js";
import { controlOperations } from "./control.js";
import { farOperations } from "./far.js";
import { legacy } from "./legacy.js";
import { mmxOperations } from "./mmx.js";
import { portOperations } from "./ports.js";
import { stateOperations } from "./state.js";
import { vectorOperations } from "./vector.js";
import { x87Operations } from "./x87.js";
import { syscallOperations } from "./syscalls.js";
import { xsaveOperations } from "./xsave.js";

/**
 * Executes an instruction. RIP in the register file is the instruction's own.
 * @param pc its record @param bits operand size @param memory it has a memory operand @returns Status
 */
export type Operation = (core: X86Core, pc: number, bits: number, memory: boolean) => number;

export const operations: Record<string, Operation> = {
  ...legacy,
  ...controlOperations,
  ...farOperations,
  ...syscallOperations,
  ...portOperations,
  ...vectorOperations,
  ...stateOperations,
  ...xsaveOperations,
  ...x87Operations,
  ...mmxOperations,
  undefined: (core) => core.raise(Vector.UD),
  tooLong: (core) => core.raise(Vector.GP, 0),
  ud0: (core) => core.raise(Vector.UD),
  ud1: (core) => core.raise(Vector.UD),
  ud2: (core) => core.raise(Vector.UD),
};
