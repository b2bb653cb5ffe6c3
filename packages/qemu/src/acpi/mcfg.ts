/** MCFG: where PCI configuration space is in memory. PCI Firmware specification 3.3, 4.1.2; QEMU, hw/acpi/pci.c. */
import type { GpaRange } from "../memory/memory-map.js";
import type { Blob, Linker } from "./linker.js";

const BYTES_OF_BUS = 2 ** 20;

export function buildMcfg(blob: Blob, linker: Linker, ecam: GpaRange): number {
  return linker.table(blob, "MCFG", 1, () => {
    blob.int(0, 8);
    blob.int(ecam.address, 8);
    blob.int(0, 2); // segment
    blob.int(0, 1); // first bus
    blob.int(ecam.length / BYTES_OF_BUS - 1, 1);
    blob.int(0, 4);
  });
}
