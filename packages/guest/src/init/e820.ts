/** The memory map as Linux prints it: kinds of memory by EFI type, neighbours merged. Linux: arch/x86/kernel/e820.c. */
import { EFI_MEMORY_TYPE } from "@swtdx/abi";
import type { MemoryRange } from "../mm/memory.js";

const T = EFI_MEMORY_TYPE;
/** setup_e820() of the EFI stub; memory nobody has accepted yet is memory. */
const USABLE: readonly number[] = [
  T.LoaderCode,
  T.LoaderData,
  T.BootServicesCode,
  T.BootServicesData,
  T.Conventional,
  T.Unaccepted,
];
function kind(type: number): string {
  if (USABLE.includes(type)) return "usable";
  if (type === T.ACPIReclaim) return "ACPI data";
  if (type === T.ACPIMemoryNVS) return "ACPI NVS";
  if (type === T.Unusable) return "unusable";
  if (type === T.Persistent) return "persistent (type 7)";
  return "reserved";
}

const hex = (value: number) => value.toString(16).padStart(16, "0");

/** Lines of "BIOS-provided physical RAM map". */
export function e820Lines(map: readonly MemoryRange[]): string[] {
  const merged: { kind: string; base: number; end: number }[] = [];
  for (const { type, base, size } of [...map].sort((a, b) => a.base - b.base)) {
    const last = merged.at(-1);
    if (last?.kind === kind(type) && last.end === base) last.end += size;
    else merged.push({ kind: kind(type), base, end: base + size });
  }
  return merged.map((one) => `BIOS-e820: [mem 0x${hex(one.base)}-0x${hex(one.end - 1)}] ${one.kind}`);
}
