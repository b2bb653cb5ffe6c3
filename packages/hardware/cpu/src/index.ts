/** @swtdx/cpu: logical processors: CPUID, MSRs, paging and EPT walks, TLBs, VMX, SEAM, #VE, #MC. */

export {};
