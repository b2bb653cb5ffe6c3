/**
 * The TypeScript guests that `--guest` names, with firmware and boot loader: what runs when no firmware is given.
 * At its end the guest sends its event log out by the debug port, framed, since nobody outside can read its memory.
 */
import { guest, type Guest, type GuestProgram } from "@swtdx/abi";
import { EventLogError, parseEventLog } from "@swtdx/attestation";
import { buildFirmware, programs as firmwarePrograms } from "@swtdx/edk2";
import { buildImage, GRUB_FILE_GUID, programs as grubPrograms } from "@swtdx/grub";
import { createGuest, defaultInit, type Kernel } from "@swtdx/guest";
import { UsageError } from "../errors.js";

/** QEMU's debug console, to which firmware writes its log. */
const DEBUG_PORT = 0x402;
/** Starts the frame: eight bytes, then the length, 32-bit little-endian, then the log. */
export const FRAME = new TextEncoder().encode("\0CCEL\0\0\x01");

/** The firmware reserves far more than it fills; a log that cannot be read is sent whole. */
function usedBytes(area: Uint8Array): number {
  try {
    return parseEventLog(area).used;
  } catch (error) {
    if (error instanceof EventLogError) return area.length;
    throw error;
  }
}

/** The log as the debug port takes it. */
export function frame(log: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FRAME.length + 4 + log.length);
  bytes.set(FRAME);
  new DataView(bytes.buffer).setUint32(FRAME.length, log.length, true);
  bytes.set(log, FRAME.length + 4);
  return bytes;
}

function* sendEventLog(kernel: Kernel): Guest<void> {
  const area = yield* kernel.eventLog();
  if (!area) return;
  const log = area.subarray(0, usedBytes(area));
  for (const byte of frame(log)) yield* guest.out(DEBUG_PORT, 1, byte);
}

const GUESTS: Readonly<Record<string, (kernel: Kernel) => Guest<void>>> = {
  default: (kernel) => defaultInit(kernel, sendEventLog),
};

/** Firmware, kernel and the programs they name. */
export interface GuestImages {
  readonly firmware: Uint8Array;
  readonly kernel: Uint8Array;
  readonly programs: ReadonlyMap<string, GuestProgram>;
}

/** @throws UsageError when there is no such guest */
export function guestImages(name = "default"): GuestImages {
  const init = Object.hasOwn(GUESTS, name) ? GUESTS[name] : undefined;
  if (!init) throw new UsageError(`--guest: "${name}" is not one of ${Object.keys(GUESTS).join(", ")}`);
  const { image, programs } = createGuest({ name: `cli-${name}`, init });
  return {
    firmware: buildFirmware({ applications: [{ guid: GRUB_FILE_GUID, image: buildImage() }] }),
    kernel: image,
    programs: new Map([...firmwarePrograms, ...grubPrograms, ...programs]),
  };
}
