/**
 * 8042 keyboard controller with a keyboard on which nobody types, and no mouse: firmware that looks for one gets its
 * answers at once instead of waiting for timeouts. IBM PS/2 Hardware Interface Technical Reference; QEMU,
 * hw/input/pckbd.c and ps2.c.
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
  WRITE_MOUSE: 0xd4,
  PULSE_FIRST: 0xf0,
} as const;
const MODE = { INTERRUPT: 0x01, SYS: 0x04, DISABLE_KEYBOARD: 0x10, DISABLE_MOUSE: 0x20 } as const;
/** Tests answer 0 for a working line, 1 for a clock line that is stuck low. */
const LINE_OK = 0x00;
const LINE_STUCK = 0x01;
const SELF_TEST_PASSED = 0x55;

/** Commands to the keyboard, and what it says. */
const KEYBOARD = {
  SET_LEDS: 0xed,
  ECHO: 0xee,
  SCAN_CODE_SET: 0xf0,
  READ_ID: 0xf2,
  SET_RATE: 0xf3,
  ENABLE: 0xf4,
  DISABLE: 0xf5,
  SET_DEFAULTS: 0xf6,
  RESET: 0xff,
  ACK: 0xfa,
  SELF_TEST_PASSED: 0xaa,
  RESEND: 0xfe,
  ID: [0xab, 0x83],
} as const;

export class I8042 {
  #mode: number = MODE.SYS;
  #status: number = STATUS.UNLOCKED;
  /** Bytes that wait to be read, the last one read. */
  readonly #queue: number[] = [];
  #output = 0;
  /** The keyboard's command that waits for its parameter. */
  #keyboardCommand: number | null = null;
  #scanCodeSet = 2;
  /** Bit 0 is the (active-low) reset line, bit 1 is A20. */
  #outputPort = 0x03;
  #pending: number | null = null;

  /** `irq`: level of the keyboard's interrupt. */
  constructor(
    private readonly reset: (how: string) => void,
    private readonly irq: (level: boolean) => void,
  ) {}

  attach(ports: AddressSpace): void {
    ports.map(0x60, 1, this.#dataPort);
    ports.map(0x64, 1, this.#commandPort);
  }

  readonly #dataPort: IoRegion = {
    name: "i8042-data",
    maxAccess: 1,
    read: () => {
      this.#output = this.#queue.shift() ?? this.#output;
      this.#update();
      return this.#output;
    },
    write: (_offset, _size, value) => {
      const command = this.#pending;
      this.#pending = null;
      this.#status &= ~STATUS.CMD;
      if (command === COMMAND.WRITE_MODE) this.#mode = value;
      else if (command === COMMAND.WRITE_OUTPUT_PORT) this.#writeOutputPort(value);
      else if (command === COMMAND.WRITE_MOUSE) this.#answer(KEYBOARD.RESEND);
      else this.#keyboard(value);
      this.#update();
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
        case COMMAND.WRITE_MOUSE:
          this.#pending = value;
          return;
        case COMMAND.SELF_TEST:
          this.#status |= STATUS.SELFTEST;
          return this.#answer(SELF_TEST_PASSED);
        case COMMAND.TEST_KEYBOARD:
          return this.#answer(LINE_OK);
        case COMMAND.TEST_MOUSE:
          return this.#answer(LINE_STUCK);
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

  #keyboard(value: number): void {
    const command = this.#keyboardCommand;
    this.#keyboardCommand = null;
    switch (command) {
      case KEYBOARD.SET_LEDS:
      case KEYBOARD.SET_RATE:
        return this.#answer(KEYBOARD.ACK);
      case KEYBOARD.SCAN_CODE_SET:
        if (value === 0) return this.#answer(KEYBOARD.ACK, this.#scanCodeSet);
        if (value <= 3) this.#scanCodeSet = value;
        return this.#answer(KEYBOARD.ACK);
      default:
    }
    switch (value) {
      case KEYBOARD.ECHO:
        return this.#answer(KEYBOARD.ECHO);
      case KEYBOARD.READ_ID:
        return this.#answer(KEYBOARD.ACK, ...KEYBOARD.ID);
      case KEYBOARD.SET_LEDS:
      case KEYBOARD.SET_RATE:
      case KEYBOARD.SCAN_CODE_SET:
        this.#keyboardCommand = value;
        return this.#answer(KEYBOARD.ACK);
      case KEYBOARD.ENABLE:
      case KEYBOARD.DISABLE:
      case KEYBOARD.SET_DEFAULTS:
        return this.#answer(KEYBOARD.ACK);
      case KEYBOARD.RESET:
        this.#queue.length = 0;
        this.#scanCodeSet = 2;
        return this.#answer(KEYBOARD.ACK, KEYBOARD.SELF_TEST_PASSED);
      default:
        return this.#answer(KEYBOARD.RESEND);
    }
  }

  #answer(...values: number[]): void {
    // A real one holds a byte, its keyboard sixteen.
    if (this.#queue.length < 16) this.#queue.push(...values);
    this.#update();
  }

  #update(): void {
    const full = this.#queue.length > 0;
    this.#status = full ? this.#status | STATUS.OBF : this.#status & ~STATUS.OBF;
    this.irq(full && (this.#mode & MODE.INTERRUPT) !== 0);
  }
}

export const I8042_IRQ = 1;
export const I8042_MOUSE_IRQ = 12;
