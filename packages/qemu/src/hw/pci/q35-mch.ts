/**
 * The q35 machine's host bridge, function 00:00.0. Intel 3 Series Express Chipset Family data sheet, chapter 5; QEMU,
 * hw/pci-host/q35.c. SMM is off in a TD, so its registers are not writable; PAM registers keep what is written and
 * change nothing, since the memory there is the TD's own.
 */
import type { AddressSpace } from "../../memory/address-space.js";
import type { GpaRange } from "../../memory/memory-map.js";
import { PciDevice } from "./pci-device.js";
import type { PciBus } from "./pci-host.js";

const MCH = { PCIEXBAR: 0x60, SMRAM: 0x9d, ESMRAMC: 0x9e } as const;
export const PCIEXBAR_DEFAULT_ADDRESS = 0xb0000000;
const PCIEXBAR_ENABLE = 1;
/** Lengths of the window in bytes by PCIEXBAR[2:1]. */
const PCIEXBAR_LENGTH = [256 * 2 ** 20, 128 * 2 ** 20, 64 * 2 ** 20] as const;

export class Q35Mch extends PciDevice {
  /** The ECAM window as firmware placed it: GPA and length in bytes. */
  ecam: GpaRange | null = null;

  constructor(
    private readonly bus: PciBus,
    private readonly mmio: AddressSpace,
  ) {
    super({ name: "mch", vendorId: 0x8086, deviceId: 0x29c0, revision: 0, classDevice: 0x0600 });
    this.view.setUint32(MCH.PCIEXBAR, PCIEXBAR_DEFAULT_ADDRESS, true);
    this.setWritable(MCH.SMRAM, 1, 0);
    this.setWritable(MCH.ESMRAMC, 1, 0);
  }

  override configWritten(offset: number, size: number): void {
    if (offset < MCH.PCIEXBAR + 8 && offset + size > MCH.PCIEXBAR) this.#mapWindow();
  }

  #mapWindow(): void {
    const low = this.view.getUint32(MCH.PCIEXBAR, true);
    const high = this.view.getUint32(MCH.PCIEXBAR + 4, true) & 0x0f;
    const length = PCIEXBAR_LENGTH[(low >>> 1) & 3];
    const enabled = (low & PCIEXBAR_ENABLE) !== 0 && length !== undefined;
    const base = high * 2 ** 32 + Math.floor((low >>> 0) / (length ?? 1)) * (length ?? 1);
    const window = enabled ? { address: base, length } : null;
    if (window?.address === this.ecam?.address && window?.length === this.ecam?.length) return;
    this.ecam = window;
    this.mmio.unmap(this.bus.ecam);
    if (window) this.mmio.map(window.address, window.length, this.bus.ecam);
  }
}
