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
