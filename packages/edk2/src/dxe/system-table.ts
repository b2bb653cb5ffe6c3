/**
 * The EFI system table and the protocols, in guest memory, with pointers to the firmware's programs.
 * Source: UEFI 2.10, ch. 4.3, 7, 12.4, 13, 38.
 */
import {
  EFI_BOOT_SERVICES,
  EFI_BOOT_SERVICES_SIGNATURE,
  EFI_BOOT_SERVICES_SIZE,
  EFI_CC_MEASUREMENT,
  EFI_CONFIGURATION_TABLE,
  EFI_FILE,
  EFI_GUID,
  EFI_MEMORY_TYPE,
  EFI_REVISION,
  EFI_SIMPLE_FILE_SYSTEM,
  EFI_SIMPLE_TEXT_OUTPUT,
  EFI_SYSTEM_TABLE,
  EFI_SYSTEM_TABLE_SIGNATURE,
  EFI_TABLE_HEADER,
  encodeGuid,
  encodeUcs2,
  guest,
  type Guest,
  PAGE_SIZE,
  viewOf,
} from "@swtdx/abi";
import { updateState } from "../lib/state.js";
import { allocate } from "./memory-map.js";
import { programAddress, type ProgramName } from "./services.js";

/** Offsets in the page that holds the tables. */
const AT = {
  systemTable: 0,
  bootServices: 0x100,
  conOut: 0x300,
  configuration: 0x380,
  vendor: 0x400,
  ccProtocol: 0x480,
  fileSystem: 0x4c0,
  loadFile2: 0x500,
} as const;

/** The boot services there are; the others' pointers are NULL. */
const BOOT_SERVICES = [
  "AllocatePages",
  "FreePages",
  "GetMemoryMap",
  "HandleProtocol",
  "LoadImage",
  "StartImage",
  "ExitBootServices",
  "LocateProtocol",
] as const;

function setPointers(
  page: Uint8Array,
  at: number,
  pointers: readonly (readonly [number, ProgramName])[],
): void {
  for (const [offset, name] of pointers)
    viewOf(page).setBigUint64(at + offset, BigInt(programAddress(name)), true);
}

/** The file protocol's functions, for an instance at `at` in `page`. */
export function encodeFileProtocol(): Uint8Array {
  const out = new Uint8Array(EFI_FILE.SIZE);
  viewOf(out).setBigUint64(0, 0x1_0000n, true);
  setPointers(out, 0, [
    [EFI_FILE.Open, "FileOpen"],
    [EFI_FILE.Close, "FileClose"],
    [EFI_FILE.Read, "FileRead"],
    [EFI_FILE.GetInfo, "FileGetInfo"],
  ]);
  return out;
}

/** Writes all tables. @returns GPA of the system table, or -1 without memory for it */
export function* installSystemTable(rsdp: number): Guest<number> {
  const base = yield* allocate(PAGE_SIZE, EFI_MEMORY_TYPE.BootServicesData);
  if (base < 0) return -1;
  const page = new Uint8Array(PAGE_SIZE);
  const view = viewOf(page);
  EFI_SYSTEM_TABLE.write(view, {
    Signature: EFI_SYSTEM_TABLE_SIGNATURE,
    Revision: EFI_REVISION,
    HeaderSize: EFI_SYSTEM_TABLE.size,
    FirmwareVendor: base + AT.vendor,
    FirmwareRevision: 1,
    ConOut: base + AT.conOut,
    BootServices: base + AT.bootServices,
    NumberOfTableEntries: 1n,
    ConfigurationTable: base + AT.configuration,
  });
  EFI_TABLE_HEADER.write(
    view,
    { Signature: EFI_BOOT_SERVICES_SIGNATURE, Revision: EFI_REVISION, HeaderSize: EFI_BOOT_SERVICES_SIZE },
    AT.bootServices,
  );
  setPointers(
    page,
    AT.bootServices,
    BOOT_SERVICES.map((name) => [EFI_BOOT_SERVICES[name], name] as const),
  );
  setPointers(page, AT.conOut, [[EFI_SIMPLE_TEXT_OUTPUT.OutputString, "OutputString"]]);
  const acpi = { VendorGuid: encodeGuid(EFI_GUID.ACPI_20_TABLE), VendorTable: rsdp };
  EFI_CONFIGURATION_TABLE.write(view, acpi, AT.configuration);
  page.set(encodeUcs2("swtdx"), AT.vendor);
  setPointers(page, AT.ccProtocol, [
    [EFI_CC_MEASUREMENT.GetCapability, "GetCapability"],
    [EFI_CC_MEASUREMENT.GetEventLog, "GetEventLog"],
    [EFI_CC_MEASUREMENT.HashLogExtendEvent, "HashLogExtendEvent"],
    [EFI_CC_MEASUREMENT.MapPcrToMrIndex, "MapPcrToMrIndex"],
  ]);
  setPointers(page, AT.fileSystem, [[EFI_SIMPLE_FILE_SYSTEM.OpenVolume, "OpenVolume"]]);
  setPointers(page, AT.loadFile2, [[0, "LoadFile"]]);
  yield* guest.storeBytes(BigInt(base), page);
  yield* updateState({
    SystemTable: base,
    CcProtocol: base + AT.ccProtocol,
    FileSystem: base + AT.fileSystem,
    LoadFile2: base + AT.loadFile2,
  });
  return base;
}
