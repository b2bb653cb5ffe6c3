/** @swtdx/mktme: DRAM and the memory controller with its encryption engine. */
export * from "./arena.js";
export * from "./controller.js";
export type { DimmLine } from "./page.js";
export { type KeyMaterial, MAC_BITS } from "./key.js";
export { createXtsKey, LINE_SIZE, type XtsKey, xtsDecrypt, xtsEncrypt } from "./xts.js";
