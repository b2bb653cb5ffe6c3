/**
 * Hand-off blocks: what a VMM tells a TD's firmware about memory (the TD HOB list).
 * UEFI Platform Initialization specification, volume 3, "HOB Code Definitions"; edk2, MdePkg PiHob.h.
 */
import { bytes, nested, struct, type StructOf, u16, u32, u64 } from "./struct.js";

export const EFI_HOB_TYPE = {
  HANDOFF: 0x0001,
  MEMORY_ALLOCATION: 0x0002,
  RESOURCE_DESCRIPTOR: 0x0003,
  GUID_EXTENSION: 0x0004,
  FV: 0x0005,
  CPU: 0x0006,
  MEMORY_POOL: 0x0007,
  FV2: 0x0009,
  FV3: 0x000c,
  END_OF_HOB_LIST: 0xffff,
} as const;

export const EFI_HOB_GENERIC_HEADER = struct("EFI_HOB_GENERIC_HEADER", 8, {
  HobType: u16(0),
  /** Bytes, header included. */
  HobLength: u16(2),
  Reserved: u32(4),
});

export const EFI_HOB_HANDOFF_TABLE_VERSION = 9;

/** The first HOB of a list (PHIT). */
export const EFI_HOB_HANDOFF_INFO_TABLE = struct("EFI_HOB_HANDOFF_INFO_TABLE", 56, {
  Header: nested(0, EFI_HOB_GENERIC_HEADER),
  Version: u32(8),
  BootMode: u32(12),
  EfiMemoryTop: u64(16),
  EfiMemoryBottom: u64(24),
  EfiFreeMemoryTop: u64(32),
  EfiFreeMemoryBottom: u64(40),
  /** Address just behind the END HOB. */
  EfiEndOfHobList: u64(48),
});

export const EFI_RESOURCE = {
  SYSTEM_MEMORY: 0,
  MEMORY_MAPPED_IO: 1,
  IO: 2,
  FIRMWARE_DEVICE: 3,
  MEMORY_MAPPED_IO_PORT: 4,
  MEMORY_RESERVED: 5,
  IO_RESERVED: 6,
  MEMORY_UNACCEPTED: 7,
} as const;

export const EFI_RESOURCE_ATTRIBUTE = {
  PRESENT: 0x1,
  INITIALIZED: 0x2,
  TESTED: 0x4,
} as const;

export const EFI_HOB_RESOURCE_DESCRIPTOR = struct("EFI_HOB_RESOURCE_DESCRIPTOR", 48, {
  Header: nested(0, EFI_HOB_GENERIC_HEADER),
  Owner: bytes(8, 16),
  ResourceType: u32(24),
  ResourceAttribute: u32(28),
  PhysicalStart: u64(32),
  /** Bytes. */
  ResourceLength: u64(40),
});
export type EfiHobResourceDescriptor = StructOf<typeof EFI_HOB_RESOURCE_DESCRIPTOR>;

/** Every HOB starts at a multiple of this many bytes. */
export const EFI_HOB_ALIGNMENT = 8;
