/**
 * PCI enumeration through CF8/CFC, and the device filter: in a TD the VMM is not trusted, so only devices whose
 * drivers were hardened against it are bound. The list is an allow-list by vendor and device.
 * Source: PCI Local Bus 3.0, ch. 3.2.2.3.2; Intel's guest-hardening documentation for Linux TDX guests ("device filter").
 */
import { guest, type Guest } from "@swtdx/abi";

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

/** A function that answered. */
export interface PciDevice {
  /** Bus 0: device and function. */
  slot: number;
  fn: number;
  vendor: number;
  device: number;
  /** Class code, 24 bits. */
  classCode: number;
  /** Passed the filter. */
  authorized: boolean;
}

/** Devices whose drivers may bind: virtio block, net, console, entropy, vsock (modern); bridges need no driver. */
export const ALLOWED_DEVICES: readonly (readonly [vendor: number, device: number])[] = [
  [0x1af4, 0x1041],
  [0x1af4, 0x1042],
  [0x1af4, 0x1043],
  [0x1af4, 0x1044],
  [0x1af4, 0x1053],
];
const CLASS_BRIDGE = 0x06;

function* configRead(slot: number, fn: number, register: number): Guest<number> {
  yield* guest.out(CONFIG_ADDRESS, 4, (0x8000_0000 | (slot << 11) | (fn << 8) | register) >>> 0);
  return yield* guest.in(CONFIG_DATA, 4);
}

/** Bus 0's functions. */
export function* scanPci(): Guest<PciDevice[]> {
  const out: PciDevice[] = [];
  for (let slot = 0; slot < 32; slot++) {
    for (let fn = 0; fn < 8; fn++) {
      const id = yield* configRead(slot, fn, 0);
      if ((id & 0xffff) === 0xffff || id === 0) {
        if (fn === 0) break;
        continue;
      }
      const vendor = id & 0xffff;
      const device = id >>> 16;
      const classCode = (yield* configRead(slot, fn, 8)) >>> 8;
      const authorized =
        classCode >>> 16 === CLASS_BRIDGE || ALLOWED_DEVICES.some(([v, d]) => v === vendor && d === device);
      out.push({ slot, fn, vendor, device, classCode, authorized });
      const header = (yield* configRead(slot, fn, 0xc)) >>> 16;
      if (fn === 0 && (header & 0x80) === 0) break;
    }
  }
  return out;
}
