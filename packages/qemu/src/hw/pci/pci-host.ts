/**
 * Access to PCI configuration space: mechanism #1 by ports 0xCF8 and 0xCFC, and memory accesses (ECAM, PCI Express).
 * PCI Local Bus specification 3.0, 3.2.2.3.2; PCI Express base specification, 7.2.2. One bus.
 */
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";
import type { GpaRange } from "../../memory/memory-map.js";
import type { PciDevice } from "./pci-device.js";

export const PCI_CONFIG_ADDRESS = 0xcf8;
export const PCI_CONFIG_DATA = 0xcfc;
const ENABLE = 0x80000000;

/** Device and function as one number. */
export const devfn = (device: number, fn: number): number => (device << 3) | fn;

export class PciBus {
  readonly #functions = new Map<number, PciDevice>();
  #address = 0;

  constructor(
    private readonly ports: AddressSpace,
    private readonly mmio: AddressSpace,
  ) {
    ports.map(PCI_CONFIG_ADDRESS, 4, this.#addressRegister);
    ports.map(PCI_CONFIG_DATA, 4, this.#dataRegister);
  }

  add(at: number, device: PciDevice): void {
    this.#functions.set(at, device);
    device.plug(this.ports, this.mmio);
  }

  /** The functions, by device and function number in order. */
  functions(): [number, PciDevice][] {
    return [...this.#functions].sort(([a], [b]) => a - b);
  }

  /** The range of all 64-bit BARs above 4 GiB that are decoded, or null. */
  memory64(): GpaRange | null {
    const bars = [...this.#functions.values()].flatMap((device) => device.memory64());
    if (bars.length === 0) return null;
    const address = Math.min(...bars.map((bar) => bar.address));
    return { address, length: Math.max(...bars.map((bar) => bar.address + bar.length)) - address };
  }

  #read(bus: number, at: number, offset: number, size: number): number {
    const device = bus === 0 ? this.#functions.get(at) : undefined;
    return device ? device.readConfig(offset, size) : (0xffffffff >>> (32 - 8 * size)) >>> 0;
  }

  #write(bus: number, at: number, offset: number, size: number, value: number): void {
    if (bus === 0) this.#functions.get(at)?.writeConfig(offset, size, value);
  }

  /** Only whole double words reach the address register: 0xCF9 is the reset control register. */
  readonly #addressRegister: IoRegion = {
    name: "pci-conf-idx",
    maxAccess: 4,
    read: (offset, size) => (offset === 0 && size === 4 ? this.#address : 0xffffffff),
    write: (offset, size, value) => {
      if (offset === 0 && size === 4) this.#address = value >>> 0;
    },
  };

  readonly #dataRegister: IoRegion = {
    name: "pci-conf-data",
    maxAccess: 4,
    read: (offset, size) => {
      const address = this.#address;
      if (address < ENABLE) return 0xffffffff;
      return this.#read((address >>> 16) & 0xff, (address >>> 8) & 0xff, (address & 0xfc) + offset, size);
    },
    write: (offset, size, value) => {
      const address = this.#address;
      if (address < ENABLE) return;
      this.#write((address >>> 16) & 0xff, (address >>> 8) & 0xff, (address & 0xfc) + offset, size, value);
    },
  };

  /** The ECAM window: 4 KiB a function, 1 MiB a bus; the host bridge maps it where PCIEXBAR says. */
  readonly ecam: IoRegion = {
    name: "pcie-mmcfg",
    maxAccess: 4,
    read: (offset, size) => this.#read(offset >>> 20, (offset >>> 12) & 0xff, offset & 0xfff, size),
    write: (offset, size, value) =>
      this.#write(offset >>> 20, (offset >>> 12) & 0xff, offset & 0xfff, size, value),
  };
}
