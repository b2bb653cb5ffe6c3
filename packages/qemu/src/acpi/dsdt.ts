/**
 * DSDT: the q35 machine's devices, described statically: processors, PCI root with its windows and interrupt routing,
 * ISA devices, fw_cfg, S5. QEMU, hw/i386/acpi-build.c (build_dsdt), without hotplug and link devices: interrupts are
 * wired to the I/O APIC, there being no 8259 to route them to.
 */
import { ACPI_SLP_TYP, ICH9_PMIO } from "@swtdx/abi";
import { COM1 } from "../hw/char/serial.js";
import { ICH9_PMIO_BASE } from "../hw/isa/ich9-lpc.js";
import { RTC_IRQ, RTC_PORT } from "../hw/rtc/mc146818.js";
import { FOUR_GIB, type GpaRange, type MemoryMap } from "../memory/memory-map.js";
import {
  type Aml,
  amlDevice,
  amlDwordMemory,
  amlEisaId,
  amlInt,
  amlIo,
  amlIrq,
  amlMemory32Fixed,
  amlName,
  amlPackage,
  amlQwordMemory,
  amlResources,
  amlScope,
  amlString,
  amlWordBus,
  amlWordIo,
} from "./aml.js";
import type { Blob, Linker } from "./linker.js";

const PCI_SLOTS = 32;
/** Slots from this one on have PIRQ A to D, those below E to H. */
const FIRST_CHIPSET_SLOT = 25;
const PCI_HOLE_END = 0xfebfffff;
const PCI_HOLE64_SIZE = 32 * 2 ** 30;
const STA_HIDDEN = 0x0b;

/** `ecam`: the window that firmware placed, or null. */
export function buildDsdt(
  blob: Blob,
  linker: Linker,
  options: { vcpus: number; map: MemoryMap; ecam: GpaRange | null },
): number {
  return linker.table(blob, "DSDT", 1, () => {
    blob.append(amlScope("\\_SB", ...processors(options.vcpus), pciRoot(options.map, options.ecam)));
    const s5 = amlInt(ACPI_SLP_TYP.S5);
    blob.append(amlScope("\\", amlName("_S5", amlPackage(s5, s5, amlInt(0), amlInt(0)))));
  });
}

function processors(vcpus: number): Aml[] {
  return Array.from({ length: vcpus }, (_, id) =>
    amlDevice(
      `C${id.toString(16).toUpperCase().padStart(3, "0")}`,
      amlName("_HID", amlString("ACPI0007")),
      amlName("_UID", amlInt(id)),
      amlName("_STA", amlInt(0x0f)),
    ),
  );
}

function pciRoot(map: MemoryMap, ecam: GpaRange | null): Aml {
  const windows = lowWindows(map, ecam).map(([first, last]) => amlDwordMemory(first, last));
  const high = Math.max(FOUR_GIB, map.above4g.address + map.above4g.length);
  const high64 = Math.ceil(high / 2 ** 30) * 2 ** 30;
  return amlDevice(
    "PCI0",
    amlName("_HID", amlEisaId("PNP0A08")),
    amlName("_CID", amlEisaId("PNP0A03")),
    amlName("_UID", amlInt(0)),
    amlName("_PRT", amlPackage(...interruptRouting())),
    amlName(
      "_CRS",
      amlResources(
        amlWordBus(0, 0xff),
        amlIo(0x0cf8, 8),
        amlWordIo(0x0000, 0x0cf7),
        amlWordIo(0x0d00, 0xffff),
        amlDwordMemory(0xa0000, 0xbffff, true),
        ...windows,
        amlQwordMemory(high64, high64 + PCI_HOLE64_SIZE - 1),
      ),
    ),
    amlDevice(
      "GPE0",
      amlName("_HID", amlString("PNP0A06")),
      amlName("_UID", amlString("GPE0 resources")),
      amlName("_STA", amlInt(STA_HIDDEN)),
      amlName("_CRS", amlResources(amlIo(ICH9_PMIO_BASE + ICH9_PMIO.GPE0_STS, 16))),
    ),
    amlDevice(
      "FWCF",
      amlName("_HID", amlString("QEMU0002")),
      amlName("_STA", amlInt(STA_HIDDEN)),
      amlName("_CRS", amlResources(amlIo(0x510, 0x0c))),
    ),
    ...(ecam
      ? [
          amlDevice(
            "DRAC",
            amlName("_HID", amlString("PNP0C01")),
            amlName("_CRS", amlResources(amlMemory32Fixed(ecam.address, ecam.length))),
          ),
        ]
      : []),
    amlDevice(
      "ISA",
      amlName("_ADR", amlInt(0x001f0000)),
      amlDevice(
        "RTC",
        amlName("_HID", amlEisaId("PNP0B00")),
        amlName("_CRS", amlResources(amlIo(RTC_PORT, 8), amlIrq(RTC_IRQ))),
      ),
      amlDevice(
        "COM1",
        amlName("_HID", amlEisaId("PNP0501")),
        amlName("_UID", amlInt(1)),
        amlName("_STA", amlInt(0x0f)),
        amlName("_CRS", amlResources(amlIo(COM1.PORT, 8), amlIrq(COM1.IRQ))),
      ),
    ),
  );
}

/** The holes for PCI below 4 GiB: between RAM and the I/O APIC, without the ECAM window. */
function lowWindows(map: MemoryMap, ecam: GpaRange | null): [number, number][] {
  const start = map.below4g.length;
  if (!ecam || ecam.address >= FOUR_GIB) return [[start, PCI_HOLE_END]];
  const windows: [number, number][] = [
    [start, ecam.address - 1],
    [ecam.address + ecam.length, PCI_HOLE_END],
  ];
  return windows.filter(([first, last]) => first < last);
}

/** {device, pin, no link device, GSI} for every slot and pin. */
function interruptRouting(): Aml[] {
  const routes: Aml[] = [];
  for (let slot = 0; slot < PCI_SLOTS; slot++)
    for (let pin = 0; pin < 4; pin++) {
      const gsi = slot >= FIRST_CHIPSET_SLOT && slot !== 30 ? 16 + pin : 20 + ((slot + pin) & 3);
      routes.push(amlPackage(amlInt(slot * 0x10000 + 0xffff), amlInt(pin), amlInt(0), amlInt(gsi)));
    }
  return routes;
}
