/**
 * Firmware volumes and files: headers, checksums, and a reader that the firmware runs on itself.
 * Source: UEFI Platform Initialization specification 1.8, vol. 3, ch. 2.1 and 3.2.
 */
import { bytes, decodeGuid, encodeGuid, struct, u16, u32, u64, u8, viewOf } from "@swtdx/abi";

/** EFI_FIRMWARE_VOLUME_HEADER with one block-map entry and its terminator. */
export const EFI_FIRMWARE_VOLUME_HEADER = struct("EFI_FIRMWARE_VOLUME_HEADER", 72, {
  FileSystemGuid: bytes(16, 16),
  FvLength: u64(32),
  Signature: bytes(40, 4),
  Attributes: u32(44),
  HeaderLength: u16(48),
  Checksum: u16(50),
  ExtHeaderOffset: u16(52),
  Revision: u8(55),
  NumBlocks: u32(56),
  BlockLength: u32(60),
});

/** EFI_FFS_FILE_HEADER; the size has 24 bits. */
export const EFI_FFS_FILE_HEADER = struct("EFI_FFS_FILE_HEADER", 24, {
  Name: bytes(0, 16),
  HeaderChecksum: u8(16),
  FileChecksum: u8(17),
  Type: u8(18),
  Attributes: u8(19),
  Size: bytes(20, 3),
  State: u8(23),
});

export const EFI_FV_FILETYPE = { RAW: 0x01, SECURITY_CORE: 0x03, APPLICATION: 0x09, PAD: 0xf0 } as const;
const EFI_SECTION_PE32 = 0x10;
/** Written header, data valid; erase polarity 1. */
const FILE_STATE = 0xf8;
const NO_FILE_CHECKSUM = 0xaa;
const BLOCK = 0x1000;

const size24 = (value: number) => new Uint8Array([value & 0xff, (value >> 8) & 0xff, value >> 16]);
const align8 = (value: number) => (value + 7) & ~7;

/** A volume's header for a volume of `length` bytes. */
export function encodeVolumeHeader(length: number, fileSystemGuid: string): Uint8Array {
  const out = EFI_FIRMWARE_VOLUME_HEADER.encode({
    FileSystemGuid: encodeGuid(fileSystemGuid),
    FvLength: BigInt(length),
    Signature: new TextEncoder().encode("_FVH"),
    Attributes: 0x0004_feff,
    HeaderLength: EFI_FIRMWARE_VOLUME_HEADER.size,
    Revision: 2,
    NumBlocks: length / BLOCK,
    BlockLength: BLOCK,
  });
  const view = viewOf(out);
  let sum = 0;
  for (let at = 0; at < out.length; at += 2) sum += view.getUint16(at, true);
  EFI_FIRMWARE_VOLUME_HEADER.write(view, { Checksum: -sum & 0xffff });
  return out;
}

/** A file with its header; `data` is what follows it. */
export function encodeFile(name: string, type: number, data: Uint8Array): Uint8Array {
  const size = EFI_FFS_FILE_HEADER.size + data.length;
  const out = new Uint8Array(size);
  const header = { Name: encodeGuid(name), Type: type, Size: size24(size) };
  EFI_FFS_FILE_HEADER.write(viewOf(out), header);
  const sum = out.subarray(0, EFI_FFS_FILE_HEADER.size).reduce((a, b) => a + b, 0);
  EFI_FFS_FILE_HEADER.write(viewOf(out), {
    HeaderChecksum: -sum & 0xff,
    FileChecksum: NO_FILE_CHECKSUM,
    State: FILE_STATE,
  });
  out.set(data, EFI_FFS_FILE_HEADER.size);
  return out;
}

/** An application file: one PE32 section. */
export function encodeApplication(name: string, pe: Uint8Array): Uint8Array {
  const section = new Uint8Array(4 + pe.length);
  section.set(size24(section.length));
  section[3] = EFI_SECTION_PE32;
  section.set(pe, 4);
  return encodeFile(name, EFI_FV_FILETYPE.APPLICATION, section);
}

/** A file in a volume; `offset` is that of its data in the volume. */
export interface VolumeFile {
  name: string;
  type: number;
  offset: number;
  size: number;
}

/** The files of a volume, up to the first free or damaged header. */
export function listFiles(volume: Uint8Array): VolumeFile[] {
  const files: VolumeFile[] = [];
  let at = EFI_FIRMWARE_VOLUME_HEADER.size;
  while (at + EFI_FFS_FILE_HEADER.size <= volume.length) {
    const header = EFI_FFS_FILE_HEADER.read(viewOf(volume), at);
    const size = header.Size[0] | (header.Size[1] << 8) | (header.Size[2] << 16);
    if (header.State !== FILE_STATE || size < EFI_FFS_FILE_HEADER.size || at + size > volume.length) break;
    files.push({
      name: decodeGuid(header.Name),
      type: header.Type,
      offset: at + EFI_FFS_FILE_HEADER.size,
      size: size - EFI_FFS_FILE_HEADER.size,
    });
    at = align8(at + size);
  }
  return files;
}

/** The PE32 section of an application file's data, or null. */
export function pe32Section(data: Uint8Array): Uint8Array | null {
  if (data.length < 4 || data[3] !== EFI_SECTION_PE32) return null;
  const size = data[0] | (data[1] << 8) | (data[2] << 16);
  return size <= data.length ? data.subarray(4, size) : null;
}
