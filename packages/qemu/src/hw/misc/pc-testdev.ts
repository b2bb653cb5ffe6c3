/**
 * Devices for test programs: isa-debug-exit, whose write ends the run, and pc-testdev: a scratch register, interrupt
 * lines, and memory that is not RAM. QEMU, hw/misc/debugexit.c, hw/misc/pc-testdev.c.
 */
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";

const PORT = { EXIT: 0xf4, DATA: 0xe0, FLUSH: 0xe4, BYTE: 0xe8, IRQ: 0x2000 } as const;
const IRQS = 24;
const MEMORY = { ADDRESS: 0xff000000, SIZE: 0x10000 } as const;

export interface TestDevicesHost {
  readonly ports: AddressSpace;
  readonly mmio: AddressSpace;
  /** Drives an ISA interrupt. */
  setIrq(irq: number, level: boolean): void;
  /** isa-debug-exit: QEMU's process would end with `status`. */
  exit(status: number): void;
}

const maskOf = (size: number): number => (size === 4 ? 0xffffffff : (1 << (size * 8)) - 1);

/** A register whose parts can be accessed in any size. */
class DataPort implements IoRegion {
  #value = 0;
  constructor(
    readonly name: string,
    readonly maxAccess: 1 | 4,
  ) {}
  read(offset: number, size: number): number {
    return ((this.#value >>> (offset * 8)) & maskOf(size)) >>> 0;
  }
  write(offset: number, size: number, value: number): void {
    const mask = maskOf(size) << (offset * 8);
    this.#value = (this.#value & ~mask) | ((value << (offset * 8)) & mask);
  }
}

class TestMemory implements IoRegion {
  readonly name = "pc-testdev-iomem";
  readonly maxAccess = 4;
  readonly #bytes = new Uint8Array(MEMORY.SIZE);
  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#bytes[offset + i] << (8 * i);
    return value >>> 0;
  }
  write(offset: number, size: number, value: number): void {
    for (let i = 0; i < size; i++) this.#bytes[offset + i] = value >>> (8 * i);
  }
}

const writeOnly = (name: string, write: (offset: number, value: number) => void): IoRegion => ({
  name,
  maxAccess: 4,
  read: () => 0,
  write: (offset, _size, value) => write(offset, value),
});

export function attachTestDevices(host: TestDevicesHost): void {
  const { ports, mmio } = host;
  ports.map(
    PORT.EXIT,
    4,
    writeOnly("isa-debug-exit", (_, value) => host.exit(((value << 1) | 1) >>> 0)),
  );
  ports.map(PORT.DATA, 4, new DataPort("pc-testdev-ioport", 4));
  // Pages that the guest asks to have unmapped: they are mapped again when they are touched, so nothing is lost.
  ports.map(
    PORT.FLUSH,
    4,
    writeOnly("pc-testdev-flush-page", () => {}),
  );
  ports.map(PORT.BYTE, 4, new DataPort("pc-testdev-ioport-byte", 1));
  ports.map(
    PORT.IRQ,
    IRQS,
    writeOnly("pc-testdev-irq-line", (irq, value) => host.setIrq(irq, value !== 0)),
  );
  mmio.map(MEMORY.ADDRESS, MEMORY.SIZE, new TestMemory());
}
