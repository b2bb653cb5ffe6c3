/**
 * DSDT: the processors, and the methods by which an operating system learns of those that come and go (registers:
 * hw/acpi/cpu-hotplug.ts). QEMU, hw/acpi/cpu.c (build_cpus_aml), docs/specs/acpi_cpu_hotplug.rst.
 */
import { CPU_HOTPLUG } from "../hw/acpi/cpu-hotplug.js";
import {
  type Aml,
  amlAcquire,
  amlArg,
  amlBreak,
  amlBuffer,
  amlCall,
  amlDebug,
  amlDerefOf,
  amlDevice,
  amlEisaId,
  amlEqual,
  amlField,
  amlIf,
  amlIncrement,
  amlIndex,
  amlInt,
  amlLAnd,
  amlLess,
  amlLocal,
  amlLOr,
  amlMethod,
  amlMutex,
  amlName,
  amlNotify,
  amlPackageOf,
  amlPath,
  amlProcessor,
  amlRegion,
  amlRelease,
  amlReturn,
  amlScope,
  amlSerialized,
  amlStore,
  amlString,
  amlWhile,
  FIELD,
  REGION_SPACE,
} from "./aml.js";
import { amlIo, amlResources } from "./aml-resources.js";
import { madtLocalApic } from "./madt.js";

const REGISTERS = "\\_SB.PCI0.PRES";
const LOCK = `${REGISTERS}.CPLK`;
const register = (name: string): Aml => amlPath(`${REGISTERS}.${name}`);
/** Most processors that one pass of the scan gathers. */
const PASS = 255;
const NOTIFY = { DEVICE_CHECK: 1, EJECT_REQUEST: 3 } as const;
const ZERO = amlInt(0);
const ONE = amlInt(1);

const nameOf = (id: number): string => `C${id.toString(16).toUpperCase().padStart(3, "0")}`;

/** `qemu`: its major version; the registers of 10 begin as an older machine's. */
export function cpuHotplug(vcpus: number, qemu: number): Aml {
  const ids = Array.from({ length: vcpus }, (_, id) => id);
  return [
    ...amlScope(
      "_SB",
      registers(qemu <= 10),
      amlDevice(
        "\\_SB.CPUS",
        amlName("_HID", amlString("ACPI0010")),
        amlName("_CID", amlEisaId("PNP0A05")),
        amlMethod(
          "CTFY",
          2,
          ...ids.map((id) => amlIf(amlEqual(amlArg(0), amlInt(id)), amlNotify(nameOf(id), amlArg(1)))),
        ),
        status(),
        eject(),
        scan(vcpus),
        report(),
        ...ids.map(processor),
      ),
    ),
    ...amlMethod("\\_GPE._E02", 0, amlCall("\\_SB.CPUS.CSCN")),
  ];
}

const registers = (legacy: boolean): Aml =>
  amlDevice(
    REGISTERS,
    amlName("_HID", amlEisaId("PNP0A06")),
    amlName("_UID", amlString("CPU Hotplug resources")),
    amlMutex("CPLK"),
    amlName("_CRS", amlResources(amlIo(CPU_HOTPLUG.PORT, CPU_HOTPLUG.SIZE))),
    amlRegion("PRST", REGION_SPACE.SYSTEM_IO, CPU_HOTPLUG.PORT, CPU_HOTPLUG.SIZE),
    amlField("PRST", FIELD.BYTE | FIELD.WRITE_AS_ZEROS, [
      [null, 32],
      ["CPEN", 1],
      ["CINS", 1],
      ["CRMV", 1],
      ["CEJ0", 1],
      ["CEJF", 1],
      [null, 3],
      ["CCMD", 8],
    ]),
    amlField("PRST", FIELD.DWORD | FIELD.PRESERVE, [
      ["CSEL", 32],
      [null, 32],
      ["CDAT", 32],
    ]),
    // Leaves the older machine's registers.
    ...(legacy ? [amlSerialized("_INI", 0, amlStore(ZERO, amlPath("CSEL")))] : []),
  );

/** CSTA(processor): _STA. */
const status = (): Aml =>
  amlSerialized(
    "CSTA",
    1,
    amlAcquire(LOCK),
    amlStore(amlArg(0), register("CSEL")),
    amlStore(ZERO, amlLocal(0)),
    amlIf(amlEqual(register("CPEN"), ONE), amlStore(amlInt(0x0f), amlLocal(0))),
    amlRelease(LOCK),
    amlReturn(amlLocal(0)),
  );

/** CEJ0(processor): _EJ0. */
const eject = (): Aml =>
  amlSerialized(
    "CEJ0",
    1,
    amlAcquire(LOCK),
    amlStore(amlArg(0), register("CSEL")),
    amlStore(ONE, register("CEJ0")),
    amlRelease(LOCK),
  );

/** CSCN: gathers the processors that have events, then tells of them; again while there may be more than a pass holds. */
function scan(vcpus: number): Aml {
  const [found, inserted, at, uid, more, removed] = [0, 1, 2, 3, 4, 5].map(amlLocal);
  const [inserting, removing] = [amlPath("CNEW"), amlPath("CEJL")];
  const gather = (event: string, list: Aml, count: Aml): Aml =>
    amlIf(
      amlEqual(register(event), ONE),
      amlStore(uid, amlIndex(list, count)),
      amlIncrement(count),
      amlStore(ONE, found),
    );
  const tell = (list: Aml, count: Aml, notification: number, event: string, ...log: Aml[]): Aml => [
    ...amlStore(ZERO, at),
    ...amlWhile(
      amlLess(at, count),
      amlStore(amlDerefOf(amlIndex(list, at)), uid),
      amlCall("CTFY", uid, amlInt(notification)),
      ...log,
      amlStore(uid, register("CSEL")),
      amlStore(ONE, register(event)),
      amlIncrement(at),
    ),
  ];
  return amlSerialized(
    "CSCN",
    0,
    amlAcquire(LOCK),
    amlName("CNEW", amlPackageOf(PASS)),
    amlName("CEJL", amlPackageOf(PASS)),
    amlStore(ZERO, uid),
    amlStore(ONE, more),
    amlWhile(
      amlEqual(more, ONE),
      amlStore(ZERO, more),
      amlStore(ONE, found),
      amlStore(ZERO, inserted),
      amlStore(ZERO, removed),
      amlWhile(
        amlLAnd(amlEqual(found, ONE), amlLess(uid, amlInt(vcpus))),
        amlStore(ZERO, found),
        amlStore(uid, register("CSEL")),
        amlStore(amlInt(CPU_HOTPLUG.COMMAND.NEXT_EVENT), register("CCMD")),
        amlIf(amlLess(register("CDAT"), uid), amlBreak),
        amlIf(
          amlLOr(amlEqual(inserted, amlInt(PASS)), amlEqual(removed, amlInt(PASS))),
          amlStore(ONE, more),
          amlBreak,
        ),
        amlStore(register("CDAT"), uid),
        gather("CINS", inserting, inserted),
        gather("CRMV", removing, removed),
        amlIncrement(uid),
      ),
      tell(inserting, inserted, NOTIFY.DEVICE_CHECK, "CINS", amlStore(uid, amlDebug)),
      tell(removing, removed, NOTIFY.EJECT_REQUEST, "CRMV"),
    ),
    amlRelease(LOCK),
  );
}

/** COST(processor, event, status): _OST. */
const report = (): Aml =>
  amlSerialized(
    "COST",
    4,
    amlAcquire(LOCK),
    amlStore(amlArg(0), register("CSEL")),
    amlStore(amlInt(CPU_HOTPLUG.COMMAND.OST_EVENT), register("CCMD")),
    amlStore(amlArg(1), register("CDAT")),
    amlStore(amlInt(CPU_HOTPLUG.COMMAND.OST_STATUS), register("CCMD")),
    amlStore(amlArg(2), register("CDAT")),
    amlRelease(LOCK),
  );

function processor(id: number): Aml {
  const uid = amlInt(id);
  return amlProcessor(
    nameOf(id),
    id,
    amlSerialized("_STA", 0, amlReturn(amlCall("CSTA", uid))),
    amlName("_MAT", amlBuffer(madtLocalApic(id))),
    // The boot processor stays.
    ...(id === 0 ? [] : [amlMethod("_EJ0", 1, amlCall("CEJ0", uid))]),
    amlSerialized("_OST", 3, amlCall("COST", uid, amlArg(0), amlArg(1), amlArg(2))),
  );
}
