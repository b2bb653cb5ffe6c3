/**
 * A Trust Domain for tests of guest software: private and shared memory by page, page tables as the vCPU walks them,
 * and the TDX module's guest side as far as firmware, boot loader and kernel use it. It is strict where a real
 * platform would kill the TD: private memory that nobody accepted, shared memory that nobody converted.
 * Behaviour: TDX module 1.5 ABI, ch. 5.4 and 5.5.
 */
import { PAGE_SIZE } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";

/** The guest did what would end its TD, or what the simulation does not know. */
export class SimulationError extends Error {
  override readonly name = "SimulationError";
}

/** A fault of the instruction that is being executed. */
export class GuestFault extends Error {
  override readonly name = "GuestFault";
  constructor(
    readonly vector: number,
    readonly errorCode: number | null = null,
    readonly cr2 = 0n,
  ) {
    super(`exception ${vector}`);
  }
}

export interface VeInformation {
  reason: number;
  qualification: bigint;
  gla: bigint;
  gpa: bigint;
  instruction: bigint;
}

/** What all vCPUs of a TD have in common. Addresses are GPAs without the shared bit. */
export class SimulatedTd {
  /** Accepted private pages by page number. */
  readonly privatePages = new Map<number, Uint8Array>();
  /** Page numbers that the VMM made shared. */
  readonly sharedPages = new Set<number>();
  readonly rtmr = Array.from({ length: 4 }, () => new Uint8Array(48));
  mrtd = new Uint8Array(48);
  readonly gpaw: 48 | 52;
  readonly attributes: bigint;
  readonly metadata = new Map<bigint, bigint>();
  /** Pages that were accepted at run time. */
  accepted = 0;
  /** Operations of all vCPUs; the TSC. */
  clock = 0n;

  constructor(
    readonly numVcpus: number,
    readonly hostPage: (pfn: number) => Uint8Array | null,
    options: { gpaw?: 48 | 52; attributes?: bigint } = {},
  ) {
    this.gpaw = options.gpaw ?? 48;
    this.attributes = options.attributes ?? 1n << 28n;
  }

  get sharedMask(): number {
    return 2 ** (this.gpaw - 1);
  }

  /** A page as the TD sees it, or null where only a device can be. */
  page(gpa: number, shared: boolean): Uint8Array | null {
    const pfn = Math.floor(gpa / PAGE_SIZE);
    if (!shared) {
      const page = this.privatePages.get(pfn);
      if (page) return page;
      throw new SimulationError(`private access to 0x${gpa.toString(16)}, which is not accepted`);
    }
    const page = this.hostPage(pfn);
    if (page && !this.sharedPages.has(pfn))
      throw new SimulationError(`shared access to 0x${gpa.toString(16)}, which is private`);
    return page;
  }

  /** KVM_SET_MEMORY_ATTRIBUTES: contents are lost on the way. */
  convert(gpa: number, bytes: number, toPrivate: boolean): void {
    const [first, end] = [gpa / PAGE_SIZE, (gpa + bytes) / PAGE_SIZE];
    if (toPrivate) {
      for (const pfn of this.sharedPages) if (pfn >= first && pfn < end) this.sharedPages.delete(pfn);
      return;
    }
    for (let pfn = first; pfn < end; pfn++) {
      this.sharedPages.add(pfn);
      this.privatePages.delete(pfn);
    }
  }

  /** TDG.MEM.PAGE.ACCEPT on a host that maps 4 KiB pages, as KVM does. @returns RAX */
  accept(operand: bigint): bigint {
    const level = Number(operand & 7n);
    const gpa = Number(operand & ~0xfffn);
    const bytes = PAGE_SIZE * 512 ** level;
    if (level > 1 || gpa % bytes !== 0 || gpa >= this.sharedMask) return 0xc000_0100_0000_0001n;
    const pfn = gpa / PAGE_SIZE;
    if (!this.hostPage(pfn)) throw new SimulationError(`no memory to accept at 0x${gpa.toString(16)}`);
    if (this.sharedPages.has(pfn))
      throw new SimulationError(`accepting 0x${gpa.toString(16)}, which is shared`);
    if (level === 1) return 0xc000_0b0b_0000_0001n;
    if (this.privatePages.has(pfn)) return 0x0000_0b0a_0000_0000n;
    this.privatePages.set(pfn, new Uint8Array(PAGE_SIZE));
    this.accepted++;
    return 0n;
  }

  extend(index: number, digest: Uint8Array): void {
    const both = new Uint8Array(96);
    both.set(this.rtmr[index]);
    both.set(digest, 48);
    this.rtmr[index] = new Uint8Array(sha384(both));
  }
}
