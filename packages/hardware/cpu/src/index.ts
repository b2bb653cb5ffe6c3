/** @swtdx/cpu: logical processors: CPUID, MSRs, paging and EPT walks, TLBs, VMX, SEAM, #VE, #MC. */
export * from "./interface/outcome.js";
export * from "./interface/memory.js";
export * from "./interface/seam.js";
export type {
  LogicalProcessor,
  ProcessorOptions,
  RandomSource,
  SeamcallOutcome,
} from "./interface/processor.js";
export * from "./interface/engine.js";
// A logical processor's registers are part of its interface.
export { Gpr, REG, REGISTER_FILE_SIZE, RegisterFile, SEG, SEGMENT_SIZE, SegmentRegister } from "@swtdx/x86";
export { Processor } from "./processor.js";
export type { GuestExit, GuestShutdown, PostMortem } from "./guest/post-mortem.js";
export { ProcessorIdle } from "./guest/interrupts.js";
export { VMCS, type VmcsFieldName } from "./vmx/fields.js";
export { ENTRY, EXIT, ExitReason, PIN, PROC, PROC2, PROC3, VmxError } from "./vmx/controls.js";
export { VMCS_REGION_SIZE, VMCS_REVISION } from "./vmx/vmcs.js";
export { ProgramEngine } from "./engine/program-engine.js";
export { X86Engine, type X86EngineOptions } from "./engine/x86-engine.js";
