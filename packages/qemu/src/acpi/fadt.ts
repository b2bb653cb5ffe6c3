/** FACS and FADT, revision 3, for a machine without SMM. ACPI specification 6.5, 5.2.9; QEMU, aml-build.c (build_fadt). */
import { ACPI_ADDRESS_SPACE, ACPI_FADT_F, ICH9_PMIO, RESET_CONTROL } from "@swtdx/abi";
import { ICH9_PMIO_BASE } from "../hw/isa/ich9-lpc.js";
import type { Blob, Linker } from "./linker.js";

const FACS_SIZE = 64;
const SCI_INTERRUPT = 9;
const INT_MODEL_MULTIPLE_APIC = 1;
const LATENCY_NONE = 0xfff;
const RTC_CENTURY = 0x32;
const RESET_VALUE = 0x0f;
const GPE0_BYTES = 16;
/** "8042 present". */
const IAPC_BOOT_ARCH = 1 << 1;

export function buildFacs(blob: Blob): number {
  const start = blob.length;
  blob.append(new TextEncoder().encode("FACS"));
  blob.int(FACS_SIZE, 4);
  blob.append(new Uint8Array(FACS_SIZE - 8));
  return start;
}

export function buildFadt(blob: Blob, linker: Linker, facs: number, dsdt: number, vcpus: number): number {
  const port = (offset: number) => ICH9_PMIO_BASE + offset;
  const address = (base: number, bytes: number) => {
    blob.int(base === 0 ? ACPI_ADDRESS_SPACE.SYSTEM_MEMORY : ACPI_ADDRESS_SPACE.SYSTEM_IO, 1);
    blob.int(bytes * 8, 1);
    blob.int(0, 2);
    blob.int(base, 8);
  };
  return linker.table(blob, "FACP", 3, () => {
    linkedPointer(blob, linker, 4, facs);
    linkedPointer(blob, linker, 4, dsdt);
    blob.int(INT_MODEL_MULTIPLE_APIC, 1);
    blob.int(0, 1); // Preferred_PM_Profile: unspecified
    blob.int(SCI_INTERRUPT, 2);
    blob.int(0, 4); // SMI_CMD: none
    blob.int(0, 4); // ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
    blob.int(port(ICH9_PMIO.PM1_STS), 4);
    blob.int(0, 4); // PM1b_EVT_BLK
    blob.int(port(ICH9_PMIO.PM1_CNT), 4);
    blob.int(0, 8); // PM1b_CNT_BLK, PM2_CNT_BLK
    blob.int(port(ICH9_PMIO.PM_TMR), 4);
    blob.int(port(ICH9_PMIO.GPE0_STS), 4);
    blob.int(0, 4); // GPE1_BLK
    blob.append([4, 2, 0, 4, GPE0_BYTES, 0, 0, 0]); // lengths: PM1 event, control, PM2, timer, GPE0, GPE1; CST_CNT
    blob.int(LATENCY_NONE, 2); // C2
    blob.int(LATENCY_NONE, 2); // C3
    blob.int(0, 6); // FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH
    blob.append([0, 0, RTC_CENTURY]); // DAY_ALRM, MON_ALRM, CENTURY
    blob.int(IAPC_BOOT_ARCH, 2);
    blob.int(0, 1);
    let flags = 0;
    for (const bit of [
      ACPI_FADT_F.WBINVD,
      ACPI_FADT_F.PROC_C1,
      ACPI_FADT_F.SLP_BUTTON,
      ACPI_FADT_F.RTC_S4,
      ACPI_FADT_F.USE_PLATFORM_CLOCK,
      ACPI_FADT_F.RESET_REG_SUP,
    ])
      flags |= 1 << bit;
    if (vcpus > 8) flags |= 1 << ACPI_FADT_F.FORCE_APIC_CLUSTER_MODEL;
    blob.int(flags, 4);
    address(RESET_CONTROL.PORT, 1);
    blob.int(RESET_VALUE, 1);
    blob.int(0, 3);
    blob.int(0, 8); // X_FIRMWARE_CTRL
    linkedPointer(blob, linker, 8, dsdt);
    address(port(ICH9_PMIO.PM1_STS), 4);
    address(0, 0);
    address(port(ICH9_PMIO.PM1_CNT), 2);
    address(0, 0);
    address(0, 0);
    address(port(ICH9_PMIO.PM_TMR), 4);
    address(port(ICH9_PMIO.GPE0_STS), GPE0_BYTES);
    address(0, 0);
  });
}

/** Appends a pointer of `size` bytes to offset `target` of the same blob. */
export function linkedPointer(blob: Blob, linker: Linker, size: number, target: number): void {
  const offset = blob.length;
  blob.int(0, size);
  linker.pointer(blob, offset, size, blob, target);
}
