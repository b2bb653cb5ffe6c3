/**
 * CPU hotplug registers, for a machine whose processors are all there from the start. QEMU,
 * docs/specs/acpi_cpu_hotplug.rst; hw/acpi/cpu.c and cpu_hotplug.c. They begin as the bitmap of processors of older
 * machines; the write of 0 to its first byte turns them into selector, flags and commands.
 */
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";

export const CPU_HOTPLUG = {
  PORT: 0x0cd8,
  SIZE: 12,
  COMMAND: { NEXT_EVENT: 0, OST_EVENT: 1, OST_STATUS: 2, CPU_ID: 3 },
} as const;
const BITMAP_SIZE = 32;
const REGISTER = { SELECTOR: 0, COMMAND_DATA2: 0, FLAGS: 4, COMMAND: 5, COMMAND_DATA: 8 } as const;
const COMMANDS = Object.keys(CPU_HOTPLUG.COMMAND).length;
const ENABLED = 1;

export class CpuHotplug {
  #selector = 0;
  #command = 0;

  constructor(
    private readonly ports: AddressSpace,
    private readonly vcpus: number,
  ) {
    ports.map(CPU_HOTPLUG.PORT, BITMAP_SIZE, this.#bitmap);
  }

  readonly #bitmap: IoRegion = {
    name: "acpi-cpu-hotplug",
    maxAccess: 1,
    read: (offset) => {
      const left = this.vcpus - 8 * offset;
      return left >= 8 ? 0xff : left > 0 ? (1 << left) - 1 : 0;
    },
    write: (offset, _size, value) => {
      if (offset !== 0 || value !== 0) return;
      this.ports.unmap(this.#bitmap);
      this.ports.map(CPU_HOTPLUG.PORT, CPU_HOTPLUG.SIZE, this.#registers);
    },
  };

  /** Reads and writes of a register begin at its first byte; the rest of the block reads as zeros. */
  readonly #registers: IoRegion = {
    name: "acpi-cpu-hotplug",
    maxAccess: 4,
    read: (offset) => {
      if (this.#selector >= this.vcpus) return 0;
      if (offset === REGISTER.FLAGS) return ENABLED;
      if (offset !== REGISTER.COMMAND_DATA) return 0;
      const { NEXT_EVENT, CPU_ID } = CPU_HOTPLUG.COMMAND;
      return this.#command === NEXT_EVENT || this.#command === CPU_ID ? this.#selector : 0;
    },
    write: (offset, _size, value) => {
      if (offset === REGISTER.SELECTOR) this.#selector = value >>> 0;
      else if (offset === REGISTER.COMMAND && this.#selector < this.vcpus && value < COMMANDS)
        this.#command = value;
    },
  };
}
