/**
 * @swtdx/edk2: a TD's firmware. `buildFirmware` makes a real TDVF image (GUIDed table, TDX metadata, measured boot
 * volume); `programs` are the TypeScript guest programs that its stubs name. They run wherever a vCPU arrives at
 * such a stub and keep their state in guest memory only.
 */
import type { GuestProgram } from "@swtdx/abi";
import * as bootServices from "./dxe/boot-services.js";
import * as ccMeasurement from "./dxe/cc-measurement.js";
import { LoadImage, StartImage } from "./dxe/image-services.js";
import * as kernelLoaderFs from "./dxe/kernel-loader-fs.js";
import { DxeMain } from "./dxe/main.js";
import { type ProgramName, PROGRAMS, registeredName } from "./dxe/services.js";
import { encodeImage, type FirmwareOptions } from "./image/build.js";
import { SecEntry } from "./sec/entry.js";

export { type FirmwareApplication, FirmwareBuildError, type FirmwareOptions } from "./image/build.js";
export { listFiles, pe32Section, type VolumeFile } from "./image/firmware-volume.js";
export { IMAGE_SIZE } from "./image/layout.js";
export { type MemoryResource, type TdHob, validateTdHob } from "./sec/hob.js";
export { authenticodeSha384 } from "./dxe/authenticode.js";

const table: Readonly<Record<ProgramName, GuestProgram>> = {
  SecEntry,
  DxeMain,
  LoadImage,
  StartImage,
  ...bootServices,
  ...ccMeasurement,
  ...kernelLoaderFs,
};

/** The firmware's programs by the names in its image. */
export const programs: ReadonlyMap<string, GuestProgram> = new Map(
  PROGRAMS.map((name) => [registeredName(name), table[name]]),
);

/**
 * Builds a firmware image of IMAGE_SIZE bytes; it ends at 4 GiB.
 * @throws FirmwareBuildError when the applications or variables do not fit
 */
export const buildFirmware = (options: FirmwareOptions = {}): Uint8Array =>
  encodeImage(PROGRAMS.map(registeredName), options);
