/**
 * The TDVF loader's first half: finds the metadata in an image and checks it. The checks are those of QEMU's
 * hw/i386/tdvf.c in its order, then those that QEMU leaves to a later failure: data inside the image, memory
 * ranges that wrap or overlap, exactly one TD HOB.
 */
import {
  TDVF_ALIGNMENT,
  TDVF_ATTRIBUTES_MR_EXTEND,
  TDVF_DESCRIPTOR,
  TDVF_SECTION,
  TDVF_SECTION_TYPE,
  TDVF_SIGNATURE,
  TDVF_VERSION,
  TDX_METADATA_OFFSET_GUID,
  type TdvfSectionEntry,
  type TdvfSectionTypeName,
  viewOf,
} from "@swtdx/abi";
import { FirmwareError, hex } from "../errors.js";
import { readOvmfTable } from "./ovmf-table.js";

/** A section of a TDVF image. */
export interface TdvfSection {
  readonly type: "BFV" | "CFV" | "TD_HOB" | "TEMP_MEM";
  /** Bytes: offset in the image and size there; both 0 for sections without data. */
  readonly dataOffset: number;
  readonly rawDataSize: number;
  /** GPA, 4 KiB aligned. */
  readonly memoryAddress: number;
  /** Bytes, a multiple of 4 KiB. */
  readonly memoryDataSize: number;
  readonly attributes: number;
  /** The section's contents go into MRTD, not only its addresses. */
  readonly measured: boolean;
}

/** A TDVF image and what its metadata says. */
export interface Tdvf {
  /** Name of the image as the user gave it. */
  readonly file: string;
  readonly image: Uint8Array;
  /** Offset in bytes of the descriptor in the image. */
  readonly descriptorOffset: number;
  /** In the order of the descriptor, which is the order of measurement. */
  readonly sections: readonly TdvfSection[];
  readonly tdHob: TdvfSection;
}

/** Where QEMU's pc.bios may begin at the lowest: images are at most 16 MiB, which ends above the IOAPIC's page. */
export const FIRMWARE_MAX_SIZE = 16 * 2 ** 20;
/** Images are a multiple of this many bytes (QEMU, x86_bios_rom_init). */
export const FIRMWARE_SIZE_UNIT = 65536;
/** First physical address that a section may not reach: TDX has at most 52 address bits, the top one shared. */
const GPA_LIMIT = 2n ** 51n;

const typeNames = new Map<number, TdvfSectionTypeName>(
  Object.entries(TDVF_SECTION_TYPE).map(([name, type]) => [type, name as TdvfSectionTypeName]),
);

/**
 * Parses the metadata of a TDVF image. `file` names the image in errors.
 * @throws FirmwareError
 */
export function parseTdvf(image: Uint8Array, file: string): Tdvf {
  checkImageSize(image, file);
  const descriptorOffset = findDescriptor(image, file);
  const count = checkDescriptor(image, descriptorOffset, file);
  const view = viewOf(image);
  const sections: TdvfSection[] = [];
  for (let i = 0; i < count; i++) {
    const at = descriptorOffset + TDVF_DESCRIPTOR.size + i * TDVF_SECTION.size;
    sections.push(checkSection(TDVF_SECTION.read(view, at), i, image, file));
  }
  checkOverlap(sections, file);
  const hobs = sections.filter(({ type }) => type === "TD_HOB");
  if (hobs.length !== 1)
    throw new FirmwareError(file, "Type", `${hobs.length} sections of type TD_HOB; exactly one is needed`);
  return { file, image, descriptorOffset, sections, tdHob: hobs[0] };
}

/** Checks what holds for any firmware image. @throws FirmwareError */
export function checkImageSize(image: Uint8Array, file: string): void {
  if (image.length === 0 || image.length % FIRMWARE_SIZE_UNIT !== 0)
    throw new FirmwareError(
      file,
      "file size",
      `${image.length} bytes; a firmware image is a non-zero multiple of ${FIRMWARE_SIZE_UNIT} bytes (truncated?)`,
    );
  if (image.length > FIRMWARE_MAX_SIZE)
    throw new FirmwareError(
      file,
      "file size",
      `${image.length} bytes; a firmware image has at most ${FIRMWARE_MAX_SIZE}`,
    );
}

function findDescriptor(image: Uint8Array, file: string): number {
  const entry = readOvmfTable(image, file).find(({ guid }) => guid === TDX_METADATA_OFFSET_GUID);
  if (!entry)
    throw new FirmwareError(
      file,
      "OVMF table",
      `no TDX metadata: no entry ${TDX_METADATA_OFFSET_GUID} (is the image built for TDX?)`,
    );
  if (entry.size < 4)
    throw new FirmwareError(file, "TDX metadata offset", `${entry.size} bytes of data; 4 are needed`);
  const fromEnd = viewOf(image).getUint32(entry.offset, true);
  if (fromEnd < TDVF_DESCRIPTOR.size || fromEnd > image.length)
    throw new FirmwareError(
      file,
      "TDX metadata offset",
      `${hex(fromEnd)} from the end; from ${hex(TDVF_DESCRIPTOR.size)} to ${hex(image.length)} lie in the image`,
    );
  return image.length - fromEnd;
}

/** @returns the number of sections. */
function checkDescriptor(image: Uint8Array, at: number, file: string): number {
  const header = TDVF_DESCRIPTOR.read(viewOf(image), at);
  if (header.Signature !== TDVF_SIGNATURE)
    throw new FirmwareError(file, "Signature", `${hex(header.Signature)}; "TDVF" is ${hex(TDVF_SIGNATURE)}`);
  if (at + header.Length > image.length)
    throw new FirmwareError(
      file,
      "Length",
      `${header.Length} bytes of metadata; ${image.length - at} are left in the image`,
    );
  if (header.Version !== TDVF_VERSION)
    throw new FirmwareError(file, "Version", `${header.Version}; only ${TDVF_VERSION} is defined`);
  const count = header.NumberOfSectionEntries;
  if (count < 2) throw new FirmwareError(file, "NumberOfSectionEntries", `${count}; at least 2 are needed`);
  const expected = TDVF_DESCRIPTOR.size + count * TDVF_SECTION.size;
  if (header.Length !== expected)
    throw new FirmwareError(file, "Length", `${header.Length} bytes; ${count} sections make ${expected}`);
  return count;
}

function checkSection(raw: TdvfSectionEntry, i: number, image: Uint8Array, file: string): TdvfSection {
  const fail = (field: string, expectation: string): never => {
    throw new FirmwareError(file, `section ${i} ${field}`, expectation);
  };
  const size = raw.RawDataSize;
  if (raw.MemoryDataSize < BigInt(size))
    fail("MemoryDataSize", `${hex(raw.MemoryDataSize)} is less than RawDataSize ${hex(size)}`);
  if (raw.MemoryAddress % BigInt(TDVF_ALIGNMENT) !== 0n)
    fail("MemoryAddress", `${hex(raw.MemoryAddress)}; a multiple of ${hex(TDVF_ALIGNMENT)} is needed`);
  if (raw.MemoryDataSize % BigInt(TDVF_ALIGNMENT) !== 0n)
    fail("MemoryDataSize", `${hex(raw.MemoryDataSize)}; a multiple of ${hex(TDVF_ALIGNMENT)} is needed`);

  const name = typeNames.get(raw.Type);
  let type: TdvfSection["type"];
  switch (name) {
    case "BFV":
    case "CFV":
      if (size === 0) fail("RawDataSize", `0 for a section of type ${name}, which has data`);
      type = name;
      break;
    case "TD_HOB":
    case "TEMP_MEM":
      if (size !== 0) fail("RawDataSize", `${hex(size)} for a section of type ${name}, which has no data`);
      type = name;
      break;
    default:
      return fail(
        "Type",
        `${raw.Type}${name ? ` (${name})` : ""}; 0 BFV, 1 CFV, 2 TD_HOB and 3 TEMP_MEM are known`,
      );
  }

  if (raw.MemoryDataSize === 0n) fail("MemoryDataSize", "0; at least one page is needed");
  if (raw.MemoryAddress + raw.MemoryDataSize > GPA_LIMIT)
    fail(
      "MemoryAddress",
      `${hex(raw.MemoryAddress)} and up is outside the ${hex(GPA_LIMIT)} of private memory`,
    );
  if (size > 0 && raw.DataOffset + size > image.length)
    fail(
      "DataOffset",
      `${hex(raw.DataOffset)} and ${hex(size)} bytes end outside the image of ${hex(image.length)} bytes`,
    );
  // The kernel copies whole pages from the image.
  if (size > 0 && raw.DataOffset % TDVF_ALIGNMENT !== 0)
    fail("DataOffset", `${hex(raw.DataOffset)}; a multiple of ${hex(TDVF_ALIGNMENT)} is needed`);
  return {
    type,
    dataOffset: raw.DataOffset,
    rawDataSize: size,
    memoryAddress: Number(raw.MemoryAddress),
    memoryDataSize: Number(raw.MemoryDataSize),
    attributes: raw.Attributes,
    measured: (raw.Attributes & TDVF_ATTRIBUTES_MR_EXTEND) !== 0,
  };
}

function checkOverlap(sections: readonly TdvfSection[], file: string): void {
  const order = sections
    .map((section, index) => ({ section, index }))
    .sort((a, b) => a.section.memoryAddress - b.section.memoryAddress);
  for (let i = 1; i < order.length; i++) {
    const low = order[i - 1];
    const high = order[i];
    if (low.section.memoryAddress + low.section.memoryDataSize > high.section.memoryAddress)
      throw new FirmwareError(
        file,
        `section ${high.index} MemoryAddress`,
        `${hex(high.section.memoryAddress)} overlaps section ${low.index}, which ends at ` +
          hex(low.section.memoryAddress + low.section.memoryDataSize),
      );
  }
}
