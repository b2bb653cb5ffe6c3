/**
 * TDVF metadata: how a firmware image tells the VMM which parts go where in a TD's memory and which are measured.
 * Intel TDX Virtual Firmware Design Guide, "TDVF Descriptor"; found through OVMF's GUIDed table (edk2,
 * OvmfPkg/ResetVector).
 */
import { struct, type StructOf, u32, u64 } from "./struct.js";

/** Footer of OVMF's GUIDed table; its GUID ends OVMF_TABLE_BYTES_AFTER bytes before the end of the image. */
export const OVMF_TABLE_FOOTER_GUID = "96b582de-1fb2-45f7-baea-a366c55a082d";
/** Bytes of the image behind the table's footer (the reset vector). */
export const OVMF_TABLE_BYTES_AFTER = 0x20;
/** Table entry whose data is a u32: the distance in bytes from the end of the image to the descriptor. */
export const TDX_METADATA_OFFSET_GUID = "e47a6535-984a-4798-865e-4685a7bf8ec2";
/** The sixteen bytes in front of the descriptor. */
export const TDX_METADATA_GUID = "e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae";

/** "TDVF", little-endian. */
export const TDVF_SIGNATURE = 0x46564454;
export const TDVF_VERSION = 1;
/** Memory addresses and sizes of sections are multiples of this many bytes. */
export const TDVF_ALIGNMENT = 4096;

export const TDVF_DESCRIPTOR = struct("TDVF_DESCRIPTOR", 16, {
  Signature: u32(0),
  /** Bytes of descriptor and sections. */
  Length: u32(4),
  Version: u32(8),
  NumberOfSectionEntries: u32(12),
});
export type TdvfDescriptor = StructOf<typeof TDVF_DESCRIPTOR>;

export const TDVF_SECTION = struct("TDVF_SECTION", 32, {
  /** Offset in bytes in the image. */
  DataOffset: u32(0),
  /** Bytes in the image. */
  RawDataSize: u32(4),
  /** GPA. */
  MemoryAddress: u64(8),
  /** Bytes in memory. */
  MemoryDataSize: u64(16),
  Type: u32(24),
  Attributes: u32(28),
});
export type TdvfSectionEntry = StructOf<typeof TDVF_SECTION>;

/** Section types. TD-Shim's types from PERM_MEM on are known by name; QEMU takes the first four. */
export const TDVF_SECTION_TYPE = {
  BFV: 0,
  CFV: 1,
  TD_HOB: 2,
  TEMP_MEM: 3,
  PERM_MEM: 4,
  PAYLOAD: 5,
  PAYLOAD_PARAM: 6,
  TD_INFO: 7,
  TD_PARAMS: 8,
} as const;
export type TdvfSectionTypeName = keyof typeof TDVF_SECTION_TYPE;

/** The section's contents are extended into MRTD (TDH.MR.EXTEND). */
export const TDVF_ATTRIBUTES_MR_EXTEND = 1 << 0;
/** The section's pages are added by TDH.MEM.PAGE.AUG; QEMU ignores it. */
export const TDVF_ATTRIBUTES_PAGE_AUG = 1 << 1;
