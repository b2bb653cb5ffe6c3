/**
 * QEMU's firmware configuration device as its guests see it: ports, selectors, files, DMA.
 * QEMU, docs/specs/fw_cfg.rst and include/standard-headers/linux/qemu_fw_cfg.h. The directory and the DMA
 * descriptor are big-endian.
 */

/** I/O ports (x86). */
export const FW_CFG_PORT = {
  /** 16-bit write: selects an item. */
  SELECTOR: 0x510,
  /** 8-bit read: the selected item's next byte. */
  DATA: 0x511,
  /** 32-bit write, big-endian: high half of the DMA descriptor's address. */
  DMA_HIGH: 0x514,
  /** 32-bit write, big-endian: low half; starts the transfer. */
  DMA_LOW: 0x518,
} as const;

/** Selectors of items that are not files. */
export const FW_CFG = {
  SIGNATURE: 0x00,
  ID: 0x01,
  UUID: 0x02,
  RAM_SIZE: 0x03,
  NOGRAPHIC: 0x04,
  NB_CPUS: 0x05,
  MACHINE_ID: 0x06,
  KERNEL_ADDR: 0x07,
  KERNEL_SIZE: 0x08,
  KERNEL_CMDLINE: 0x09,
  INITRD_ADDR: 0x0a,
  INITRD_SIZE: 0x0b,
  BOOT_DEVICE: 0x0c,
  NUMA: 0x0d,
  BOOT_MENU: 0x0e,
  MAX_CPUS: 0x0f,
  KERNEL_ENTRY: 0x10,
  KERNEL_DATA: 0x11,
  INITRD_DATA: 0x12,
  CMDLINE_ADDR: 0x13,
  CMDLINE_SIZE: 0x14,
  CMDLINE_DATA: 0x15,
  SETUP_ADDR: 0x16,
  SETUP_SIZE: 0x17,
  SETUP_DATA: 0x18,
  FILE_DIR: 0x19,
  FILE_FIRST: 0x20,
} as const;

/** File items that a default machine offers. */
export const FW_CFG_FILE_SLOTS = 0x20;
/** Bit of a selector: the item is the architecture's own. */
export const FW_CFG_ARCH_LOCAL = 0x8000;
/** Bit of a selector: for writing; ignored by QEMU since 2.4. */
export const FW_CFG_WRITE_CHANNEL = 0x4000;
export const FW_CFG_INVALID = 0xffff;

/** The x86 machine's own items. */
export const FW_CFG_X86 = {
  ACPI_TABLES: FW_CFG_ARCH_LOCAL + 0,
  SMBIOS_ENTRIES: FW_CFG_ARCH_LOCAL + 1,
  IRQ0_OVERRIDE: FW_CFG_ARCH_LOCAL + 2,
  HPET: FW_CFG_ARCH_LOCAL + 4,
} as const;

/** Bits of item ID. */
export const FW_CFG_VERSION = { TRADITIONAL: 0x01, DMA: 0x02 } as const;

/** What a read of the DMA register gives, as bytes: "QEMU CFG". */
export const FW_CFG_DMA_SIGNATURE = "QEMU CFG";
/** DMA descriptor, 16 bytes, big-endian: control u32, length u32, address u64. */
export const FW_CFG_DMA_ACCESS_SIZE = 16;
/** Bits of the DMA descriptor's control; bits 31:16 hold the selector for SELECT. */
export const FW_CFG_DMA_CTL = { ERROR: 0x01, READ: 0x02, SKIP: 0x04, SELECT: 0x08, WRITE: 0x10 } as const;

/** Directory entry: size u32 BE, select u16 BE, reserved u16, name 56 bytes with its NUL. */
export const FW_CFG_FILE_ENTRY_SIZE = 64;
export const FW_CFG_FILE_NAME_SIZE = 56;

/** One entry of the directory. `size` in bytes. */
export interface FwCfgFileEntry {
  readonly name: string;
  readonly select: number;
  readonly size: number;
}

/** The item FILE_DIR: u32 BE count, then the entries. */
export function encodeFwCfgDirectory(files: readonly FwCfgFileEntry[]): Uint8Array {
  const out = new Uint8Array(4 + files.length * FW_CFG_FILE_ENTRY_SIZE);
  const view = new DataView(out.buffer);
  view.setUint32(0, files.length);
  files.forEach(({ name, select, size }, i) => {
    const at = 4 + i * FW_CFG_FILE_ENTRY_SIZE;
    view.setUint32(at, size);
    view.setUint16(at + 4, select);
    out.set(new TextEncoder().encode(name).subarray(0, FW_CFG_FILE_NAME_SIZE - 1), at + 8);
  });
  return out;
}

/** @throws RangeError when the bytes end before the last entry. */
export function decodeFwCfgDirectory(source: Uint8Array): FwCfgFileEntry[] {
  const view = new DataView(source.buffer, source.byteOffset, source.byteLength);
  const count = source.length < 4 ? 0 : view.getUint32(0);
  if (source.length < 4 + count * FW_CFG_FILE_ENTRY_SIZE)
    throw new RangeError(`a directory of ${count} files in ${source.length} bytes`);
  return Array.from({ length: count }, (_, i) => {
    const at = 4 + i * FW_CFG_FILE_ENTRY_SIZE;
    const name = source.subarray(at + 8, at + FW_CFG_FILE_ENTRY_SIZE);
    const end = name.indexOf(0);
    return {
      name: new TextDecoder().decode(end < 0 ? name : name.subarray(0, end)),
      select: view.getUint16(at + 4),
      size: view.getUint32(at),
    };
  });
}
