/**
 * @swtdx/guest: the kernel of a TD, as a Linux guest behaves: #VE and hypercalls, lazy acceptance of memory, shared
 * memory and swiotlb, device filter, attestation driver. `createGuest` makes one with an init of your own.
 */
import { encodeProgramPe, type GuestProgram } from "@swtdx/abi";
import { defaultInit } from "./init/default-init.js";
import type { Init } from "./init/kernel.js";
import { createKernelProgram } from "./init/main.js";

export { AttestationError } from "./drivers/tdx-guest.js";
export { ALLOWED_DEVICES, type PciDevice } from "./drivers/pci.js";
export { defaultInit } from "./init/default-init.js";
export type { Init, Kernel, KernelParts } from "./init/kernel.js";

export interface GuestOptions {
  /** Part of the program's name in the image, so that several guests can be registered. Default "default". */
  name?: string;
  /** The first process; when it returns, the kernel panics. Default: `defaultInit`. */
  init?: Init;
}

/** A kernel: its image (an EFI application, PE32+) and the program that the image names. */
export interface GuestImage {
  image: Uint8Array;
  programs: ReadonlyMap<string, GuestProgram>;
}

export function createGuest({
  name = "default",
  init = (kernel) => defaultInit(kernel),
}: GuestOptions = {}): GuestImage {
  const program = `@swtdx/guest:${name}`;
  return {
    image: encodeProgramPe(program, [{ name: ".linux", data: new TextEncoder().encode("HdrS") }]),
    programs: new Map([[program, createKernelProgram(init)]]),
  };
}
