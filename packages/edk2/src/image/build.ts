/**
 * The firmware's image: a variable volume and a boot volume with GUIDed table, TDX metadata and reset vector, as
 * any TDVF has them, so that QEMU loads it by its own rules.
 * Source: TDX Virtual Firmware design guide, ch. 11; OvmfPkg/ResetVector (edk2).
 */
import {
  EFI_GUID,
  encodeGuid,
  encodeProgramHeader,
  encodeProgramStub,
  OVMF_TABLE_BYTES_AFTER,
  OVMF_TABLE_FOOTER_GUID,
  PROGRAM_STUB_SIZE,
  TDVF_ATTRIBUTES_MR_EXTEND,
  TDVF_DESCRIPTOR,
  TDVF_SECTION,
  TDVF_SECTION_TYPE,
  TDVF_SIGNATURE,
  TDVF_VERSION,
  type TdvfSectionEntry,
  TDX_METADATA_GUID,
  TDX_METADATA_OFFSET_GUID,
  viewOf,
} from "@swtdx/abi";
import {
  BFV_BASE,
  BFV_SIZE,
  CFV_BASE,
  CFV_SIZE,
  IMAGE_END,
  IMAGE_SIZE,
  PAGE_TABLES,
  SLOT_SIZE,
  SLOTS_BASE,
  TD_HOB,
  TEMP_RAM,
  WORK_AREA,
} from "./layout.js";
import {
  EFI_FFS_FILE_HEADER,
  EFI_FIRMWARE_VOLUME_HEADER,
  EFI_FV_FILETYPE,
  encodeApplication,
  encodeFile,
  encodeVolumeHeader,
} from "./firmware-volume.js";

/** Thrown for an application or configuration that the image has no room for. */
export class FirmwareBuildError extends Error {
  override readonly name = "FirmwareBuildError";
}

/** An EFI application that the firmware carries and boots. */
export interface FirmwareApplication {
  /** File name GUID. */
  guid: string;
  /** PE32+ image. */
  image: Uint8Array;
}

export interface FirmwareOptions {
  /** The first one is what the firmware boots. */
  applications?: readonly FirmwareApplication[];
  /** Bytes of the variable store behind its volume header; measured into RTMR[0]. Default: erased (0xff). */
  variables?: Uint8Array;
}

const GUID_SEC_CORE = "df1ccef6-f301-4a63-9661-fc6030dcc880";
const GUID_VTF = "1ba0062e-c779-4582-8566-336ae8f78f09";

/** The volume's last bytes: metadata, GUIDed table, reset vector. */
const VTF_SIZE = 0x400;
const RESET_VECTOR = IMAGE_END - PROGRAM_STUB_SIZE;
const METADATA_DISTANCE = 0x200;

const { BFV, CFV, TD_HOB: TD_HOB_SECTION, TEMP_MEM } = TDVF_SECTION_TYPE;
const memory = ({ base, size }: { base: number; size: number }, Type: number) => ({
  MemoryAddress: BigInt(base),
  MemoryDataSize: BigInt(size),
  Type,
});
const SECTIONS: readonly Partial<TdvfSectionEntry>[] = [
  {
    ...memory({ base: BFV_BASE, size: BFV_SIZE }, BFV),
    DataOffset: CFV_SIZE,
    RawDataSize: BFV_SIZE,
    Attributes: TDVF_ATTRIBUTES_MR_EXTEND,
  },
  { ...memory({ base: CFV_BASE, size: CFV_SIZE }, CFV), DataOffset: 0, RawDataSize: CFV_SIZE },
  memory(TEMP_RAM, TEMP_MEM),
  memory(WORK_AREA, TEMP_MEM),
  memory(TD_HOB, TD_HOB_SECTION),
  memory(PAGE_TABLES, TEMP_MEM),
];

/** The end of the boot volume, VTF_SIZE bytes; the reset vector's stub leads to the program header at `entry`. */
function encodeVtf(entry: number): Uint8Array {
  const data = new Uint8Array(VTF_SIZE - EFI_FFS_FILE_HEADER.size).fill(0xff);
  const view = viewOf(data);
  const end = data.length;
  data.set(encodeProgramStub(entry - RESET_VECTOR), end - PROGRAM_STUB_SIZE);

  // The GUIDed table grows down from 32 bytes below the end.
  const footer = end - OVMF_TABLE_BYTES_AFTER - 16;
  data.set(encodeGuid(OVMF_TABLE_FOOTER_GUID), footer);
  const metadataEntry = footer - 2 - 16;
  data.set(encodeGuid(TDX_METADATA_OFFSET_GUID), metadataEntry);
  view.setUint16(metadataEntry - 2, 4 + 2 + 16, true);
  view.setUint32(metadataEntry - 6, METADATA_DISTANCE, true);
  view.setUint16(footer - 2, 16 + 2 + 4 + 2 + 16, true);

  const descriptor = end - METADATA_DISTANCE;
  data.set(encodeGuid(TDX_METADATA_GUID), descriptor - 16);
  TDVF_DESCRIPTOR.write(
    view,
    {
      Signature: TDVF_SIGNATURE,
      Length: TDVF_DESCRIPTOR.size + SECTIONS.length * TDVF_SECTION.size,
      Version: TDVF_VERSION,
      NumberOfSectionEntries: SECTIONS.length,
    },
    descriptor,
  );
  SECTIONS.forEach((section, i) => {
    data.set(TDVF_SECTION.encode(section), descriptor + TDVF_DESCRIPTOR.size + i * TDVF_SECTION.size);
  });
  return encodeFile(GUID_VTF, EFI_FV_FILETYPE.RAW, data);
}

/** Stubs and headers of the firmware's programs, in the order of their names. */
function encodeSecCore(programNames: readonly string[]): Uint8Array {
  const dataStart = BFV_BASE + EFI_FIRMWARE_VOLUME_HEADER.size + EFI_FFS_FILE_HEADER.size;
  const slots = SLOTS_BASE - dataStart;
  const data = new Uint8Array(slots + programNames.length * SLOT_SIZE);
  programNames.forEach((name, i) => {
    const header = encodeProgramHeader(name);
    if (PROGRAM_STUB_SIZE + header.length > SLOT_SIZE)
      throw new FirmwareBuildError(`program name ${name} is too long`);
    const at = slots + i * SLOT_SIZE;
    data.set(encodeProgramStub(PROGRAM_STUB_SIZE), at);
    data.set(header, at + PROGRAM_STUB_SIZE);
  });
  return encodeFile(GUID_SEC_CORE, EFI_FV_FILETYPE.SECURITY_CORE, data);
}

/**
 * Builds the image: IMAGE_SIZE bytes that end at 4 GiB.
 * @param programNames the firmware's programs; the first one is the reset vector's
 * @throws FirmwareBuildError when the applications or variables do not fit.
 */
export function encodeImage(programNames: readonly string[], options: FirmwareOptions): Uint8Array {
  const image = new Uint8Array(IMAGE_SIZE).fill(0xff);
  image.set(encodeVolumeHeader(CFV_SIZE, EFI_GUID.SYSTEM_NV_DATA_FV));
  const variables = options.variables ?? new Uint8Array();
  if (variables.length > CFV_SIZE - EFI_FIRMWARE_VOLUME_HEADER.size)
    throw new FirmwareBuildError(`${variables.length} bytes of variables, the volume has room for less`);
  image.set(variables, EFI_FIRMWARE_VOLUME_HEADER.size);

  const bfv = image.subarray(CFV_SIZE);
  bfv.set(encodeVolumeHeader(BFV_SIZE, EFI_GUID.FIRMWARE_FILE_SYSTEM2));
  const files = [
    encodeSecCore(programNames),
    ...(options.applications ?? []).map(({ guid, image: pe }) => encodeApplication(guid, pe)),
  ];
  let at = EFI_FIRMWARE_VOLUME_HEADER.size;
  for (const file of files) {
    if (at + file.length > BFV_SIZE - VTF_SIZE - 2 * EFI_FFS_FILE_HEADER.size)
      throw new FirmwareBuildError(`a file of ${file.length} bytes does not fit into the boot volume`);
    bfv.set(file, at);
    at = (at + file.length + 7) & ~7;
  }
  const vtf = encodeVtf(SLOTS_BASE + PROGRAM_STUB_SIZE);
  const pad = BFV_SIZE - vtf.length - at;
  bfv.set(
    encodeFile(
      "ffffffff-ffff-ffff-ffff-ffffffffffff",
      EFI_FV_FILETYPE.PAD,
      new Uint8Array(pad - EFI_FFS_FILE_HEADER.size).fill(0xff),
    ),
    at,
  );
  bfv.set(vtf, BFV_SIZE - vtf.length);
  return image;
}
