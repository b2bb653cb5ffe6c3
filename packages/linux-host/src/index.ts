/** @swtdx/linux-host: what Linux's arch/x86/virt/vmx/tdx does: SEAMLDR call, TDMRs, PAMT, KeyID allocation, sysfs. */

export {};
