/**
 * Boot device selection: the application that the firmware carries is the only boot option.
 * Measured as OvmfPkg/Tcg/TdTcg2Dxe does: boot variables, the attempt, the separator, then the image.
 */
import {
  EFI_GUID,
  EFI_STATUS,
  efiStatusName,
  encodeGuid,
  encodeUcs2,
  EV,
  guest,
  type Guest,
  viewOf,
} from "@swtdx/abi";
import { loadImage, startImage } from "../dxe/image-services.js";
import { EFI_FV_FILETYPE, listFiles, pe32Section } from "../image/firmware-volume.js";
import { BFV_BASE, BFV_SIZE } from "../image/layout.js";
import { measure, SEPARATOR, variableEvent } from "../lib/measure.js";
import { print } from "../lib/serial.js";
import { reportFatalError } from "../lib/tdx.js";

const BOOT_ATTEMPT = "Calling EFI Application from Boot Option";
const BOOT_RETURNED = "Returning from EFI Application from Boot Option";
const LOAD_OPTION_ACTIVE = 1;
const DESCRIPTION = "swtdx";

/** Device path of a file in a firmware volume: a media node (type 4, sub-type 6) and the end node. */
function fvFilePath(file: string): Uint8Array {
  const out = new Uint8Array(24);
  out.set([4, 6, 20, 0]);
  out.set(encodeGuid(file), 4);
  out.set([0x7f, 0xff, 4, 0], 20);
  return out;
}

/** EFI_LOAD_OPTION: attributes, length of the path, description, path (UEFI 2.10, ch. 3.1.3). */
function loadOption(path: Uint8Array): Uint8Array {
  const description = encodeUcs2(DESCRIPTION);
  const out = new Uint8Array(6 + description.length + path.length);
  viewOf(out).setUint32(0, LOAD_OPTION_ACTIVE, true);
  viewOf(out).setUint16(4, path.length, true);
  out.set(description, 6);
  out.set(path, 6 + description.length);
  return out;
}

/** The boot variables' values are measured, the events say which they are. */
function* measureBootVariables(path: Uint8Array): Guest<void> {
  const guid = EFI_GUID.GLOBAL_VARIABLE;
  for (const variable of [
    { name: "BootOrder", guid, data: new Uint8Array(2) },
    { name: "Boot0000", guid, data: loadOption(path) },
  ])
    yield* measure(1, EV.EFI_VARIABLE_BOOT, variable.data, variableEvent(variable));
}

/** Starts the boot option; it is not expected to return. */
export function* bootApplication(): Guest<never> {
  const volume = yield* guest.loadBytes(BigInt(BFV_BASE), BFV_SIZE);
  const file = listFiles(volume).find(({ type }) => type === EFI_FV_FILETYPE.APPLICATION);
  const image = file && pe32Section(volume.subarray(file.offset, file.offset + file.size));
  if (!file || !image) return yield* reportFatalError("No bootable option was found");

  const path = fvFilePath(file.name);
  yield* measureBootVariables(path);
  const attempt = new TextEncoder().encode(BOOT_ATTEMPT);
  yield* measure(2, EV.EFI_ACTION, attempt, attempt);
  // The firmware's own part of RTMR[1] ends here; that of RTMR[0] ended behind the secure boot variables.
  yield* measure(2, EV.SEPARATOR, SEPARATOR, SEPARATOR);
  yield* print(`BdsDxe: loading Boot0000 "${DESCRIPTION}" from Fv(${file.name})\n`);
  const { status, handle } = yield* loadImage(image, 0n, path);
  if (status !== EFI_STATUS.SUCCESS)
    return yield* reportFatalError(`Boot0000 failed to load: ${efiStatusName(status)}`);
  yield* print(`BdsDxe: starting Boot0000 "${DESCRIPTION}" from Fv(${file.name})\n`);
  const returned = yield* startImage(handle);
  const text = new TextEncoder().encode(BOOT_RETURNED);
  yield* measure(2, EV.EFI_ACTION, text, text);
  return yield* reportFatalError(`Boot0000 returned: ${efiStatusName(returned)}`);
}
