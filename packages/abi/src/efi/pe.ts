/**
 * PE32+ images: the headers' layout, and the builder that wraps a TypeScript guest program into an EFI application,
 * so that any firmware can load, relocate (there is nothing to relocate) and measure it.
 * Source: Microsoft PE format, 2024; UEFI 2.10, ch. 2.1.1.
 */
import { struct, u16, u32, u64, bytes, viewOf } from "../struct.js";
import { encodeProgramHeader, encodeProgramStub, PROGRAM_STUB_SIZE } from "../program-image.js";

/** IMAGE_DOS_HEADER, the two fields that matter. */
export const IMAGE_DOS_HEADER = struct("IMAGE_DOS_HEADER", 64, { e_magic: u16(0), e_lfanew: u32(60) });
export const IMAGE_DOS_SIGNATURE = 0x5a4d;

/** "PE\0\0", IMAGE_FILE_HEADER and IMAGE_OPTIONAL_HEADER64 with 16 data directories. */
export const IMAGE_NT_HEADERS64 = struct("IMAGE_NT_HEADERS64", 264, {
  Signature: u32(0),
  Machine: u16(4),
  NumberOfSections: u16(6),
  SizeOfOptionalHeader: u16(20),
  Characteristics: u16(22),
  Magic: u16(24),
  SizeOfCode: u32(28),
  AddressOfEntryPoint: u32(40),
  BaseOfCode: u32(44),
  ImageBase: u64(48),
  SectionAlignment: u32(56),
  FileAlignment: u32(60),
  MajorSubsystemVersion: u16(72),
  SizeOfImage: u32(80),
  SizeOfHeaders: u32(84),
  CheckSum: u32(88),
  Subsystem: u16(92),
  NumberOfRvaAndSizes: u32(132),
});
export const IMAGE_NT_SIGNATURE = 0x0000_4550;
export const IMAGE_FILE_MACHINE_AMD64 = 0x8664;
export const IMAGE_NT_OPTIONAL_HDR64_MAGIC = 0x20b;
export const IMAGE_SUBSYSTEM_EFI_APPLICATION = 10;
/** Offset in IMAGE_NT_HEADERS64 of data directory `index` (u32 address, u32 size). */
export const imageDataDirectory = (index: number): number => 136 + 8 * index;
export const IMAGE_DIRECTORY_ENTRY_SECURITY = 4;

/** IMAGE_SECTION_HEADER. */
export const IMAGE_SECTION_HEADER = struct("IMAGE_SECTION_HEADER", 40, {
  Name: bytes(0, 8),
  VirtualSize: u32(8),
  VirtualAddress: u32(12),
  SizeOfRawData: u32(16),
  PointerToRawData: u32(20),
  Characteristics: u32(36),
});

const ALIGNMENT = 0x1000;
const align = (value: number) => Math.ceil(value / ALIGNMENT) * ALIGNMENT;
const CODE = 0x6000_0020;
const DATA = 0x4000_0040;

/** A section of data that goes with a program, for example a boot loader's embedded configuration. */
export interface ProgramSection {
  /** At most 8 characters. */
  name: string;
  data: Uint8Array;
}

/**
 * An EFI application whose entry point is the stub of program `name`. File offsets equal addresses relative to the
 * image base, so a loader may also use the file as it is.
 * @throws RangeError for a section name over 8 characters.
 */
export function encodeProgramPe(name: string, sections: readonly ProgramSection[] = []): Uint8Array {
  const header = encodeProgramHeader(name);
  const text = new Uint8Array(PROGRAM_STUB_SIZE + header.length);
  text.set(encodeProgramStub(PROGRAM_STUB_SIZE));
  text.set(header, PROGRAM_STUB_SIZE);
  const all: (ProgramSection & { flags: number })[] = [
    { name: ".text", data: text, flags: CODE },
    ...sections.map((section) => ({ ...section, flags: DATA })),
  ];
  const size = align(1) + all.reduce((sum, section) => sum + align(section.data.length), 0);
  const out = new Uint8Array(size);
  const view = viewOf(out);
  IMAGE_DOS_HEADER.write(view, { e_magic: IMAGE_DOS_SIGNATURE, e_lfanew: 64 });
  IMAGE_NT_HEADERS64.write(
    view,
    {
      Signature: IMAGE_NT_SIGNATURE,
      Machine: IMAGE_FILE_MACHINE_AMD64,
      NumberOfSections: all.length,
      SizeOfOptionalHeader: 240,
      Characteristics: 0x022e,
      Magic: IMAGE_NT_OPTIONAL_HDR64_MAGIC,
      SizeOfCode: align(text.length),
      AddressOfEntryPoint: ALIGNMENT,
      BaseOfCode: ALIGNMENT,
      SectionAlignment: ALIGNMENT,
      FileAlignment: ALIGNMENT,
      SizeOfImage: size,
      SizeOfHeaders: ALIGNMENT,
      Subsystem: IMAGE_SUBSYSTEM_EFI_APPLICATION,
      NumberOfRvaAndSizes: 16,
    },
    64,
  );
  let at = ALIGNMENT;
  all.forEach((section, i) => {
    const label = new TextEncoder().encode(section.name);
    if (label.length > 8) throw new RangeError(`section name "${section.name}" has more than 8 characters`);
    const raw = align(section.data.length);
    IMAGE_SECTION_HEADER.write(
      view,
      {
        Name: label,
        VirtualSize: section.data.length,
        VirtualAddress: at,
        SizeOfRawData: raw,
        PointerToRawData: at,
        Characteristics: section.flags,
      },
      64 + IMAGE_NT_HEADERS64.size + i * IMAGE_SECTION_HEADER.size,
    );
    out.set(section.data, at);
    at += raw;
  });
  return out;
}

/** A section of a parsed image; offsets and sizes in bytes. */
export interface PeSection {
  name: string;
  virtualAddress: number;
  virtualSize: number;
  rawOffset: number;
  rawSize: number;
}
/** What a loader needs of an image. */
export interface PeImage {
  entryPoint: number;
  sizeOfImage: number;
  sizeOfHeaders: number;
  subsystem: number;
  /** File offset of the CheckSum field and of the security directory entry, which Authenticode leaves out. */
  checksumOffset: number;
  securityOffset: number;
  /** File offset and size of the certificate table; size 0 when unsigned. */
  certificates: { offset: number; size: number };
  sections: readonly PeSection[];
}

/** @returns the image, or what is wrong with it. */
export function parsePe(file: Uint8Array): PeImage | { error: string } {
  if (file.length < IMAGE_DOS_HEADER.size) return { error: "shorter than a DOS header" };
  const dos = IMAGE_DOS_HEADER.decode(file);
  if (dos.e_magic !== IMAGE_DOS_SIGNATURE) return { error: "no MZ signature" };
  const at = dos.e_lfanew;
  if (at + IMAGE_NT_HEADERS64.size > file.length) return { error: "NT headers outside the file" };
  const nt = IMAGE_NT_HEADERS64.read(viewOf(file), at);
  if (nt.Signature !== IMAGE_NT_SIGNATURE) return { error: "no PE signature" };
  if (nt.Machine !== IMAGE_FILE_MACHINE_AMD64) return { error: "not an x86-64 image" };
  if (nt.Magic !== IMAGE_NT_OPTIONAL_HDR64_MAGIC) return { error: "not PE32+" };
  if (nt.NumberOfRvaAndSizes > 16) return { error: "more than 16 data directories" };
  if (nt.SizeOfHeaders > file.length) return { error: "headers outside the file" };
  if (nt.SizeOfHeaders > nt.SizeOfImage) return { error: "headers outside the image" };
  if (nt.AddressOfEntryPoint >= nt.SizeOfImage) return { error: "entry point outside the image" };
  const table = at + 24 + nt.SizeOfOptionalHeader;
  if (table + nt.NumberOfSections * IMAGE_SECTION_HEADER.size > file.length)
    return { error: "section table outside the file" };
  const sections: PeSection[] = [];
  for (let i = 0; i < nt.NumberOfSections; i++) {
    const section = IMAGE_SECTION_HEADER.read(viewOf(file), table + i * IMAGE_SECTION_HEADER.size);
    const name = new TextDecoder().decode(section.Name).replace(/\0+$/, "");
    if (section.PointerToRawData + section.SizeOfRawData > file.length)
      return { error: `section ${name} outside the file` };
    if (section.VirtualAddress + Math.max(section.VirtualSize, 1) > nt.SizeOfImage)
      return { error: `section ${name} outside the image` };
    sections.push({
      name,
      virtualAddress: section.VirtualAddress,
      virtualSize: section.VirtualSize,
      rawOffset: section.PointerToRawData,
      rawSize: section.SizeOfRawData,
    });
  }
  const security = at + imageDataDirectory(IMAGE_DIRECTORY_ENTRY_SECURITY);
  const has = nt.NumberOfRvaAndSizes > IMAGE_DIRECTORY_ENTRY_SECURITY;
  const certificates = has
    ? { offset: viewOf(file).getUint32(security, true), size: viewOf(file).getUint32(security + 4, true) }
    : { offset: 0, size: 0 };
  if (certificates.offset + certificates.size > file.length)
    return { error: "certificate table outside the file" };
  return {
    entryPoint: nt.AddressOfEntryPoint,
    sizeOfImage: nt.SizeOfImage,
    sizeOfHeaders: nt.SizeOfHeaders,
    subsystem: nt.Subsystem,
    checksumOffset: at + 88,
    securityOffset: has ? security : -1,
    certificates,
    sections,
  };
}
