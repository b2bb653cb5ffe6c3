/**
 * DSDT: how the INTx pins of bus 0 are wired, for an operating system that uses the 8259 (links of the LPC bridge's PIRQ
 * registers) and for one that uses the I/O APIC (fixed inputs 16 to 23). QEMU, hw/i386/acpi-build.c (build_q35_pci0_int).
 */
import {
  type Aml,
  amlAnd,
  amlArg,
  amlCall,
  amlDevice,
  amlDwordField,
  amlEisaId,
  amlElse,
  amlEqual,
  amlIf,
  amlInt,
  amlMethod,
  amlName,
  amlOr,
  amlPackage,
  amlPath,
  amlReturn,
  amlScope,
  amlSerialized,
  amlStore,
} from "./aml.js";
import { amlInterrupt, amlResources } from "./aml-resources.js";

const PCI_SLOTS = 32;
/** Slots from this one on have PIRQ A to D (but the PCI bridge's), those below E to H. */
const FIRST_CHIPSET_SLOT = 25;
const PCI_BRIDGE_SLOT = 30;
const PIRQS = [..."ABCDEFGH"];
/** ISA interrupts that PCI devices may share. */
const LINK_IRQS = [5, 10, 11] as const;
const PIRQ_DISABLED = 0x80;
/** Where an extended interrupt descriptor has its first interrupt. */
const INTERRUPT_OFFSET = 5;
const LINK_HID = amlEisaId("PNP0C0F");

export function interruptRouting(): Aml {
  const mode = amlPath("PICF");
  return [
    ...amlName("PICF", amlInt(0)),
    ...amlMethod("_PIC", 1, amlStore(amlArg(0), mode)),
    ...amlScope(
      "_SB",
      amlScope(
        "PCI0",
        amlName("PRTP", routing("LNK")),
        amlName("PRTA", routing("GSI")),
        amlMethod(
          "_PRT",
          0,
          amlIf(amlEqual(mode, amlInt(0)), amlReturn(amlPath("PRTP"))),
          amlElse(amlReturn(amlPath("PRTA"))),
        ),
      ),
      linkStatus(),
      linkCurrent(),
      ...PIRQS.map((letter, i) => link(letter, i)),
      ...PIRQS.map((letter, i) => fixedLink(letter, 16 + i)),
    ),
  ];
}

/** {device, pin, link, 0} for every slot and pin. */
function routing(prefix: "LNK" | "GSI"): Aml {
  const routes: Aml[] = [];
  for (let slot = 0; slot < PCI_SLOTS; slot++)
    for (let pin = 0; pin < 4; pin++) {
      const low = slot >= FIRST_CHIPSET_SLOT && slot !== PCI_BRIDGE_SLOT;
      const pirq = PIRQS[low ? pin : 4 + ((firstPirq(slot) + pin) & 3)];
      routes.push(
        amlPackage(amlInt(slot * 0x10000 + 0xffff), amlInt(pin), amlPath(`${prefix}${pirq}`), amlInt(0)),
      );
    }
  return amlPackage(...routes);
}
/** Slots take turns with PIRQ E to H; slot 30 is where the PCI bridge would be. */
const firstPirq = (slot: number): number => (slot === PCI_BRIDGE_SLOT ? 0 : slot & 3);

/** IQST(register): _STA of a link. */
const linkStatus = (): Aml =>
  amlMethod(
    "IQST",
    1,
    amlIf(amlAnd(amlInt(PIRQ_DISABLED), amlArg(0)), amlReturn(amlInt(0x09))),
    amlReturn(amlInt(0x0b)),
  );

/** IQCR(register): _CRS of a link. */
const linkCurrent = (): Aml =>
  amlSerialized(
    "IQCR",
    1,
    amlName("PRR0", amlResources(amlInterrupt(0))),
    amlDwordField(amlPath("PRR0"), INTERRUPT_OFFSET, "PRRI"),
    amlStore(amlAnd(amlArg(0), amlInt(0x0f)), amlPath("PRRI")),
    amlReturn(amlPath("PRR0")),
  );

/** A link whose interrupt the PIRQ register chooses. */
function link(letter: string, uid: number): Aml {
  const register = amlPath(`PRQ${letter}`);
  return amlDevice(
    `LNK${letter}`,
    amlName("_HID", LINK_HID),
    amlName("_UID", amlInt(uid)),
    amlName("_PRS", amlResources(amlInterrupt(...LINK_IRQS))),
    amlMethod("_STA", 0, amlReturn(amlCall("IQST", register))),
    amlMethod("_DIS", 0, amlOr(register, amlInt(PIRQ_DISABLED), register)),
    amlMethod("_CRS", 0, amlReturn(amlCall("IQCR", register))),
    amlMethod(
      "_SRS",
      1,
      amlDwordField(amlArg(0), INTERRUPT_OFFSET, "PRRI"),
      amlStore(amlPath("PRRI"), register),
    ),
  );
}

/** A link that is wired to one input of the I/O APIC. */
function fixedLink(letter: string, gsi: number): Aml {
  const resources = amlResources(amlInterrupt(gsi));
  return amlDevice(
    `GSI${letter}`,
    amlName("_HID", LINK_HID),
    amlName("_UID", amlInt(gsi)),
    amlName("_PRS", resources),
    amlName("_CRS", resources),
    amlMethod("_DIS", 0),
    amlMethod("_SRS", 1),
  );
}
