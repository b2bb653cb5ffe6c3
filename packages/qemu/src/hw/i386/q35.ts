/**
 * The q35 machine's board: which device is where and how interrupts run, for a TD: no SMM, no 8259, no HPET. QEMU,
 * hw/i386/pc_q35.c and pc.c (pc_basic_device_init, pc_cmos_init).
 */
import { RESET_CONTROL } from "@swtdx/abi";
import { Timers } from "../../clock.js";
import { AddressSpace } from "../../memory/address-space.js";
import type { DmaMemory } from "../../memory/guest-memory.js";
import type { MemoryMap } from "../../memory/memory-map.js";
import { CpuHotplug } from "../acpi/cpu-hotplug.js";
import { Ich9Pm } from "../acpi/ich9-pm.js";
import { PCI_HOTPLUG, PciHotplug } from "../acpi/pci-hotplug.js";
import { COM1, Serial, UART_REGISTERS } from "../char/serial.js";
import { I8042, I8042_IRQ } from "../input/i8042.js";
import { IoApic, IOAPIC_ADDRESS, IOAPIC_SIZE, type MsiMessage } from "../intc/ioapic.js";
import { Ich9Lpc, ICH9_LPC_DEVFN } from "../isa/ich9-lpc.js";
import { Debugcon, Port92, PORT_92, PORT_DEBUGCON, PORT_POST, PostPort, ResetControl } from "../isa/ports.js";
import { FwCfg } from "../nvram/fw-cfg.js";
import { devfn, PciBus } from "../pci/pci-host.js";
import { Q35Mch } from "../pci/q35-mch.js";
import { Mc146818, RTC_IRQ, RTC_PORT } from "../rtc/mc146818.js";
import { type VirtioBackend, VirtioPci } from "../virtio/virtio-pci.js";
import { I8254, PIT_IRQ } from "../timer/i8254.js";

/** Input of the I/O APIC that an ISA interrupt is wired to: the timer's line is moved, as the MADT tells. */
export const isaGsi = (irq: number): number => (irq === PIT_IRQ ? 2 : irq);

export interface BoardOptions {
  readonly memory: DmaMemory;
  readonly map: MemoryMap;
  readonly vcpus: number;
  readonly now: () => number;
  /** Unix time in seconds at power-on. */
  readonly rtcStart: number;
  /** Virtio devices, in slots from 00:01.0 on. */
  readonly virtio: readonly VirtioBackend[];
  serial(byte: number): void;
  debugcon(byte: number): void;
  sendMsi(message: MsiMessage): void;
  ioapicRouted(ioapic: IoApic): void;
  poweroff(how: string): void;
  reset(how: string): void;
}

export class Q35Board {
  readonly ports = new AddressSpace();
  readonly mmio = new AddressSpace();
  readonly timers: Timers;
  readonly ioapic: IoApic;
  readonly serial: Serial;
  readonly fwCfg: FwCfg;
  readonly rtc: Mc146818;
  readonly pm: Ich9Pm;
  readonly pci: PciBus;
  readonly mch: Q35Mch;

  constructor(options: BoardOptions) {
    const { ports, mmio } = this;
    const reset = (how: string) => options.reset(how);
    this.timers = new Timers(options.now);
    this.ioapic = new IoApic(
      (message) => options.sendMsi(message),
      () => options.ioapicRouted(this.ioapic),
    );
    mmio.map(IOAPIC_ADDRESS, IOAPIC_SIZE, this.ioapic);
    const isaIrq = (irq: number) => (level: boolean) => this.ioapic.setIrq(isaGsi(irq), level);

    this.pci = new PciBus(ports, mmio);
    const lpc: Ich9Lpc = new Ich9Lpc(
      ports,
      mmio,
      (this.pm = new Ich9Pm({
        now: options.now,
        sci: (level) => lpc.setSci(level),
        // Nothing wakes this machine: whichever state it sleeps in, it is off.
        sleep: (state) => options.poweroff(`ACPI ${state}`),
      })),
      (gsi, level) => this.ioapic.setIrq(gsi, level),
    );
    this.mch = new Q35Mch(this.pci, mmio);
    this.pci.add(devfn(0, 0), this.mch);
    this.pci.add(ICH9_LPC_DEVFN, lpc);
    options.virtio.forEach((backend, i) => {
      const slot = 1 + i;
      const device = new VirtioPci(backend, {
        timers: this.timers,
        memory: options.memory,
        sendMsi: (message) => options.sendMsi(message),
        intx: (level) => this.#setPciIrq(slot, level),
      });
      this.pci.add(devfn(slot, 0), device);
    });
    ports.map(PCI_HOTPLUG.PORT, PCI_HOTPLUG.SIZE, new PciHotplug());
    new CpuHotplug(ports, options.vcpus);
    ports.map(RESET_CONTROL.PORT, 1, new ResetControl(reset));

    this.serial = new Serial((byte) => options.serial(byte), isaIrq(COM1.IRQ));
    ports.map(COM1.PORT, UART_REGISTERS, this.serial);
    this.rtc = new Mc146818(this.timers, options.rtcStart, isaIrq(RTC_IRQ));
    ports.map(RTC_PORT, 2, this.rtc);
    new I8254(this.timers, isaIrq(PIT_IRQ)).attach(ports);
    new I8042(reset, isaIrq(I8042_IRQ)).attach(ports);
    ports.map(PORT_92, 1, new Port92(reset));
    ports.map(PORT_POST, 1, new PostPort());
    ports.map(PORT_DEBUGCON, 1, new Debugcon((byte) => options.debugcon(byte)));
    this.fwCfg = new FwCfg(options.memory);
    this.fwCfg.attach(ports);
    initCmos(this.rtc, options.map, options.vcpus);
  }

  /** INTA# of a slot: slots share PIRQ E to H, that is inputs 20 to 23, so a line is the OR of its slots'. */
  readonly #pciLevels = [0, 0, 0, 0];
  #setPciIrq(slot: number, level: boolean): void {
    const line = slot & 3;
    const bit = 1 << slot;
    const levels = this.#pciLevels[line];
    this.#pciLevels[line] = level ? levels | bit : levels & ~bit;
    this.ioapic.setIrq(20 + line, this.#pciLevels[line] !== 0);
  }
}

/** Most virtio devices: slots 1 to 24, which the routing of interrupts treats alike. */
export const VIRTIO_MAX = 24;

/** What the CMOS RAM tells about memory and processors. */
function initCmos(rtc: Mc146818, map: MemoryMap, vcpus: number): void {
  const put = (at: number, value: number, bytes = 2) => {
    for (let i = 0; i < bytes; i++) rtc.set(at + i, Math.floor(value / 2 ** (8 * i)) & 0xff);
  };
  const low = map.below4g.length;
  put(0x15, Math.min(low / 1024, 640));
  const extended = Math.min(Math.max(low / 1024 - 1024, 0), 65535);
  put(0x17, extended);
  put(0x30, extended);
  put(0x34, Math.min(Math.max((low - 16 * 2 ** 20) / 65536, 0), 65535));
  put(0x5b, map.above4g.length / 65536, 3);
  put(0x5f, vcpus - 1, 1);
}
