/**
 * 8042 keyboard controller with nothing plugged in: its self-test, command byte, output port and the reset line work;
 * no keyboard and no mouse answers. IBM PS/2 Hardware Interface Technical Reference; QEMU, hw/input/pckbd.c.
 */
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";

const STATUS = { OBF: 0x01, SELFTEST: 0x04, CMD: 0x08, UNLOCKED: 0x10 } as const;
const COMMAND = {
  READ_MODE: 0x20,
  WRITE_MODE: 0x60,
  MOUSE_DISABLE: 0xa7,
  MOUSE_ENABLE: 0xa8,
  TEST_MOUSE: 0xa9,
  SELF_TEST: 0xaa,
  TEST_KEYBOARD: 0xab,
  KEYBOARD_DISABLE: 0xad,
  KEYBOARD_ENABLE: 0xae,
  READ_INPUT_PORT: 0xc0,
  READ_OUTPUT_PORT: 0xd0,
  WRITE_OUTPUT_PORT: 0xd1,
  PULSE_FIRST: 0xf0,
} as const;
const MODE = { SYS: 0x04, DISABLE_KEYBOARD: 0x10, DISABLE_MOUSE: 0x20 } as const;
/** Tests answer 0 for a working line. */
const LINE_OK = 0x00;
const SELF_TEST_PASSED = 0x55;

export class I8042 {
  #mode: number = MODE.SYS;
  #status: number = STATUS.UNLOCKED;
  #output = 0;
  /** Bit 0 is the (active-low) reset line, bit 1 is A20. */
  #outputPort = 0x03;
  #pending: number | null = null;

  constructor(private readonly reset: (how: string) => void) {}

  attach(ports: AddressSpace): void {
    ports.map(0x60, 1, this.#dataPort);
    ports.map(0x64, 1, this.#commandPort);
  }

  readonly #dataPort: IoRegion = {
    name: "i8042-data",
    maxAccess: 1,
    read: () => {
      this.#status &= ~STATUS.OBF;
      return this.#output;
    },
    write: (_offset, _size, value) => {
      const command = this.#pending;
      this.#pending = null;
      this.#status &= ~STATUS.CMD;
      if (command === COMMAND.WRITE_MODE) this.#mode = value;
      else if (command === COMMAND.WRITE_OUTPUT_PORT) this.#writeOutputPort(value);
    },
  };

  readonly #commandPort: IoRegion = {
    name: "i8042-cmd",
    maxAccess: 1,
    read: () => this.#status,
    write: (_offset, _size, value) => {
      this.#status |= STATUS.CMD;
      this.#pending = null;
      switch (value) {
        case COMMAND.READ_MODE:
          return this.#answer(this.#mode);
        case COMMAND.WRITE_MODE:
        case COMMAND.WRITE_OUTPUT_PORT:
          this.#pending = value;
          return;
        case COMMAND.SELF_TEST:
          this.#status |= STATUS.SELFTEST;
          return this.#answer(SELF_TEST_PASSED);
        case COMMAND.TEST_KEYBOARD:
        case COMMAND.TEST_MOUSE:
          return this.#answer(LINE_OK);
        case COMMAND.KEYBOARD_DISABLE:
          this.#mode |= MODE.DISABLE_KEYBOARD;
          return;
        case COMMAND.KEYBOARD_ENABLE:
          this.#mode &= ~MODE.DISABLE_KEYBOARD;
          return;
        case COMMAND.MOUSE_DISABLE:
          this.#mode |= MODE.DISABLE_MOUSE;
          return;
        case COMMAND.MOUSE_ENABLE:
          this.#mode &= ~MODE.DISABLE_MOUSE;
          return;
        case COMMAND.READ_INPUT_PORT:
          return this.#answer(0x80);
        case COMMAND.READ_OUTPUT_PORT:
          return this.#answer(this.#outputPort);
        default:
          // 0xF0..0xFF pulse the lines whose bits are clear; bit 0 resets.
          if (value >= COMMAND.PULSE_FIRST && !(value & 1)) this.reset("i8042");
      }
    },
  };

  #writeOutputPort(value: number): void {
    this.#outputPort = value;
    if (!(value & 1)) this.reset("i8042");
  }

  #answer(value: number): void {
    this.#output = value;
    this.#status |= STATUS.OBF;
  }
}
