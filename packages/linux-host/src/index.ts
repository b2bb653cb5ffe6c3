/** @swtdx/linux-host: BIOS and Linux host kernel as far as TDX and KVM need them. */
export * from "./host.js";
export { BiosError, DEFAULT_KEY_IDS, type KeyIdConfiguration } from "./bios/bios.js";
export {
  layoutHostMemory,
  MAX_HOST_MEMORY,
  type MemoryLayout,
  type MemoryRange,
  MIN_HOST_MEMORY,
} from "./bios/memory-layout.js";
export { KernelLog, type LogLevel, type LogLine } from "./kernel/printk.js";
export { Sysfs } from "./kernel/sysfs.js";
export { BadPageError, MAX_PAGE_ORDER, PageAllocator, type PfnRange } from "./mm/page-allocator.js";
export { AddressSpace, HostMemoryFault, OutOfHostMemory, UserMapping } from "./mm/user-memory.js";
export { GuestKeyIds } from "./virt/tdx/keyid.js";
export * from "./virt/tdx/seamcall.js";
export { installModule, seamldrInfo, type TdxModuleImage } from "./virt/tdx/seamldr.js";
export { decodeTdxImage, encodeTdxImage } from "./virt/tdx/tdx-image.js";
export { type TdxCpuidConfig, type TdxSysInfo } from "./virt/tdx/sysinfo.js";
export {
  buildTdxMemlist,
  constructTdmrs,
  pamtSize,
  type Tdmr,
  tdmrPamt,
  type TdmrSysInfo,
} from "./virt/tdx/tdmr.js";
export { TdxHost } from "./virt/tdx/tdx.js";
// What KVM's back ends execute on.
export { Gpr, type LogicalProcessor, type Processor } from "@swtdx/cpu";
