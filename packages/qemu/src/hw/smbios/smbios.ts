/**
 * SMBIOS tables and their entry point, 2.8 with 32-bit addresses, as fw_cfg offers them to firmware (which measures
 * them): system, chassis, processor, memory, boot information. DMTF DSP0134; QEMU, hw/smbios/smbios.c.
 */
import { viewOf } from "@swtdx/abi";
import { E820_RAM, type E820Entry } from "../../memory/memory-map.js";

const MANUFACTURER = "QEMU";
const PRODUCT = "Standard PC (Q35 + ICH9, 2009)";
const VERSION = { MAJOR: 2, MINOR: 8 } as const;
const ANCHOR_SIZE = 31;
/** Type 17 tells sizes from this many MiB on in another field. */
const DIMM_SIZE_EXTENDED = 0x7fff;
const HANDLE_OF_MEMORY = 0x1000;
const UNKNOWN = { HANDLE: 0xfffe, WIDTH: 0xffff, CACHE: 0xffff } as const;
/** What a virtual processor claims to run at, MHz. */
const SPEED = 2000;
const KIB = 2 ** 10;
const MIB = 2 ** 20;

export interface SmbiosOptions {
  /** Machine type, for example pc-q35-10.1. */
  readonly machine: string;
  readonly vcpus: number;
  /** CPUID leaf 1. */
  readonly cpuid1: { readonly eax: number; readonly edx: number };
  readonly e820: readonly E820Entry[];
}

export interface SmbiosFiles {
  readonly anchor: Uint8Array;
  readonly tables: Uint8Array;
}

/** A structure's formatted part after its header: values and their bytes. */
type Fields = readonly (readonly [value: number, bytes: number])[];

export function buildSmbios({ machine, vcpus, cpuid1, e820 }: SmbiosOptions): SmbiosFiles {
  const structures: Uint8Array[] = [];
  const add = (type: number, instance: number, fields: Fields, ...strings: string[]) =>
    structures.push(structure(type, type * 0x100 + instance, fields, strings));
  const ram = e820.filter(({ type }) => type === E820_RAM);
  const bytes = ram.reduce((sum, { length }) => sum + length, 0);
  const sizeMib = Math.ceil(bytes / MIB);
  // Bytes that are string numbers count from 1; 0 is no string.
  const system = [MANUFACTURER, PRODUCT, machine];
  add(
    1,
    0,
    [
      [0x030201, 4],
      [0, 8],
      [0, 8],
      [0x06, 1],
      [0, 2],
    ],
    ...system,
  );
  add(
    3,
    0,
    [
      [1, 1],
      [0x01, 1],
      [2, 1],
      [0, 2],
      [0x02030303, 4],
      [0, 9],
    ],
    MANUFACTURER,
    machine,
  );
  add(
    4,
    0,
    [
      [0x02fe0301, 4],
      [cpuid1.eax, 4],
      [cpuid1.edx, 4],
      [3, 1],
      [0, 3],
      [SPEED, 2],
      [SPEED, 2],
      [0x0141, 2],
      [UNKNOWN.CACHE, 2],
      [UNKNOWN.CACHE, 2],
      [UNKNOWN.CACHE, 2],
      [0, 3],
      [vcpus, 1],
      [vcpus, 1],
      [vcpus, 1],
      [0x0002, 2],
      [0x0001, 2],
    ],
    "CPU 0",
    MANUFACTURER,
    machine,
  );
  add(16, 0, [
    [0x060301, 3],
    [bytes / KIB, 4],
    [UNKNOWN.HANDLE, 2],
    [1, 2],
    [0, 8],
  ]);
  add(
    17,
    0,
    [
      [HANDLE_OF_MEMORY, 2],
      [UNKNOWN.HANDLE, 2],
      [UNKNOWN.WIDTH, 2],
      [UNKNOWN.WIDTH, 2],
      [Math.min(sizeMib, DIMM_SIZE_EXTENDED), 2],
      [0x00010009, 4],
      [0x000207, 3],
      [0, 2],
      [2, 1],
      [0, 4],
      [sizeMib < DIMM_SIZE_EXTENDED ? 0 : sizeMib, 4],
      [0, 8],
    ],
    "DIMM 0",
    MANUFACTURER,
  );
  ram.forEach(({ address, length }, i) =>
    add(19, i, [
      [address / KIB, 4],
      [(address + length) / KIB - 1, 4],
      [HANDLE_OF_MEMORY, 2],
      [1, 1],
      [0, 8],
      [0, 8],
    ]),
  );
  add(32, 0, [[0, 7]]);
  add(127, 0, []);
  return { anchor: anchor(structures), tables: Uint8Array.from(structures.flatMap((one) => [...one])) };
}

function structure(type: number, handle: number, fields: Fields, strings: readonly string[]): Uint8Array {
  const body = fields.flatMap(([value, size]) =>
    Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff),
  );
  const text = strings.map((string) => `${string}\0`).join("") || "\0";
  return Uint8Array.of(
    type,
    4 + body.length,
    handle,
    handle >> 8,
    ...body,
    ...new TextEncoder().encode(`${text}\0`),
  );
}

/** The entry point. Checksums and the address are firmware's to fill in. */
function anchor(structures: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(ANCHOR_SIZE);
  const view = viewOf(out);
  const text = new TextEncoder();
  out.set(text.encode("_SM_"));
  out.set([ANCHOR_SIZE, VERSION.MAJOR, VERSION.MINOR], 5);
  view.setUint16(8, Math.max(...structures.map(({ length }) => length)), true);
  out.set(text.encode("_DMI_"), 16);
  view.setUint16(
    22,
    structures.reduce((sum, { length }) => sum + length, 0),
    true,
  );
  view.setUint16(28, structures.length, true);
  out[30] = (VERSION.MAJOR << 4) | VERSION.MINOR;
  return out;
}
