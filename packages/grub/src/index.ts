/** @swtdx/grub: the guest's boot loader as a TypeScript guest program. */

export {};
