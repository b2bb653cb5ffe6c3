/**
 * DSDT: the q35 machine's devices. Byte for byte what QEMU 10 or 11 makes of this machine, since firmware measures it; also
 * where that describes what nobody uses here. QEMU, hw/i386/acpi-build.c (build_dsdt); the order is that of the table.
 */
import { ACPI_SLP_TYP, ICH9_PMIO } from "@swtdx/abi";
import { PCI_HOTPLUG } from "../hw/acpi/pci-hotplug.js";
import { ICH9_PMIO_BASE } from "../hw/isa/ich9-lpc.js";
import { PORT_DEBUGCON } from "../hw/isa/ports.js";
import { FOUR_GIB, type GpaRange, type MemoryMap } from "../memory/memory-map.js";
import {
  type Aml,
  amlArg,
  amlDerefOf,
  amlDevice,
  amlField,
  amlIncrement,
  amlIndex,
  amlInt,
  amlLess,
  amlLocal,
  amlMethod,
  amlName,
  amlPackage,
  amlPath,
  amlRegion,
  amlScope,
  amlSizeOf,
  amlStore,
  amlString,
  amlSubtract,
  amlToBuffer,
  amlToHexString,
  amlWhile,
  FIELD,
  REGION_SPACE,
} from "./aml.js";
import {
  amlDwordMemory,
  amlIo,
  amlQwordMemory,
  amlResources,
  amlWordBus,
  amlWordIo,
} from "./aml-resources.js";
import { cpuHotplug } from "./dsdt-cpus.js";
import { interruptRouting } from "./dsdt-interrupts.js";
import { dramController, hostBridge, pciFunctions, pciHotplug } from "./dsdt-pci.js";
import type { Blob, Linker } from "./linker.js";

/** Up to where the holes for PCI below 4 GiB go: the I/O APIC. */
const PCI_HOLE_END = 0xfebfffff;
const STA_HIDDEN = 0x0b;
const FW_CFG_PORTS = { BASE: 0x510, SIZE: 12 } as const;

export interface DsdtOptions {
  /** Machine type, for example pc-q35-10.1: the tables are those of the QEMU of that version. */
  readonly machine: string;
  readonly vcpus: number;
  readonly map: MemoryMap;
  /** The window that firmware placed, or null. */
  readonly ecam: GpaRange | null;
  /** Where 64-bit BARs are, or may be. */
  readonly hole64: GpaRange;
  /** PCI functions of bus 0 (devfn), ascending. */
  readonly functions: readonly number[];
}

export function buildDsdt(blob: Blob, linker: Linker, options: DsdtOptions): number {
  const { ecam, vcpus, functions } = options;
  const qemu = majorVersion(options.machine);
  return linker.table(blob, "DSDT", 1, () => {
    for (const part of [
      debugPort(),
      amlScope("_SB", hostBridge(), ...(ecam ? [dramController(ecam)] : [])),
      pciHotplug(),
      interruptRouting(),
      amlScope("_GPE", amlName("_HID", amlString("ACPI0006"))),
      cpuHotplug(vcpus, qemu),
      amlScope("\\_SB.PCI0", pciResources(options), gpe0(), pciHotplugPorts()),
      sleepStates(),
      amlScope("\\_SB.PCI0", fwCfg()),
      amlScope("\\_SB", amlScope("PCI0", ...pciFunctions(functions, qemu))),
      amlScope("_GPE", amlMethod("_E01", 0)),
    ])
      blob.append(part);
  });
}

/** Of pc-q35-10.1: 10. */
const majorVersion = (machine: string): number => Number(/-(\d+)\.\d+$/.exec(machine)?.[1]);

/** DBUG(x) writes x to the debug console, in hexadecimal. */
function debugPort(): Aml {
  const [text, length, at] = [amlLocal(0), amlLocal(1), amlLocal(2)];
  return amlScope(
    "\\",
    amlRegion("DBG", REGION_SPACE.SYSTEM_IO, PORT_DEBUGCON, 1),
    amlField("DBG", FIELD.BYTE | FIELD.PRESERVE, [["DBGB", 8]]),
    amlMethod(
      "DBUG",
      1,
      amlToHexString(amlArg(0), text),
      amlToBuffer(text, text),
      amlSubtract(amlSizeOf(text), amlInt(1), length),
      amlStore(amlInt(0), at),
      amlWhile(
        amlLess(at, length),
        amlStore(amlDerefOf(amlIndex(text, at)), amlPath("DBGB")),
        amlIncrement(at),
      ),
      amlStore(amlInt(0x0a), amlPath("DBGB")),
    ),
  );
}

function pciResources({ map, ecam, hole64 }: DsdtOptions): Aml {
  const windows = lowWindows(map, ecam).map(([first, last]) => amlDwordMemory(first, last));
  return amlName(
    "_CRS",
    amlResources(
      amlWordBus(0, 0xff),
      amlIo(0x0cf8, 8),
      amlWordIo(0x0000, 0x0cf7),
      amlWordIo(0x0d00, 0xffff),
      amlDwordMemory(0xa0000, 0xbffff, true),
      ...windows,
      amlQwordMemory(hole64.address, hole64.address + hole64.length - 1, true),
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

/** A device that only says which ports are taken. */
const portsOf = (name: string, uid: string, base: number, length: number): Aml =>
  amlDevice(
    name,
    amlName("_HID", amlString("PNP0A06")),
    amlName("_UID", amlString(uid)),
    amlName("_STA", amlInt(STA_HIDDEN)),
    amlName("_CRS", amlResources(amlIo(base, length))),
  );
const gpe0 = (): Aml => portsOf("GPE0", "GPE0 resources", ICH9_PMIO_BASE + ICH9_PMIO.GPE0_STS, 16);
const pciHotplugPorts = (): Aml =>
  portsOf("PHPR", "PCI Hotplug resources", PCI_HOTPLUG.PORT, PCI_HOTPLUG.SIZE);

function sleepStates(): Aml {
  const state = (name: string, type: number): Aml => {
    const value = amlInt(type);
    return amlName(name, amlPackage(value, value, amlInt(0), amlInt(0)));
  };
  const { S3, S4, S5 } = ACPI_SLP_TYP;
  return amlScope("\\", state("_S3", S3), state("_S4", S4), state("_S5", S5));
}

const fwCfg = (): Aml =>
  amlDevice(
    "FWCF",
    amlName("_HID", amlString("QEMU0002")),
    amlName("_STA", amlInt(STA_HIDDEN)),
    amlName("_CRS", amlResources(amlIo(FW_CFG_PORTS.BASE, FW_CFG_PORTS.SIZE))),
  );
