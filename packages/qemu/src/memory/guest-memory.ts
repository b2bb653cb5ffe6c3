/** Guest RAM as QEMU's process has it: the user mappings behind the memory slots, which in a TD hold its shared pages. */
import type { GpaRange } from "./memory-map.js";

/**
 * A user mapping, as mmap gives it. Offsets and lengths are bytes. What the process may not touch throws an error by the
 * name of HostMemoryFault: the signal that kills it.
 */
export interface UserMemory {
  read(offset: number, length: number): Uint8Array;
  write(offset: number, data: Uint8Array): void;
}

/** Guest memory as a device reaches it: by GPA without shared bit. False: there is no RAM, the access did nothing. */
export interface DmaMemory {
  read(gpa: number, target: Uint8Array): boolean;
  write(gpa: number, data: Uint8Array): boolean;
}

export interface RamBlock extends GpaRange {
  readonly name: string;
  readonly memory: UserMemory;
}

export class GuestMemory implements DmaMemory {
  constructor(readonly blocks: readonly RamBlock[]) {}

  /** The block that holds the whole range, or null. */
  find(gpa: number, length: number): RamBlock | null {
    for (const block of this.blocks)
      if (gpa >= block.address && gpa + length <= block.address + block.length) return block;
    return null;
  }

  read(gpa: number, target: Uint8Array): boolean {
    const block = this.find(gpa, target.length);
    if (block === null) return false;
    target.set(block.memory.read(gpa - block.address, target.length));
    return true;
  }

  write(gpa: number, data: Uint8Array): boolean {
    const block = this.find(gpa, data.length);
    if (block === null) return false;
    block.memory.write(gpa - block.address, data);
    return true;
  }
}
