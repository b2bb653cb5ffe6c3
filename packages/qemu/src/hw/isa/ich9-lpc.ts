/**
 * ICH9's LPC bridge, function 00:1F.0: where the ACPI registers and the chipset configuration registers are, and the
 * routing of PCI interrupts. Intel I/O Controller Hub 9 data sheet, chapter 13; QEMU, hw/isa/lpc_ich9.c.
 */
import { ICH9_PMIO } from "@swtdx/abi";
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";
import { PCI, PciDevice } from "../pci/pci-device.js";

export const ICH9_LPC_DEVFN = 0xf8;
/** What firmware sets PMBASE to: QEMU's ACPI tables assume it. */
export const ICH9_PMIO_BASE = 0x600;

const LPC = {
  PMBASE: 0x40,
  ACPI_CTRL: 0x44,
  PIRQA_ROUT: 0x60,
  PIRQE_ROUT: 0x68,
  ENABLES: 0x82,
  RCBA: 0xf0,
} as const;
const ACPI_CTRL = { EN: 0x80, SCI_IRQ: 0x07 } as const;
/** COM1 is decoded. */
const LPC_EN_COM1 = 0x01;
const PMBASE_IO = 0x1;
const PIRQ_DISABLED = 0x80;
const RCBA_EN = 0x1;
const RCBA_SIZE = 0x4000;
/** Global system interrupts by ACPI_CTRL's SCI_IRQ_SEL. */
const SCI_GSI: readonly (number | undefined)[] = [9, 10, 11, undefined, 20, 21];
/** Chipset registers that route the pins of device 25 and up, and their defaults: pins A to D to PIRQ A to D. */
const D31IR = 0x3140;
const DIR_DEFAULT = 0x3210;

export class Ich9Lpc extends PciDevice {
  #pmBase: number | null = null;
  #rcba: number | null = null;
  #sci = SCI_GSI[0]!;
  #sciLevel = false;
  readonly #chipset = new Uint8Array(RCBA_SIZE);

  constructor(
    private readonly ports: AddressSpace,
    private readonly mmio: AddressSpace,
    private readonly pm: IoRegion,
    private readonly gsi: (pin: number, level: boolean) => void,
  ) {
    super({
      name: "ICH9 LPC",
      vendorId: 0x8086,
      deviceId: 0x2918,
      revision: 2,
      classDevice: 0x0601,
      multiFunction: true,
    });
    this.view.setUint32(LPC.PMBASE, PMBASE_IO, true);
    this.config[LPC.ENABLES] = LPC_EN_COM1;
    this.config.fill(PIRQ_DISABLED, LPC.PIRQA_ROUT, LPC.PIRQA_ROUT + 4);
    this.config.fill(PIRQ_DISABLED, LPC.PIRQE_ROUT, LPC.PIRQE_ROUT + 4);
    this.config[PCI.INTERRUPT_LINE] = 0;
    const chipset = new DataView(this.#chipset.buffer);
    for (let device = 0; device < 7; device++) chipset.setUint16(D31IR + 4 * device, DIR_DEFAULT, true);
  }

  /** Level of the system control interrupt, from the ACPI registers. */
  setSci(level: boolean): void {
    this.#sciLevel = level;
    this.gsi(this.#sci, level);
  }

  override configWritten(offset: number, size: number): void {
    const touches = (at: number, length: number) => offset < at + length && offset + size > at;
    if (touches(LPC.PMBASE, 5)) this.#mapPm();
    if (touches(LPC.RCBA, 4)) this.#mapRcba();
  }

  #mapPm(): void {
    const control = this.config[LPC.ACPI_CTRL];
    const base = control & ACPI_CTRL.EN ? this.view.getUint32(LPC.PMBASE, true) & 0xff80 : null;
    if (base !== this.#pmBase) {
      this.ports.unmap(this.pm);
      if (base !== null) this.ports.map(base, ICH9_PMIO.SIZE, this.pm);
      this.#pmBase = base;
    }
    const sci = SCI_GSI[control & ACPI_CTRL.SCI_IRQ] ?? SCI_GSI[0]!;
    if (sci !== this.#sci) {
      this.gsi(this.#sci, false);
      this.#sci = sci;
      this.gsi(sci, this.#sciLevel);
    }
  }

  #mapRcba(): void {
    const value = this.view.getUint32(LPC.RCBA, true);
    const base = value & RCBA_EN ? (value & ~(RCBA_SIZE - 1)) >>> 0 : null;
    if (base === this.#rcba) return;
    this.mmio.unmap(this.#chipsetRegisters);
    if (base !== null) this.mmio.map(base, RCBA_SIZE, this.#chipsetRegisters);
    this.#rcba = base;
  }

  /** The chipset configuration registers keep what is written. */
  readonly #chipsetRegisters: IoRegion = {
    name: "lpc-rcrb-mmio",
    maxAccess: 1,
    read: (offset) => this.#chipset[offset],
    write: (offset, _size, value) => {
      this.#chipset[offset] = value;
    },
  };
}
