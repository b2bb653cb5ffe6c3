/**
 * DSDT: the host bridge with its methods, bus 0's functions, and below the LPC bridge the ISA devices. QEMU,
 * hw/i386/acpi-build.c, hw/acpi/pcihp.c; PCI Firmware specification 3.3, 4.5 and 4.6.
 */
import { PCI_HOTPLUG } from "../hw/acpi/pci-hotplug.js";
import { COM1 } from "../hw/char/serial.js";
import { I8042_IRQ, I8042_MOUSE_IRQ } from "../hw/input/i8042.js";
import { ICH9_LPC_DEVFN } from "../hw/isa/ich9-lpc.js";
import { RTC_IRQ, RTC_PORT } from "../hw/rtc/mc146818.js";
import { FOUR_GIB, type GpaRange } from "../memory/memory-map.js";
import {
  type Aml,
  amlAcquire,
  amlAnd,
  amlArg,
  amlBuffer,
  amlCall,
  amlDerefOf,
  amlDevice,
  amlDwordField,
  amlEisaId,
  amlElse,
  amlEqual,
  amlField,
  amlIf,
  amlIndex,
  amlInt,
  amlLess,
  amlLNot,
  amlLocal,
  amlLOr,
  amlMethod,
  amlMutex,
  amlName,
  amlOr,
  amlPackage,
  amlPackageOf,
  amlPath,
  amlRegion,
  amlRelease,
  amlReturn,
  amlScope,
  amlSerialized,
  amlShiftLeft,
  amlStore,
  amlString,
  amlUuid,
  FIELD,
  REGION_SPACE,
} from "./aml.js";
import {
  amlDwordMemory,
  amlIo,
  amlIrq,
  amlQwordMemory,
  amlResources,
  amlSharedIrq,
} from "./aml-resources.js";

const UUID = {
  PCI_HOST_BRIDGE: "33db4d5b-1ff7-401c-9657-7441c03dd766",
  DEVICE_LABELLING: "e5c937d0-3553-4d7a-9117-ea4d19c3434d",
} as const;
/** _DSM function of device labelling that gives a device's name. */
const DSM_NAME = 7;
const ZERO = amlInt(0);
const ONE = amlInt(1);

export const hostBridge = (): Aml =>
  amlDevice(
    "PCI0",
    amlName("_HID", amlEisaId("PNP0A08")),
    amlName("_CID", amlEisaId("PNP0A03")),
    amlName("_UID", ZERO),
    operatingSystemCapabilities(),
    labelling(),
  );

/** _OSC: everything but native hotplug, which is ACPI's here. */
function operatingSystemCapabilities(): Aml {
  const GRANTED = 0x1e;
  const STATUS = { UUID: 4, REVISION: 8, MASKED: 0x10 } as const;
  const [status, wanted, control] = [amlPath("CDW1"), amlPath("CDW3"), amlLocal(0)];
  const complain = (bit: number) => amlOr(status, amlInt(bit), status);
  return amlMethod(
    "_OSC",
    4,
    amlDwordField(amlArg(3), 0, "CDW1"),
    amlIf(
      amlEqual(amlArg(0), amlUuid(UUID.PCI_HOST_BRIDGE)),
      amlDwordField(amlArg(3), 4, "CDW2"),
      amlDwordField(amlArg(3), 8, "CDW3"),
      amlStore(wanted, control),
      amlAnd(control, amlInt(GRANTED), control),
      amlIf(amlLNot(amlEqual(amlArg(1), ONE)), complain(STATUS.REVISION)),
      amlIf(amlLNot(amlEqual(wanted, control)), complain(STATUS.MASKED)),
      amlStore(control, wanted),
    ),
    amlElse(complain(STATUS.UUID)),
    amlReturn(amlArg(3)),
  );
}

/** What a _DSM for labelling answers first: nothing, unless UUID and revision are right. */
const labellingFunctions = (...rest: Aml[]): Aml =>
  amlIf(
    amlEqual(amlArg(2), ZERO),
    amlStore(amlBuffer([0]), amlLocal(0)),
    amlIf(amlLNot(amlEqual(amlArg(0), amlUuid(UUID.DEVICE_LABELLING))), amlReturn(amlLocal(0))),
    amlIf(amlLess(amlArg(1), amlInt(2)), amlReturn(amlLocal(0))),
    ...rest,
    amlReturn(amlLocal(0)),
  );

/** EDSM(uuid, revision, function, arguments, {index}): labels of devices that cannot be unplugged. */
const labelling = (): Aml =>
  amlSerialized(
    "EDSM",
    5,
    labellingFunctions(amlStore(amlInt(0x81), amlIndex(amlLocal(0), ZERO))),
    amlIf(
      amlEqual(amlArg(2), amlInt(DSM_NAME)),
      amlStore(amlPackage(ZERO, amlString("")), amlLocal(0)),
      amlStore(amlDerefOf(amlIndex(amlArg(4), ZERO)), amlLocal(1)),
      amlStore(amlLocal(1), amlIndex(amlLocal(0), ZERO)),
      amlReturn(amlLocal(0)),
    ),
  );

/** The ECAM window's owner. */
export function dramController({ address, length }: GpaRange): Aml {
  const last = address + length - 1;
  const window = last < FOUR_GIB ? amlDwordMemory(address, last) : amlQwordMemory(address, last, false);
  return amlDevice("DRAC", amlName("_HID", amlString("PNP0C01")), amlName("_CRS", amlResources(window)));
}

/** Registers and methods of PCI hotplug. */
export function pciHotplug(): Aml {
  const LOCK = "BLCK";
  const region = (name: string, offset: number, size: number, ...fields: string[]): Aml => [
    ...amlRegion(name, REGION_SPACE.SYSTEM_IO, PCI_HOTPLUG.PORT + offset, size),
    ...amlField(
      name,
      FIELD.DWORD | FIELD.WRITE_AS_ZEROS,
      fields.map((field) => [field, 32]),
    ),
  ];
  const selectBus = [amlAcquire(LOCK), amlStore(amlArg(0), amlPath("BNUM"))];
  const slotTo = (register: string): Aml => amlStore(amlShiftLeft(ONE, amlArg(1)), amlPath(register));
  return amlScope(
    "_SB.PCI0",
    region("PCST", 0, 8, "PCIU", "PCID"),
    region("SEJ", PCI_HOTPLUG.EJECT, 4, "B0EJ"),
    region("BNMR", PCI_HOTPLUG.BUS, 8, "BNUM", "PIDX"),
    amlMutex(LOCK),
    amlMethod("PCEJ", 2, ...selectBus, slotTo("B0EJ"), amlRelease(LOCK), amlReturn(ZERO)),
    amlMethod(
      "AIDX",
      2,
      ...selectBus,
      slotTo("PIDX"),
      amlStore(amlPath("PIDX"), amlLocal(0)),
      amlRelease(LOCK),
      amlReturn(amlLocal(0)),
    ),
    hotplugLabelling(),
  );
}

/** PDSM: labels of devices in slots; their index is asked of the registers. */
function hotplugLabelling(): Aml {
  const [result, functions, index] = [amlLocal(0), amlLocal(1), amlLocal(2)];
  const element = (i: number) => amlDerefOf(amlIndex(amlArg(4), amlInt(i)));
  const getIndex = amlStore(amlCall("AIDX", element(0), element(1)), index);
  const none = [amlEqual(index, ZERO), amlEqual(index, amlInt(0xffffffff))] as const;
  return amlSerialized(
    "PDSM",
    5,
    labellingFunctions(
      amlStore(ZERO, functions),
      getIndex,
      amlIf(
        amlLNot(amlOr(...none)),
        amlOr(functions, ONE, functions),
        amlOr(functions, amlShiftLeft(ONE, amlInt(DSM_NAME)), functions),
      ),
      amlStore(functions, amlIndex(result, ZERO)),
    ),
    amlIf(
      amlEqual(amlArg(2), amlInt(DSM_NAME)),
      getIndex,
      amlStore(amlPackageOf(2), result),
      amlIf(
        amlLNot(amlLOr(...none)),
        amlStore(index, amlIndex(result, ZERO)),
        amlStore(amlString(""), amlIndex(result, ONE)),
      ),
      amlReturn(result),
    ),
  );
}

const hex2 = (value: number): string => value.toString(16).toUpperCase().padStart(2, "0");

/** A device for each function of bus 0. */
export const pciFunctions = (functions: readonly number[], qemu: number): Aml[] =>
  functions.map((devfn) =>
    amlDevice(
      `S${hex2(devfn)}`,
      amlName("_ADR", amlInt((devfn >> 3) * 0x10000 + (devfn & 7))),
      ...(devfn === ICH9_LPC_DEVFN ? isaDevices(qemu) : []),
    ),
  );

/** What the LPC bridge has: the PIRQ registers, and the ISA bus. */
function isaDevices(qemu: number): Aml[] {
  const device = (name: string, hid: string, properties: Aml[], ...resources: Aml[]): Aml =>
    amlDevice(
      name,
      amlName("_HID", amlEisaId(hid)),
      ...properties,
      amlName("_CRS", amlResources(...resources)),
    );
  const present = amlName("_STA", amlInt(0x0f));
  const bits = (letters: string): [string, number][] => [...letters].map((letter) => [`PRQ${letter}`, 8]);
  return [
    amlRegion("PIRQ", REGION_SPACE.PCI_CONFIG, 0x60, 0x0c),
    amlScope(
      "\\_SB",
      amlField("PCI0.SF8.PIRQ", FIELD.BYTE | FIELD.PRESERVE, [...bits("ABCD"), [null, 32], ...bits("EFGH")]),
    ),
    device("KBD", "PNP0303", [present], amlIo(0x60, 1), amlIo(0x64, 1), amlIrq(I8042_IRQ)),
    device("MOU", "PNP0F13", [present], amlIrq(I8042_MOUSE_IRQ)),
    device(
      "COM1",
      "PNP0501",
      [amlName("_UID", ONE), present],
      amlIo(COM1.PORT, 8, 0),
      qemu <= 10 ? amlIrq(COM1.IRQ) : amlSharedIrq(COM1.IRQ),
    ),
    device("RTC", "PNP0B00", [], amlIo(RTC_PORT, 8), amlIrq(RTC_IRQ)),
  ];
}
