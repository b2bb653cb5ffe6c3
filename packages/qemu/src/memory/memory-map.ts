/**
 * The machine's physical address map: RAM below and above 4 GiB, the firmware under 4 GiB, the e820 table, and RAM
 * as a TD sees it at launch. QEMU, hw/i386/pc_q35.c (pc_q35_init), pc.c (pc_memory_init), x86-common.c
 * (x86_bios_rom_init), target/i386/kvm/tdx.c (tdx_accept_ram_range).
 */
import { PAGE_SIZE } from "@swtdx/abi";
import { FirmwareError, hex, OptionError } from "../errors.js";
import type { Tdvf } from "../firmware/tdvf.js";

const GIB = 2 ** 30;
export const FOUR_GIB = 4 * GIB;
/** With less RAM than this, the hole for PCI below 4 GiB begins here; with more, 768 MiB lower. */
const LOWMEM = 0xb0000000;
/** Smallest RAM of a machine in bytes: what q35 firmware needs for its own places. */
export const MEMORY_MIN = 32 * 2 ** 20;
/** Largest RAM in bytes. */
export const MEMORY_MAX = 64 * GIB;

/** A range of guest-physical addresses in bytes. */
export interface GpaRange {
  readonly address: number;
  readonly length: number;
}

export interface MemoryMap {
  readonly below4g: GpaRange;
  /** Length 0 if all RAM is below 4 GiB. */
  readonly above4g: GpaRange;
  readonly firmware: GpaRange;
}

/** e820 types. */
export const E820_RAM = 1;
export const E820_RESERVED = 2;
export interface E820Entry extends GpaRange {
  readonly type: number;
}

/**
 * The map of a machine with `memoryBytes` of RAM and a firmware image of `firmwareBytes`.
 * @throws OptionError for a size that no machine can have.
 */
export function layoutMemory(memoryBytes: number, firmwareBytes: number): MemoryMap {
  if (!Number.isSafeInteger(memoryBytes) || memoryBytes % 2 ** 20 !== 0)
    throw new OptionError("memory", `${memoryBytes} bytes; a multiple of 1 MiB is needed`);
  if (memoryBytes < MEMORY_MIN || memoryBytes > MEMORY_MAX)
    throw new OptionError(
      "memory",
      `${memoryBytes / 2 ** 20}M; from ${MEMORY_MIN / 2 ** 20}M to ${MEMORY_MAX / GIB}G can be had`,
    );
  // Room for PCI: with little RAM the hole begins higher, as QEMU's q35 arranges it.
  const lowest = memoryBytes >= LOWMEM ? 0x80000000 : LOWMEM;
  const low = Math.min(memoryBytes, lowest);
  return {
    below4g: { address: 0, length: low },
    above4g: { address: FOUR_GIB, length: memoryBytes - low },
    firmware: { address: FOUR_GIB - firmwareBytes, length: firmwareBytes },
  };
}

export function e820Table(map: MemoryMap): E820Entry[] {
  const table: E820Entry[] = [{ ...map.below4g, type: E820_RAM }];
  if (map.above4g.length > 0) table.push({ ...map.above4g, type: E820_RAM });
  return table;
}

/** The fw_cfg file etc/e820: address u64, length u64, type u32 each. */
export function encodeE820(table: readonly E820Entry[]): Uint8Array {
  const out = new Uint8Array(table.length * 20);
  const view = new DataView(out.buffer);
  table.forEach(({ address, length, type }, i) => {
    view.setBigUint64(i * 20, BigInt(address), true);
    view.setBigUint64(i * 20 + 8, BigInt(length), true);
    view.setUint32(i * 20 + 16, type, true);
  });
  return out;
}

/** RAM as a TD has it at launch: added pages belong to it already, unaccepted ones it must accept. */
export interface TdRamRange extends GpaRange {
  readonly type: "ADDED" | "UNACCEPTED";
}

/**
 * Splits RAM by what the firmware's TD_HOB and TEMP_MEM sections add, sorted by address.
 * @throws FirmwareError when such a section is not wholly in one range of RAM, or a volume is not in the memory that
 *   holds the firmware image.
 */
export function splitTdRam(map: MemoryMap, tdvf: Tdvf): TdRamRange[] {
  const ranges: TdRamRange[] = e820Table(map)
    .filter(({ type }) => type === E820_RAM)
    .map(({ address, length }) => ({ address, length, type: "UNACCEPTED" }));
  tdvf.sections.forEach((section, i) => {
    const start = section.memoryAddress;
    const end = start + section.memoryDataSize;
    if (section.type === "BFV" || section.type === "CFV") {
      if (start < map.firmware.address || end > map.firmware.address + map.firmware.length)
        throw new FirmwareError(
          tdvf.file,
          `section ${i} MemoryAddress`,
          `${hex(start)}..${hex(end)} is not in the firmware's memory ${span(map.firmware)}`,
        );
      return;
    }
    const at = ranges.findIndex((range) => start >= range.address && end <= range.address + range.length);
    const range = ranges[at];
    if (!range)
      throw new FirmwareError(
        tdvf.file,
        `section ${i} MemoryAddress`,
        `${hex(start)}..${hex(end)} is not in RAM: ${e820Table(map).map(span).join(", ")}`,
      );
    const parts: TdRamRange[] = [{ address: start, length: end - start, type: "ADDED" }];
    if (start > range.address)
      parts.push({ address: range.address, length: start - range.address, type: "UNACCEPTED" });
    const rest = range.address + range.length - end;
    if (rest > 0) parts.push({ address: end, length: rest, type: "UNACCEPTED" });
    ranges.splice(at, 1, ...parts);
  });
  return ranges.sort((a, b) => a.address - b.address);
}

const span = ({ address, length }: GpaRange): string => `${hex(address)}..${hex(address + length)}`;

/** Pages that a range covers. */
export const pagesOf = ({ length }: GpaRange): number => Math.ceil(length / PAGE_SIZE);
