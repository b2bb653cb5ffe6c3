/**
 * The small ports of a PC: POST codes (0x80), the debug console (0x402), system control port A (0x92), and the reset
 * control register (0xCF9). QEMU, hw/char/debugcon.c, hw/i386/port92.c, hw/isa/lpc_ich9.c.
 */
import { RESET_CONTROL } from "@swtdx/abi";
import type { IoRegion } from "../../memory/address-space.js";

export const PORT_POST = 0x80;
export const PORT_DEBUGCON = 0x402;
export const PORT_92 = 0x92;

/** POST codes: the last one stays readable. */
export class PostPort implements IoRegion {
  readonly name = "port80";
  readonly maxAccess = 1;
  last = 0xff;
  read(): number {
    return this.last;
  }
  write(_offset: number, _size: number, value: number): void {
    this.last = value;
  }
}

/** Bytes written are the firmware's debug log; a read gives 0xE9, by which firmware knows the device. */
export class Debugcon implements IoRegion {
  readonly name = "debugcon";
  readonly maxAccess = 1;
  constructor(private readonly sink: (byte: number) => void) {}
  read(): number {
    return 0xe9;
  }
  write(_offset: number, _size: number, value: number): void {
    this.sink(value);
  }
}

/** System control port A: A20 (which has no effect on a machine that never masks it) and fast reset. */
export class Port92 implements IoRegion {
  readonly name = "port92";
  readonly maxAccess = 1;
  #value = 0x02;
  constructor(private readonly reset: (how: string) => void) {}
  read(): number {
    return this.#value;
  }
  write(_offset: number, _size: number, value: number): void {
    const rising = value & ~this.#value & 1;
    this.#value = value & ~1;
    if (rising) this.reset("port 0x92");
  }
}

/** Reset control: setting RST_CPU resets, hard or soft as SYS_RST says. */
export class ResetControl implements IoRegion {
  readonly name = "reset control";
  readonly maxAccess = 1;
  #value = 0;
  constructor(private readonly reset: (how: string) => void) {}
  read(): number {
    return this.#value;
  }
  write(_offset: number, _size: number, value: number): void {
    this.#value = value & (RESET_CONTROL.SYS_RST | RESET_CONTROL.FULL_RST);
    if (value & RESET_CONTROL.RST_CPU) this.reset("port 0xcf9");
  }
}
