/**
 * @swtdx/abi: what the layers must agree on, as header files are in C: numbers and layouts of every public
 * interface. No behaviour.
 */
export * from "./struct.js";
export * from "./address.js";
export * from "./trace.js";
export * from "./guest-program.js";
export * from "./program-image.js";
export * from "./efi/guid.js";
export * from "./efi/tables.js";
export * from "./efi/event-log.js";
export * from "./efi/pe.js";
export * from "./efi/call.js";
export * from "./tdvf.js";
export * from "./hob.js";
export * from "./fw-cfg.js";
export * from "./acpi.js";
export * from "./kvm.js";
export * from "./tdx/attributes.js";
export * from "./tdx/cmr.js";
export * from "./tdx/ghci.js";
export * from "./tdx/leaves.js";
export * from "./tdx/metadata-sys.js";
export * from "./tdx/metadata-td.js";
export * from "./tdx/metadata-vp.js";
export * from "./tdx/metadata.js";
export * from "./tdx/seamldr.js";
export * from "./tdx/sept.js";
export * from "./tdx/state.js";
export * from "./tdx/status.js";
export * from "./tdx/sysinfo.js";
export * from "./tdx/td-params.js";
export * from "./tdx/tdmr-info.js";
export * from "./tdx/tdreport.js";
export * from "./tdx/ve-info.js";
export * from "./quote.js";
export * from "./qgs.js";
