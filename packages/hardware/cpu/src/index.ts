/** @swtdx/cpu: logical processors: CPUID, MSRs, paging and EPT walks, TLBs, VMX, SEAM, #VE, #MC. */
export * from "./interface/outcome.js";
export * from "./interface/memory.js";
export * from "./interface/seam.js";
export * from "./interface/processor.js";
export * from "./interface/engine.js";
// A logical processor's registers are part of its interface.
export { Gpr, REG, REGISTER_FILE_SIZE, RegisterFile, SEG, SEGMENT_SIZE, SegmentRegister } from "@swtdx/x86";
