/**
 * MADT: processors and the I/O APIC; PCAT_COMPAT is clear, since there is no 8259. ACPI specification 6.5, 5.2.12;
 * QEMU, hw/i386/acpi-common.c (acpi_build_madt).
 */
import { ACPI_MADT_TYPE } from "@swtdx/abi";
import { IOAPIC_ADDRESS } from "../hw/intc/ioapic.js";
import type { Blob, Linker } from "./linker.js";

const LOCAL_APIC_ADDRESS = 0xfee00000;
const ENABLED = 1;
const IOAPIC_ID = 0;
/** Active high, level triggered. */
const LEVEL_HIGH = 0x0d;
/** ISA interrupts that PCI devices may share. */
const PCI_IRQS = [5, 9, 10, 11] as const;

/** The entry of a processor that is there. */
export const madtLocalApic = (id: number): number[] => [
  ACPI_MADT_TYPE.LOCAL_APIC,
  8,
  id,
  id,
  ENABLED,
  0,
  0,
  0,
];

export function buildMadt(blob: Blob, linker: Linker, vcpus: number): number {
  return linker.table(blob, "APIC", 3, () => {
    blob.int(LOCAL_APIC_ADDRESS, 4);
    blob.int(0, 4);
    for (let id = 0; id < vcpus; id++) blob.append(madtLocalApic(id));
    blob.append([ACPI_MADT_TYPE.IO_APIC, 12, IOAPIC_ID, 0]);
    blob.int(IOAPIC_ADDRESS, 4);
    blob.int(0, 4);
    const override = (irq: number, gsi: number, flags: number) => {
      blob.append([ACPI_MADT_TYPE.INTERRUPT_OVERRIDE, 10, 0, irq]);
      blob.int(gsi, 4);
      blob.int(flags, 2);
    };
    override(0, 2, 0);
    for (const irq of PCI_IRQS) override(irq, irq, LEVEL_HIGH);
    // NMI: LINT1 of all processors.
    blob.append([ACPI_MADT_TYPE.LOCAL_APIC_NMI, 6, 0xff, 0, 0, 1]);
  });
}
