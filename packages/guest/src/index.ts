/**
 * @swtdx/guest: the kernel of a TD, as a Linux guest behaves: #VE and hypercalls, lazy acceptance of memory, shared
 * memory and swiotlb, device filter, attestation driver. `createGuest` makes one with an init of your own.
 */
import { encodeProgramPe, type GuestProgram } from "@swtdx/abi";
import { defaultInit } from "./init/default-init.js";
import type { Init } from "./init/kernel.js";
import { secondaryStart } from "./arch/smp.js";
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

/** A kernel: its image and the programs that it names. */
export interface GuestImage {
  /** An EFI application (PE32+): what a firmware or boot loader loads, measures and starts. */
  image: Uint8Array;
  /** By name; an execution engine runs a program when RIP arrives at its stub. */
  programs: ReadonlyMap<string, GuestProgram>;
}

/**
 * Makes a kernel. Its init is a guest program: ordinary TypeScript that yields what its vCPU does (abi's `guest`), with
 * the kernel's services at hand: console, memory, shared pages, attestation, event log.
 *
 * @example
 * const { image, programs } = createGuest({
 *   name: "hello",
 *   *init(kernel) {
 *     const report = yield* kernel.parts.tdxGuest.getReport(new Uint8Array(64));
 *     yield* kernel.write(`a TDREPORT of ${report.length} bytes\n`);
 *     yield* kernel.powerOff();
 *   },
 * });
 */
export function createGuest({
  name = "default",
  init = (kernel) => defaultInit(kernel),
}: GuestOptions = {}): GuestImage {
  const program = `@swtdx/guest:${name}`;
  const secondary = `${program}:secondary`;
  return {
    image: encodeProgramPe(program, [{ name: ".linux", data: new TextEncoder().encode("HdrS") }]),
    programs: new Map([
      [program, createKernelProgram(init, secondary)],
      [secondary, secondaryStart],
    ]),
  };
}
