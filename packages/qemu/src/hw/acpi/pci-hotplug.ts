/**
 * ACPI PCI hotplug registers, of a machine that has no bus with slots to plug into: nothing comes, nothing goes. QEMU,
 * docs/specs/acpi_pci_hotplug.rst; hw/acpi/pcihp.c.
 */
import type { IoRegion } from "../../memory/address-space.js";

export const PCI_HOTPLUG = { PORT: 0x0cc0, SIZE: 0x18, EJECT: 8, BUS: 0x10 } as const;
/** Buses that can be selected. */
const BUSES = 256;

export class PciHotplug implements IoRegion {
  readonly name = "acpi-pci-hotplug";
  readonly maxAccess = 4;
  #bus = 0;

  read(offset: number): number {
    return offset === PCI_HOTPLUG.BUS && this.#bus < BUSES ? this.#bus : 0;
  }
  write(offset: number, _size: number, value: number): void {
    if (offset === PCI_HOTPLUG.BUS) this.#bus = value >>> 0;
  }
}
