/** @swtdx/cpu: logical processors: CPUID, MSRs, paging and EPT walks, TLBs, VMX, SEAM, #VE, #MC. */
export * from "./interface/outcome.js";
export * from "./interface/memory.js";
export * from "./interface/seam.js";
export * from "./interface/processor.js";
export * from "./interface/engine.js";
