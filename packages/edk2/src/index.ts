/** @swtdx/edk2: the guest's firmware: a TDVF as a TypeScript guest program, with a real TDVF image. */

export {};
