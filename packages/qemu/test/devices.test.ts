import { ACPI_PM1_CNT, decodeFwCfgDirectory, FW_CFG, FW_CFG_DMA_CTL } from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Timers } from "../src/clock.js";
import { Ich9Pm } from "../src/hw/acpi/ich9-pm.js";
import { Serial } from "../src/hw/char/serial.js";
import { I8042 } from "../src/hw/input/i8042.js";
import { IoApic } from "../src/hw/intc/ioapic.js";
import { Ich9Lpc, ICH9_LPC_DEVFN } from "../src/hw/isa/ich9-lpc.js";
import { Debugcon, Port92, PostPort, ResetControl } from "../src/hw/isa/ports.js";
import { FwCfg } from "../src/hw/nvram/fw-cfg.js";
import { PciDevice } from "../src/hw/pci/pci-device.js";
import { PciBus } from "../src/hw/pci/pci-host.js";
import { Q35Mch } from "../src/hw/pci/q35-mch.js";
import { Mc146818 } from "../src/hw/rtc/mc146818.js";
import { I8254, PIT_HZ } from "../src/hw/timer/i8254.js";
import { AddressSpace, type IoRegion } from "../src/memory/address-space.js";
import { GuestMemory } from "../src/memory/guest-memory.js";

const bytesRegion = (bytes: Uint8Array, maxAccess: 1 | 2 | 4 = 1): IoRegion => ({
  name: "bytes",
  maxAccess,
  read: (offset, size) => {
    let value = 0;
    for (let i = 0; i < size; i++) value |= bytes[offset + i] << (8 * i);
    return value;
  },
  write: (offset, size, value) => {
    for (let i = 0; i < size; i++) bytes[offset + i] = value >>> (8 * i);
  },
});

describe("AddressSpace", () => {
  it("gives ones where nothing is and splits accesses at a device's edges", () => {
    const space = new AddressSpace();
    const bytes = Uint8Array.of(1, 2, 3, 4);
    space.map(0x100, 4, bytesRegion(bytes, 2));
    expect(space.read(0x50, 4)).toBe(0xffffffff);
    expect(space.read(0x100, 4)).toBe(0x04030201);
    expect(space.read(0xfe, 4)).toBe(0x0201ffff);
    expect(space.read(0x103, 2)).toBe(0xff04);
    space.write(0x102, 4, 0x0d0c0b0a);
    expect([...bytes]).toEqual([1, 2, 0x0a, 0x0b]);
    expect(space.at(0x104)).toBe(null);
  });
  it("lets what was mapped later win", () => {
    const space = new AddressSpace();
    const low = Uint8Array.of(1, 1, 1, 1);
    const high = Uint8Array.of(9);
    space.map(0, 4, bytesRegion(low));
    space.map(1, 1, bytesRegion(high));
    expect(space.read(0, 1)).toBe(1);
    expect(space.read(1, 1)).toBe(9);
    expect(space.read(0, 4)).toBe(0x01010901);
  });
});

describe("16550A", () => {
  const setup = () => {
    const sent: number[] = [];
    const levels: boolean[] = [];
    const uart = new Serial(
      (byte) => sent.push(byte),
      (level) => levels.at(-1) !== level && levels.push(level),
    );
    return { uart, sent, levels };
  };
  it("comes up as the data sheet says", () => {
    const { uart } = setup();
    expect([0, 1, 2, 3, 5, 6, 7].map((offset) => uart.read(offset))).toEqual([0, 0, 0x01, 0, 0x60, 0xb0, 0]);
  });
  it("keeps the divisor apart and sends what is written to THR", () => {
    const { uart, sent } = setup();
    uart.write(3, 1, 0x83);
    uart.write(0, 1, 0x01);
    uart.write(1, 1, 0x02);
    expect([uart.read(0), uart.read(1)]).toEqual([1, 2]);
    uart.write(3, 1, 0x03);
    uart.write(0, 1, 0x41);
    expect(sent).toEqual([0x41]);
    expect(uart.read(5)).toBe(0x60);
  });
  it("raises THRE when enabled, clears it by IIR, raises it again after a byte", () => {
    const { uart, levels } = setup();
    uart.write(1, 1, 0x02);
    expect(uart.read(2)).toBe(0x02);
    expect(uart.read(2)).toBe(0x01);
    uart.write(0, 1, 0x55);
    expect(uart.read(2) & 0x0f).toBe(0x02);
    expect(levels).toEqual([true, false, true, false]);
  });
  it("receives, with FIFO, trigger level and character timeout", () => {
    const { uart } = setup();
    expect(uart.receive(1)).toBe(true);
    expect(uart.receive(2)).toBe(false);
    expect([uart.read(5) & 1, uart.read(0), uart.read(5) & 1]).toEqual([1, 1, 0]);
    uart.write(2, 1, 0x81);
    uart.write(1, 1, 0x01);
    for (let i = 0; i < 16; i++) expect(uart.receive(i)).toBe(true);
    expect(uart.receive(16)).toBe(false);
    expect(uart.read(2)).toBe(0xc4);
    for (let i = 0; i < 9; i++) expect(uart.read(0)).toBe(i);
    expect(uart.read(2)).toBe(0xcc);
    uart.write(2, 1, 0x83);
    expect(uart.read(2)).toBe(0xc1);
  });
  it("loops back", () => {
    const { uart, sent } = setup();
    uart.write(4, 1, 0x1e);
    expect(uart.read(6)).toBe(0xd0);
    uart.write(0, 1, 0x7e);
    expect(sent).toEqual([]);
    expect(uart.read(0)).toBe(0x7e);
  });
  it("survives anything", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat(7), fc.nat(255))), (ops) => {
        const { uart } = setup();
        for (const [write, offset, value] of ops)
          if (write) uart.write(offset, 1, value);
          else expect(uart.read(offset)).toBeLessThan(256);
      }),
    );
  });
});

describe("fw_cfg", () => {
  const ram = new Uint8Array(0x1000);
  const memory = new GuestMemory([
    {
      name: "ram",
      address: 0x1000,
      length: ram.length,
      memory: {
        read: (at, length) => ram.slice(at, at + length),
        write: (at, data) => ram.set(data, at),
      },
    },
  ]);
  const setup = () => {
    ram.fill(0xee);
    const ports = new AddressSpace();
    const device = new FwCfg(memory);
    device.attach(ports);
    device.addFile("etc/b", Uint8Array.of(1, 2, 3));
    device.addFile("etc/a", new TextEncoder().encode("hello"));
    device.addU32(FW_CFG.KERNEL_SIZE, 0x12345678);
    const select = (key: number) => ports.write(0x510, 2, key);
    const read = (length: number) => Array.from({ length }, () => ports.read(0x511, 1));
    return { ports, device, select, read };
  };
  it("gives items byte by byte, then zeros", () => {
    const { select, read } = setup();
    select(FW_CFG.SIGNATURE);
    expect(String.fromCharCode(...read(4))).toBe("QEMU");
    select(FW_CFG.ID);
    expect(read(6)).toEqual([3, 0, 0, 0, 0, 0]);
    select(FW_CFG.KERNEL_SIZE);
    expect(read(4)).toEqual([0x78, 0x56, 0x34, 0x12]);
    select(0x1234);
    expect(read(2)).toEqual([0, 0]);
  });
  it("sorts its directory", () => {
    const { select, read } = setup();
    select(FW_CFG.FILE_DIR);
    expect(decodeFwCfgDirectory(Uint8Array.from(read(4 + 2 * 64)))).toEqual([
      { name: "etc/a", select: 0x20, size: 5 },
      { name: "etc/b", select: 0x21, size: 3 },
    ]);
    select(0x20);
    expect(String.fromCharCode(...read(5))).toBe("hello");
  });
  it("transfers by DMA", () => {
    const { ports } = setup();
    const be = (value: number) => {
      const view = new DataView(new ArrayBuffer(4));
      view.setUint32(0, value);
      return view.getUint32(0, true);
    };
    expect(ports.read(0x514, 4)).toBe(
      new DataView(new TextEncoder().encode("QEMU").buffer).getUint32(0, true),
    );
    const dma = (control: number, length: number, address: number) => {
      const view = new DataView(ram.buffer);
      view.setUint32(0, control);
      view.setUint32(4, length);
      view.setBigUint64(8, BigInt(address));
      ports.write(0x514, 4, 0);
      ports.write(0x518, 4, be(0x1000));
      return view.getUint32(0);
    };
    expect(dma((0x20 << 16) | FW_CFG_DMA_CTL.SELECT | FW_CFG_DMA_CTL.READ, 8, 0x1100)).toBe(0);
    expect([...ram.subarray(0x100, 0x109)]).toEqual([...new TextEncoder().encode("hello"), 0, 0, 0, 0xee]);
    expect(dma((0x20 << 16) | FW_CFG_DMA_CTL.SELECT | FW_CFG_DMA_CTL.SKIP, 3, 0)).toBe(0);
    expect(dma(FW_CFG_DMA_CTL.READ, 2, 0x1200)).toBe(0);
    expect([...ram.subarray(0x200, 0x202)]).toEqual([0x6c, 0x6f]);
    expect(dma(FW_CFG_DMA_CTL.READ, 16, 0x1ff8)).toBe(FW_CFG_DMA_CTL.ERROR);
    expect(dma(FW_CFG_DMA_CTL.WRITE, 1, 0x1200)).toBe(FW_CFG_DMA_CTL.ERROR);
  });
  it("refuses too many files", () => {
    const { device } = setup();
    for (let i = 2; i < 32; i++) device.addFile(`f${i}`, new Uint8Array());
    expect(() => device.addFile("one more", new Uint8Array())).toThrow(RangeError);
    expect(() => device.addFile("x".repeat(56), new Uint8Array())).toThrow(RangeError);
  });
});

const chipset = () => {
  let now = 0;
  const events: string[] = [];
  const gsis = new Map<number, boolean>();
  const ports = new AddressSpace();
  const mmio = new AddressSpace();
  const timers = new Timers(() => now);
  const pm = new Ich9Pm({
    now: () => now,
    sci: (level) => lpc.setSci(level),
    sleep: (state) => events.push(state),
  });
  const bus = new PciBus(ports, mmio);
  const lpc = new Ich9Lpc(ports, mmio, pm, (pin, level) => gsis.set(pin, level));
  bus.add(0, new Q35Mch(bus, mmio));
  bus.add(ICH9_LPC_DEVFN, lpc);
  ports.map(0xcf9, 1, new ResetControl((how) => events.push(`reset ${how}`)));
  const config = (device: number, offset: number) =>
    ports.write(0xcf8, 4, 0x80000000 | (device << 8) | (offset & 0xfc));
  return {
    ports,
    mmio,
    timers,
    bus,
    events,
    gsis,
    pm,
    advance: (ns: number) => (now += ns),
    read: (device: number, offset: number, size: number) => {
      config(device, offset);
      return ports.read(0xcfc + (offset & 3), size);
    },
    write: (device: number, offset: number, size: number, value: number) => {
      config(device, offset);
      ports.write(0xcfc + (offset & 3), size, value);
    },
  };
};

describe("q35 chipset", () => {
  it("shows host bridge and LPC bridge, nothing else", () => {
    const { read } = chipset();
    expect(read(0, 0, 4)).toBe(0x29c08086);
    expect(read(0, 2, 2)).toBe(0x29c0);
    expect(read(ICH9_LPC_DEVFN, 0, 4)).toBe(0x29188086);
    expect(read(ICH9_LPC_DEVFN, 0x0a, 2)).toBe(0x0601);
    expect(read(ICH9_LPC_DEVFN, 0x0e, 1)).toBe(0x80);
    expect(read(8, 0, 4)).toBe(0xffffffff);
    expect(read(8, 0, 2)).toBe(0xffff);
    expect(read(0, 0x60, 4)).toBe(0xb0000000);
  });
  it("keeps read-only registers", () => {
    const { read, write } = chipset();
    write(0, 0, 4, 0);
    write(0, 0x9d, 1, 0x7f);
    expect(read(0, 0, 4)).toBe(0x29c08086);
    expect(read(0, 0x9d, 1)).toBe(0);
    write(ICH9_LPC_DEVFN, 0x3c, 1, 11);
    expect(read(ICH9_LPC_DEVFN, 0x3c, 1)).toBe(11);
  });
  it("maps ECAM where PCIEXBAR says", () => {
    const { mmio, write } = chipset();
    expect(mmio.read(0xe0000000, 4)).toBe(0xffffffff);
    write(0, 0x60, 4, 0xe0000001);
    expect(mmio.read(0xe0000000, 4)).toBe(0x29c08086);
    expect(mmio.read(0xe0000000 + (ICH9_LPC_DEVFN << 12), 4)).toBe(0x29188086);
    write(0, 0x60, 4, 0xb0000001);
    expect(mmio.read(0xe0000000, 4)).toBe(0xffffffff);
    expect(mmio.read(0xb0000000, 2)).toBe(0x8086);
  });
  it("maps the ACPI registers when ACPI_CTRL enables them; the PM timer runs", () => {
    const { ports, write, advance } = chipset();
    expect(ports.read(0x608, 4)).toBe(0xffffffff);
    write(ICH9_LPC_DEVFN, 0x40, 4, 0x601);
    expect(ports.read(0x608, 4)).toBe(0xffffffff);
    write(ICH9_LPC_DEVFN, 0x44, 1, 0x80);
    expect(ports.read(0x608, 4)).toBe(0);
    advance(1e9);
    expect(ports.read(0x608, 4)).toBe(3579545);
    advance(4e9);
    expect(ports.read(0x608, 4)).toBe((5 * 3579545) & 0xffffff);
    write(ICH9_LPC_DEVFN, 0x40, 4, 0x401);
    expect(ports.read(0x608, 4)).toBe(0xffffffff);
    expect(ports.read(0x408, 4)).not.toBe(0xffffffff);
  });
  it("tells which state it is to sleep in", () => {
    const { ports, write, events } = chipset();
    write(ICH9_LPC_DEVFN, 0x40, 4, 0x601);
    write(ICH9_LPC_DEVFN, 0x44, 1, 0x80);
    expect(ports.read(0x604, 2)).toBe(ACPI_PM1_CNT.SCI_EN);
    ports.write(0x604, 2, 0x2400);
    ports.write(0x604, 2, 0x2c00);
    expect(events).toEqual(["S3"]);
    ports.write(0x604, 2, 0x2001);
    expect(events).toEqual(["S3", "S5"]);
    expect(ports.read(0x604, 2)).toBe(1);
  });
  it("raises the SCI for the power button until the status is cleared", () => {
    const { ports, write, gsis, pm } = chipset();
    write(ICH9_LPC_DEVFN, 0x40, 4, 0x601);
    write(ICH9_LPC_DEVFN, 0x44, 1, 0x80);
    ports.write(0x602, 2, 0x0100);
    pm.pressPowerButton();
    expect(gsis.get(9)).toBe(true);
    expect(ports.read(0x600, 2)).toBe(0x0100);
    ports.write(0x600, 2, 0x0100);
    expect(gsis.get(9)).toBe(false);
  });
  it("resets by 0xCF9, and 0xCF8 stays whole", () => {
    const { ports, events, read } = chipset();
    ports.write(0xcf9, 1, 0x02);
    expect(events).toEqual([]);
    ports.write(0xcf9, 1, 0x06);
    expect(events).toEqual(["reset port 0xcf9"]);
    expect(ports.read(0xcf9, 1)).toBe(0x02);
    expect(read(0, 0, 4)).toBe(0x29c08086);
  });
  it("sizes, places and removes BARs", () => {
    const { bus, read, write, mmio, ports } = chipset();
    const device = new PciDevice({
      name: "t",
      vendorId: 0x1af4,
      deviceId: 0x1042,
      revision: 1,
      classDevice: 0x0100,
    });
    device.setBar(0, { kind: "io", size: 0x20, region: bytesRegion(Uint8Array.of(7)) });
    device.setBar(4, {
      kind: "mem64",
      prefetchable: true,
      size: 0x4000,
      region: bytesRegion(Uint8Array.of(8)),
    });
    bus.add(8, device);
    write(8, 0x10, 4, 0xffffffff);
    write(8, 0x20, 4, 0xffffffff);
    write(8, 0x24, 4, 0xffffffff);
    expect([read(8, 0x10, 4), read(8, 0x20, 4), read(8, 0x24, 4)]).toEqual([
      0xffffffe1, 0xffffc00c, 0xffffffff,
    ]);
    write(8, 0x10, 4, 0xc000);
    write(8, 0x20, 4, 0x8000);
    write(8, 0x24, 4, 0x8);
    expect(mmio.at(0x800008000)).toBe(null);
    write(8, 4, 2, 3);
    expect(mmio.read(0x800008000, 1)).toBe(8);
    expect(ports.read(0xc000, 1)).toBe(7);
    write(8, 4, 2, 0);
    expect(ports.at(0xc000)).toBe(null);
  });
});

describe("small devices", () => {
  it("port 0x80, debugcon, port 0x92", () => {
    const out: number[] = [];
    const resets: string[] = [];
    const post = new PostPort();
    post.write(0, 1, 0x42);
    expect(post.read()).toBe(0x42);
    const debug = new Debugcon((byte) => out.push(byte));
    expect(debug.read()).toBe(0xe9);
    debug.write(0, 1, 65);
    expect(out).toEqual([65]);
    const port92 = new Port92((how) => resets.push(how));
    port92.write(0, 1, 2);
    expect(resets).toEqual([]);
    port92.write(0, 1, 3);
    expect(resets).toEqual(["port 0x92"]);
  });
  it("8042 tests itself, has a keyboard, and resets", () => {
    const ports = new AddressSpace();
    const resets: string[] = [];
    const levels: boolean[] = [];
    new I8042(
      (how) => resets.push(how),
      (level) => levels.push(level),
    ).attach(ports);
    const full = () => (ports.read(0x64, 1) & 1) === 1;
    ports.write(0x64, 1, 0xaa);
    expect(full()).toBe(true);
    expect(ports.read(0x60, 1)).toBe(0x55);
    expect(full()).toBe(false);
    ports.write(0x64, 1, 0x60);
    ports.write(0x60, 1, 0x65);
    ports.write(0x64, 1, 0x20);
    expect(ports.read(0x60, 1)).toBe(0x65);
    const say = (...bytes: number[]) => {
      for (const byte of bytes) ports.write(0x60, 1, byte);
      const answers: number[] = [];
      while (full()) answers.push(ports.read(0x60, 1));
      return answers;
    };
    expect(say(0xff)).toEqual([0xfa, 0xaa]);
    expect(say(0xf2)).toEqual([0xfa, 0xab, 0x83]);
    expect(say(0xed, 7)).toEqual([0xfa, 0xfa]);
    expect(say(0xf0, 0)).toEqual([0xfa, 0xfa, 2]);
    expect(say(0x01)).toEqual([0xfe]);
    expect(levels).toContain(true);
    expect(levels.at(-1)).toBe(false);
    ports.write(0x64, 1, 0xfe);
    expect(resets).toEqual(["i8042"]);
  });
  it("the clock keeps time in BCD and in binary, and interrupts", () => {
    let now = 0;
    const timers = new Timers(() => now);
    const levels: boolean[] = [];
    const rtc = new Mc146818(timers, Date.UTC(2026, 11, 31, 23, 59, 58) / 1000, (level) =>
      levels.push(level),
    );
    const read = (index: number) => {
      rtc.write(0, 1, index);
      return rtc.read(1);
    };
    const write = (index: number, value: number) => {
      rtc.write(0, 1, index);
      rtc.write(1, 1, value);
    };
    const time = () => [0x32, 9, 8, 7, 4, 2, 0].map((index) => read(index).toString(16));
    expect(time()).toEqual(["20", "26", "12", "31", "23", "59", "58"]);
    expect(read(0x0a) & 0x80).toBe(0);
    expect(read(0x0d)).toBe(0x80);
    now = 2e9;
    expect(time()).toEqual(["20", "27", "1", "1", "0", "0", "0"]);
    write(0x0b, 0x06);
    expect(read(9)).toBe(27);
    write(0x0b, 0x12 | 0x04);
    now = 3e9;
    timers.run();
    expect(levels).toEqual([true]);
    expect(read(0x0c)).toBe(0x90);
    expect(levels).toEqual([true, false]);
    write(0x0b, 0x82);
    write(9, 0x30);
    write(0x0b, 0x02);
    expect(read(9)).toBe(0x30);
    write(0x5b, 0xa5);
    expect(read(0x5b)).toBe(0xa5);
  });
  it("the PIT counts against the clock, gates channel 2 and interrupts on channel 0", () => {
    let now = 0;
    const timers = new Timers(() => now);
    const irqs: boolean[] = [];
    const ports = new AddressSpace();
    new I8254(timers, (level) => irqs.push(level)).attach(ports);
    ports.write(0x61, 1, 1);
    ports.write(0x43, 1, 0xb0);
    ports.write(0x42, 1, 0xff);
    ports.write(0x42, 1, 0xff);
    const read = () => ports.read(0x42, 1) | (ports.read(0x42, 1) << 8);
    expect(read()).toBe(0xffff);
    now = 10e6;
    expect(read()).toBe(0xffff - Math.floor(PIT_HZ / 100));
    expect(ports.read(0x61, 1) & 0x20).toBe(0);
    now = 60e6;
    expect(ports.read(0x61, 1) & 0x20).toBe(0x20);
    ports.write(0x43, 1, 0x34);
    ports.write(0x40, 1, 11932 & 0xff);
    ports.write(0x40, 1, 11932 >> 8);
    let ticks = 0;
    for (; now < 160e6; now += 1e6) {
      timers.run();
      ticks = irqs.filter((level) => level).length;
    }
    expect(ticks).toBe(9);
  });
  it("the IOAPIC sends edges once and levels until EOI", () => {
    const sent: { address: number; data: number }[] = [];
    const apic = new IoApic(({ address, data }) => sent.push({ address, data }));
    const write = (register: number, value: number) => {
      apic.write(0, 4, register);
      apic.write(0x10, 4, value);
    };
    apic.write(0, 4, 1);
    expect(apic.read(0x10, 4)).toBe(0x00170020);
    apic.setIrq(4, true);
    apic.setIrq(4, false);
    expect(sent).toEqual([]);
    write(0x10 + 9, 2 << 24);
    write(0x10 + 8, 0x31);
    apic.setIrq(4, true);
    expect(sent).toEqual([{ address: 0xfee02000, data: 0x31 }]);
    apic.setIrq(4, true);
    expect(sent.length).toBe(1);
    write(0x10 + 18, 0x8042);
    apic.setIrq(9, true);
    expect(sent.length).toBe(2);
    apic.eoi(0x42);
    expect(sent.length).toBe(3);
    apic.setIrq(9, false);
    apic.eoi(0x42);
    expect(sent.length).toBe(3);
  });
});
