/**
 * Where the firmware lies in the image and in guest memory. The memory below 16 MiB follows
 * OvmfPkg/IntelTdx/IntelTdxX64.fdf (edk2), so that tools that know OVMF's map know this one.
 */

/** The image ends at 4 GiB, as every x86 boot firmware does. */
export const IMAGE_END = 0x1_0000_0000;
/** Bytes of the configuration firmware volume (variables), at the start of the image. */
export const CFV_SIZE = 0x1_0000;
/** Bytes of the boot firmware volume (code), to the end of the image. */
export const BFV_SIZE = 0x3_0000;
export const IMAGE_SIZE = CFV_SIZE + BFV_SIZE;
/** GPA of the image's first byte. */
export const IMAGE_BASE = IMAGE_END - IMAGE_SIZE;
export const CFV_BASE = IMAGE_BASE;
export const BFV_BASE = IMAGE_BASE + CFV_SIZE;

/** Program slots: stub and header of each program of the firmware, executed in place. */
export const SLOT_SIZE = 128;
/** GPA of slot 0: the page after the volume's headers. */
export const SLOTS_BASE = BFV_BASE + 0x100;

/** Guest memory that exists from the start (TempMem and TD_HOB sections), GPA and size in bytes. */
export const PAGE_TABLES = { base: 0x80_0000, size: 0x6000 } as const;
export const TD_HOB = { base: 0x80_9000, size: 0x2000 } as const;
export const WORK_AREA = { base: 0x80_b000, size: 0x2000 } as const;
export const TEMP_RAM = { base: 0x81_0000, size: 0x1_0000 } as const;

/** The TD mailbox page (OvmfPkg/Include/IndustryStandard/IntelTdx.h): second page of the work area. */
export const MAILBOX = WORK_AREA.base + 0x1000;
/** Scratch operands of TDCALLs: 64-byte aligned. */
export const TDCALL_SCRATCH = WORK_AREA.base + 0x400;
/** The firmware's own state (`lib/state.ts`). */
export const FIRMWARE_STATE_BASE = WORK_AREA.base + 0x100;
/** EFI_MEMORY_DESCRIPTORs of the memory map, at the start of temporary RAM. */
export const MEMORY_MAP = { base: TEMP_RAM.base, size: 0x4000 } as const;
/** The event log until there is memory for it. */
export const TEMP_LOG = { base: TEMP_RAM.base + 0x4000, size: 0x4000 } as const;
/** The stack grows down from here. */
export const STACK_TOP = TEMP_RAM.base + TEMP_RAM.size - 0x40;

/** GPA of the program slot with this index: what a function pointer to it holds. */
export const slotAddress = (index: number): number => SLOTS_BASE + index * SLOT_SIZE;
