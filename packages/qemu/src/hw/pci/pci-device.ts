/**
 * A PCI function: its configuration space with the bits software may write, and its BARs. PCI Local Bus
 * specification 3.0, chapter 6; write masks as QEMU's hw/pci/pci.c sets them up.
 */
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";
import { FOUR_GIB, type GpaRange } from "../../memory/memory-map.js";

export const PCI = {
  VENDOR_ID: 0x00,
  DEVICE_ID: 0x02,
  COMMAND: 0x04,
  STATUS: 0x06,
  REVISION_ID: 0x08,
  CLASS_PROG: 0x09,
  CLASS_DEVICE: 0x0a,
  CACHE_LINE_SIZE: 0x0c,
  HEADER_TYPE: 0x0e,
  BAR0: 0x10,
  SUBSYSTEM_VENDOR_ID: 0x2c,
  SUBSYSTEM_ID: 0x2e,
  CAPABILITY_LIST: 0x34,
  INTERRUPT_LINE: 0x3c,
  INTERRUPT_PIN: 0x3d,
} as const;
export const PCI_COMMAND = {
  IO: 0x001,
  MEMORY: 0x002,
  MASTER: 0x004,
  SERR: 0x100,
  INTX_DISABLE: 0x400,
} as const;
export const PCI_STATUS = { CAP_LIST: 0x10 } as const;
export const PCI_HEADER_TYPE_MULTI_FUNCTION = 0x80;
const BAR = { IO: 0x01, MEM64: 0x04, PREFETCH: 0x08 } as const;
/** Bytes of a function's configuration space with PCI Express. */
export const PCIE_CONFIG_SIZE = 4096;
/** What QEMU's own devices carry as subsystem. */
const SUBSYSTEM = { VENDOR: 0x1af4, ID: 0x1100 } as const;

export interface PciIdentity {
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class and subclass as one word, programming interface. */
  readonly classDevice: number;
  readonly classProg?: number;
  readonly multiFunction?: boolean;
}

export interface BarOptions {
  readonly kind: "io" | "mem32" | "mem64";
  readonly prefetchable?: boolean;
  /** Bytes, a power of two. */
  readonly size: number;
  readonly region: IoRegion;
}

export class PciDevice {
  readonly name: string;
  readonly config = new Uint8Array(PCIE_CONFIG_SIZE);
  /** Bits that software may write; those of `clear` it clears by writing 1. */
  readonly writable = new Uint8Array(PCIE_CONFIG_SIZE);
  readonly clear = new Uint8Array(PCIE_CONFIG_SIZE);
  readonly view = new DataView(this.config.buffer);
  readonly #bars = new Map<number, BarOptions & { address: number | null }>();
  #spaces: { ports: AddressSpace; mmio: AddressSpace } | null = null;

  constructor(identity: PciIdentity) {
    this.name = identity.name;
    const { view } = this;
    view.setUint16(PCI.VENDOR_ID, identity.vendorId, true);
    view.setUint16(PCI.DEVICE_ID, identity.deviceId, true);
    this.config[PCI.REVISION_ID] = identity.revision;
    this.config[PCI.CLASS_PROG] = identity.classProg ?? 0;
    view.setUint16(PCI.CLASS_DEVICE, identity.classDevice, true);
    if (identity.multiFunction) this.config[PCI.HEADER_TYPE] = PCI_HEADER_TYPE_MULTI_FUNCTION;
    view.setUint16(PCI.SUBSYSTEM_VENDOR_ID, SUBSYSTEM.VENDOR, true);
    view.setUint16(PCI.SUBSYSTEM_ID, SUBSYSTEM.ID, true);
    const command =
      PCI_COMMAND.IO | PCI_COMMAND.MEMORY | PCI_COMMAND.MASTER | PCI_COMMAND.SERR | PCI_COMMAND.INTX_DISABLE;
    this.setWritable(PCI.COMMAND, 2, command);
    this.writable[PCI.CACHE_LINE_SIZE] = 0xff;
    this.writable[PCI.INTERRUPT_LINE] = 0xff;
    this.writable.fill(0xff, 0x40, 0x100);
    this.clear[PCI.STATUS + 1] = 0xf9;
  }

  /** Sets which bits of the `size`-byte register at `offset` software may write. */
  setWritable(offset: number, size: number, bits: number): void {
    for (let i = 0; i < size; i++) this.writable[offset + i] = (bits >>> (8 * i)) & 0xff;
  }

  /** Declares BAR `index` (a 64-bit one takes the next as well). */
  setBar(index: number, bar: BarOptions): void {
    this.#bars.set(index, { ...bar, address: null });
    const at = PCI.BAR0 + 4 * index;
    const flags = bar.kind === "io" ? BAR.IO : bar.kind === "mem64" ? BAR.MEM64 : 0;
    this.view.setUint32(at, flags | (bar.prefetchable ? BAR.PREFETCH : 0), true);
    this.setWritable(at, 4, ~(bar.size - 1));
    if (bar.kind === "mem64") this.setWritable(at + 4, 4, 0xffffffff);
  }

  /**
   * Appends a capability of `size` bytes (its first two are filled in) at `offset`. Software may not write it but
   * where setWritable says so.
   */
  addCapability(id: number, offset: number, size: number): void {
    this.config[offset] = id;
    this.config[offset + 1] = this.config[PCI.CAPABILITY_LIST]!;
    this.config[PCI.CAPABILITY_LIST] = offset;
    this.config[PCI.STATUS] |= PCI_STATUS.CAP_LIST;
    this.writable.fill(0, offset, offset + size);
  }

  /** Called once when the function is put on a bus. */
  plug(ports: AddressSpace, mmio: AddressSpace): void {
    this.#spaces = { ports, mmio };
  }

  /** Where its 64-bit BARs above 4 GiB are. */
  memory64(): GpaRange[] {
    return [...this.#bars.values()].flatMap(({ kind, address, size }) =>
      kind === "mem64" && address !== null && address >= FOUR_GIB ? [{ address, length: size }] : [],
    );
  }

  readConfig(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.config[offset + i] << (8 * i);
    return value >>> 0;
  }

  writeConfig(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const writable = this.writable[at];
      this.config[at] = ((this.config[at] & ~writable) | (byte & writable)) & ~(byte & this.clear[at]);
    }
    if (offset < PCI.BAR0 + 24 && offset + size > PCI.COMMAND) this.#mapBars();
    this.configWritten(offset, size);
  }

  /** For functions whose registers do something when written: called after every write. */
  configWritten(_offset: number, _size: number): void {}

  #mapBars(): void {
    if (this.#spaces === null) return;
    const command = this.view.getUint16(PCI.COMMAND, true);
    for (const [index, bar] of this.#bars) {
      const at = PCI.BAR0 + 4 * index;
      const low = this.view.getUint32(at, true);
      const high = bar.kind === "mem64" ? this.view.getUint32(at + 4, true) : 0;
      const base = high * 2 ** 32 + (bar.kind === "io" ? (low & ~3) >>> 0 : (low & ~15) >>> 0);
      const enabled = (command & (bar.kind === "io" ? PCI_COMMAND.IO : PCI_COMMAND.MEMORY)) !== 0;
      const limit = bar.kind === "io" ? 0x10000 : bar.kind === "mem32" ? 2 ** 32 : 2 ** 51;
      const address = enabled && base !== 0 && base + bar.size <= limit ? base : null;
      if (address === bar.address) continue;
      const space = bar.kind === "io" ? this.#spaces.ports : this.#spaces.mmio;
      if (bar.address !== null) space.unmap(bar.region);
      if (address !== null) space.map(address, bar.size, bar.region);
      bar.address = address;
    }
  }
}
