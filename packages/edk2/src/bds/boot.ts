/**
 * Boot device selection: the application that the firmware carries is the only boot option.
 * Measured as OvmfPkg's PlatformBootManagerLib does: the attempt, then separators, then the image.
 */
import { EFI_STATUS, efiStatusName, EV, guest, type Guest } from "@swtdx/abi";
import { loadImage, startImage } from "../dxe/image-services.js";
import { EFI_FV_FILETYPE, listFiles, pe32Section } from "../image/firmware-volume.js";
import { BFV_BASE, BFV_SIZE } from "../image/layout.js";
import { measure } from "../lib/measure.js";
import { print } from "../lib/serial.js";
import { reportFatalError } from "../lib/tdx.js";

const BOOT_ATTEMPT = "Calling EFI Application from Boot Option";
const BOOT_RETURNED = "Returning from EFI Application from Boot Option";
const SEPARATOR = new Uint8Array(4);

/** Starts the boot option; it is not expected to return. */
export function* bootApplication(): Guest<never> {
  const volume = yield* guest.loadBytes(BigInt(BFV_BASE), BFV_SIZE);
  const file = listFiles(volume).find(({ type }) => type === EFI_FV_FILETYPE.APPLICATION);
  const image = file && pe32Section(volume.subarray(file.offset, file.offset + file.size));
  if (!file || !image) return yield* reportFatalError("No bootable option was found");

  const attempt = new TextEncoder().encode(BOOT_ATTEMPT);
  yield* measure(2, EV.EFI_ACTION, attempt, attempt);
  // Separators end the firmware's part: one for RTMR[0], one for RTMR[1].
  for (const mrIndex of [1, 2]) yield* measure(mrIndex, EV.SEPARATOR, SEPARATOR, SEPARATOR);
  yield* print(`BdsDxe: loading Boot0000 "swtdx" from Fv(${file.name})\n`);
  const { status, handle } = yield* loadImage(image, 0n);
  if (status !== EFI_STATUS.SUCCESS)
    return yield* reportFatalError(`Boot0000 failed to load: ${efiStatusName(status)}`);
  yield* print(`BdsDxe: starting Boot0000 "swtdx" from Fv(${file.name})\n`);
  const returned = yield* startImage(handle);
  const text = new TextEncoder().encode(BOOT_RETURNED);
  yield* measure(2, EV.EFI_ACTION, text, text);
  return yield* reportFatalError(`Boot0000 returned: ${efiStatusName(returned)}`);
}
