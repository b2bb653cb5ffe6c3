/**
 * ACPI as machine and guest share it beyond the table headers: fixed hardware registers, FADT and MADT constants,
 * and the commands of QEMU's table loader (fw_cfg file etc/table-loader).
 * ACPI specification 6.5, chapters 4.8 and 5.2; QEMU, hw/acpi/bios-linker-loader.c.
 */
import { bytes, struct, u32, u8 } from "./struct.js";

/** Frequency of the power-management timer in Hz. */
export const ACPI_PM_TIMER_HZ = 3579545;

/** Offsets of ICH9's ACPI registers from PMBASE. */
export const ICH9_PMIO = {
  PM1_STS: 0x00,
  PM1_EN: 0x02,
  PM1_CNT: 0x04,
  PM_TMR: 0x08,
  GPE0_STS: 0x20,
  GPE0_EN: 0x28,
  SMI_EN: 0x30,
  SMI_STS: 0x34,
  /** Bytes of the register block. */
  SIZE: 0x80,
} as const;

export const ACPI_PM1_STS = {
  TMR: 1 << 0,
  BM: 1 << 4,
  GBL: 1 << 5,
  PWRBTN: 1 << 8,
  SLPBTN: 1 << 9,
  RTC: 1 << 10,
  WAK: 1 << 15,
} as const;
export const ACPI_PM1_EN = {
  TMR: 1 << 0,
  GBL: 1 << 5,
  PWRBTN: 1 << 8,
  SLPBTN: 1 << 9,
  RTC: 1 << 10,
} as const;
export const ACPI_PM1_CNT = {
  SCI_EN: 1 << 0,
  BM_RLD: 1 << 1,
  GBL_RLS: 1 << 2,
  /** SLP_TYP: three bits from here. */
  SLP_TYP_SHIFT: 10,
  SLP_EN: 1 << 13,
} as const;
/** SLP_TYP values of the q35 machine's \_Sx objects. */
export const ACPI_SLP_TYP = { S5: 0, S3: 1, S4: 2 } as const;

/** Port of the reset control register and its values: bit 2 starts the reset that bits 1 and 3 select. */
export const RESET_CONTROL = { PORT: 0xcf9, SYS_RST: 1 << 1, RST_CPU: 1 << 2, FULL_RST: 1 << 3 } as const;

/** FADT flags by bit number (ACPI 6.5, table 5.10). */
export const ACPI_FADT_F = {
  WBINVD: 0,
  PROC_C1: 2,
  SLP_BUTTON: 5,
  RTC_S4: 7,
  RESET_REG_SUP: 10,
  USE_PLATFORM_CLOCK: 15,
  FORCE_APIC_CLUSTER_MODEL: 18,
} as const;

/** Interrupt controller structures of the MADT (ACPI 6.5, table 5.21). */
export const ACPI_MADT_TYPE = {
  LOCAL_APIC: 0,
  IO_APIC: 1,
  INTERRUPT_OVERRIDE: 2,
  LOCAL_APIC_NMI: 4,
  LOCAL_X2APIC: 9,
  LOCAL_X2APIC_NMI: 10,
  MULTIPROC_WAKEUP: 16,
} as const;
/** MADT flag: the machine has two 8259 as well. */
export const ACPI_MADT_PCAT_COMPAT = 1 << 0;

/** Generic address structure: address space IDs. */
export const ACPI_ADDRESS_SPACE = { SYSTEM_MEMORY: 0, SYSTEM_IO: 1, PCI_CONFIG: 2 } as const;

export const ACPI_TABLE_LOADER_FILE = "etc/table-loader";
export const ACPI_TABLES_FILE = "etc/acpi/tables";
export const ACPI_RSDP_FILE = "etc/acpi/rsdp";

/** Commands of the table loader. */
export const BIOS_LINKER_LOADER_COMMAND = {
  ALLOCATE: 1,
  ADD_POINTER: 2,
  ADD_CHECKSUM: 3,
  WRITE_POINTER: 4,
} as const;
/** Where ALLOCATE puts a file. */
export const BIOS_LINKER_LOADER_ZONE = { HIGH: 1, FSEG: 2 } as const;
/** Bytes of a command. */
export const BIOS_LINKER_LOADER_ENTRY_SIZE = 128;

const FILE_SIZE = 56;
const entry = BIOS_LINKER_LOADER_ENTRY_SIZE;
export const BIOS_LINKER_LOADER_ALLOCATE = struct("BiosLinkerLoaderAllocate", entry, {
  command: u32(0),
  file: bytes(4, FILE_SIZE),
  align: u32(60),
  zone: u8(64),
});
export const BIOS_LINKER_LOADER_ADD_POINTER = struct("BiosLinkerLoaderAddPointer", entry, {
  command: u32(0),
  dest_file: bytes(4, FILE_SIZE),
  src_file: bytes(60, FILE_SIZE),
  offset: u32(116),
  size: u8(120),
});
export const BIOS_LINKER_LOADER_ADD_CHECKSUM = struct("BiosLinkerLoaderAddChecksum", entry, {
  command: u32(0),
  file: bytes(4, FILE_SIZE),
  offset: u32(60),
  start: u32(64),
  length: u32(68),
});
