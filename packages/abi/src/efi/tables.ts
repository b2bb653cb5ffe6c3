/**
 * EFI tables and protocols that firmware, boot loader and kernel share, with the offsets of a 64-bit platform.
 * Source: UEFI specification 2.10, ch. 4 (system table), 7 (boot services), 9 (loaded image), 13 (file system),
 * 38 (confidential computing).
 */
import { addr, bytes, struct, u16, u32, u64, u8 } from "../struct.js";

/** EFI_TABLE_HEADER. */
export const EFI_TABLE_HEADER = struct("EFI_TABLE_HEADER", 24, {
  Signature: u64(0),
  Revision: u32(8),
  HeaderSize: u32(12),
  CRC32: u32(16),
  Reserved: u32(20),
});
/** "IBI SYST". */
export const EFI_SYSTEM_TABLE_SIGNATURE = 0x5453595320494249n;
/** "BOOTSERV". */
export const EFI_BOOT_SERVICES_SIGNATURE = 0x56524553544f4f42n;
/** 2.70. */
export const EFI_REVISION = 0x0002_0046;

/** EFI_SYSTEM_TABLE, without its header's fields. Addresses are linear. */
export const EFI_SYSTEM_TABLE = struct("EFI_SYSTEM_TABLE", 120, {
  Signature: u64(0),
  Revision: u32(8),
  HeaderSize: u32(12),
  CRC32: u32(16),
  FirmwareVendor: addr(24),
  FirmwareRevision: u32(32),
  ConOut: addr(64),
  RuntimeServices: addr(88),
  BootServices: addr(96),
  NumberOfTableEntries: u64(104),
  ConfigurationTable: addr(112),
});

/** Offsets of the boot services' function pointers in EFI_BOOT_SERVICES. */
export const EFI_BOOT_SERVICES = {
  AllocatePages: 40,
  FreePages: 48,
  GetMemoryMap: 56,
  HandleProtocol: 152,
  LoadImage: 200,
  StartImage: 208,
  Exit: 216,
  ExitBootServices: 232,
  LocateProtocol: 320,
} as const;
/** Bytes of EFI_BOOT_SERVICES. */
export const EFI_BOOT_SERVICES_SIZE = 376;

/** Offsets in EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL. */
export const EFI_SIMPLE_TEXT_OUTPUT = { OutputString: 8, SIZE: 80 } as const;

/** EFI_CONFIGURATION_TABLE. */
export const EFI_CONFIGURATION_TABLE = struct("EFI_CONFIGURATION_TABLE", 24, {
  VendorGuid: bytes(0, 16),
  VendorTable: addr(16),
});

/** EFI_LOADED_IMAGE_PROTOCOL. */
export const EFI_LOADED_IMAGE = struct("EFI_LOADED_IMAGE_PROTOCOL", 96, {
  Revision: u32(0),
  ParentHandle: addr(8),
  SystemTable: addr(16),
  DeviceHandle: addr(24),
  FilePath: addr(32),
  LoadOptionsSize: u32(48),
  LoadOptions: addr(56),
  ImageBase: addr(64),
  ImageSize: addr(72),
  ImageCodeType: u32(80),
  ImageDataType: u32(84),
});

/** EFI_MEMORY_DESCRIPTOR; a page is 4 KiB. */
export const EFI_MEMORY_DESCRIPTOR = struct("EFI_MEMORY_DESCRIPTOR", 40, {
  Type: u32(0),
  PhysicalStart: addr(8),
  VirtualStart: addr(16),
  NumberOfPages: addr(24),
  Attribute: u64(32),
});

export const EFI_MEMORY_TYPE = {
  Reserved: 0,
  LoaderCode: 1,
  LoaderData: 2,
  BootServicesCode: 3,
  BootServicesData: 4,
  RuntimeServicesCode: 5,
  RuntimeServicesData: 6,
  Conventional: 7,
  Unusable: 8,
  ACPIReclaim: 9,
  ACPIMemoryNVS: 10,
  MemoryMappedIO: 11,
  MemoryMappedIOPortSpace: 12,
  PalCode: 13,
  Persistent: 14,
  Unaccepted: 15,
} as const;

/** EFI_ALLOCATE_TYPE. */
export const EFI_ALLOCATE_TYPE = { AnyPages: 0, MaxAddress: 1, Address: 2 } as const;

/** Offsets in EFI_CC_MEASUREMENT_PROTOCOL. */
export const EFI_CC_MEASUREMENT = {
  GetCapability: 0,
  GetEventLog: 8,
  HashLogExtendEvent: 16,
  MapPcrToMrIndex: 24,
  SIZE: 32,
} as const;

/** EFI_CC_EVENT: the caller's description of what is measured; the event's bytes follow. */
export const EFI_CC_EVENT = struct("EFI_CC_EVENT", 18, {
  Size: u32(0),
  HeaderSize: u32(4),
  HeaderVersion: u16(8),
  MrIndex: u32(10),
  EventType: u32(14),
});
/** Flag of HashLogExtendEvent: the data is a PE image, measured by its Authenticode digest. */
export const PE_COFF_IMAGE = 0x10n;

/** Offsets in EFI_SIMPLE_FILE_SYSTEM_PROTOCOL. */
export const EFI_SIMPLE_FILE_SYSTEM = { OpenVolume: 8, SIZE: 16 } as const;
/** Offsets in EFI_FILE_PROTOCOL. */
export const EFI_FILE = { Open: 8, Close: 16, Read: 32, GetInfo: 64, SIZE: 88 } as const;
/** EFI_FILE_INFO up to its file name. */
export const EFI_FILE_INFO = struct("EFI_FILE_INFO", 80, {
  Size: addr(0),
  FileSize: addr(8),
  PhysicalSize: addr(16),
  Attribute: u64(72),
});

export const EFI_STATUS = {
  SUCCESS: 0n,
  LOAD_ERROR: 0x8000_0000_0000_0001n,
  INVALID_PARAMETER: 0x8000_0000_0000_0002n,
  UNSUPPORTED: 0x8000_0000_0000_0003n,
  BUFFER_TOO_SMALL: 0x8000_0000_0000_0005n,
  OUT_OF_RESOURCES: 0x8000_0000_0000_0009n,
  NOT_FOUND: 0x8000_0000_0000_000en,
  ABORTED: 0x8000_0000_0000_0015n,
  SECURITY_VIOLATION: 0x8000_0000_0000_001an,
} as const;
/** The name of an EFI_STATUS, or its number. */
export const efiStatusName = (status: bigint): string =>
  Object.entries(EFI_STATUS).find(([, value]) => value === status)?.[0] ?? `0x${status.toString(16)}`;

/** ACPI tables that carry the event log: header of every table, RSDP 2.0, CCEL. Source: ACPI 6.5, ch. 5.2. */
export const ACPI_TABLE_HEADER = struct("ACPI_TABLE_HEADER", 36, {
  Signature: bytes(0, 4),
  Length: u32(4),
  Revision: u8(8),
  Checksum: u8(9),
  OemId: bytes(10, 6),
  OemTableId: bytes(16, 8),
  OemRevision: u32(24),
  CreatorId: bytes(28, 4),
  CreatorRevision: u32(32),
});
export const ACPI_RSDP = struct("RSDP", 36, {
  Signature: bytes(0, 8),
  Checksum: u8(8),
  OemId: bytes(9, 6),
  Revision: u8(15),
  RsdtAddress: u32(16),
  Length: u32(20),
  XsdtAddress: addr(24),
  ExtendedChecksum: u8(32),
});
/** Confidential Computing Event Log table: CC type 2 is TDX; the log area is a GPA range. */
export const ACPI_CCEL = struct("CCEL", 56, {
  CcType: u8(36),
  CcSubType: u8(37),
  LogAreaMinimumLength: addr(40),
  LogAreaStartAddress: addr(48),
});
