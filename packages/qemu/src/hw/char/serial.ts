/**
 * 16550A UART. National Semiconductor PC16550D data sheet; what software sees as QEMU's hw/char/serial.c shows it.
 * A character is transmitted at once: the line is a byte sink, not a wire with a bit rate.
 */
import type { IoRegion } from "../../memory/address-space.js";

export const COM1 = { PORT: 0x3f8, IRQ: 4 } as const;
export const UART_REGISTERS = 8;
const FIFO_SIZE = 16;

const IER = { RDI: 0x01, THRI: 0x02, RLSI: 0x04, MSI: 0x08 } as const;
const IIR = { NO_INT: 0x01, MSI: 0x00, THRI: 0x02, RDI: 0x04, RLSI: 0x06, CTI: 0x0c, FIFO: 0xc0 } as const;
const FCR = { ENABLE: 0x01, CLEAR_RX: 0x02, CLEAR_TX: 0x04 } as const;
const LCR_DLAB = 0x80;
const MCR = { DTR: 0x01, RTS: 0x02, OUT1: 0x04, OUT2: 0x08, LOOP: 0x10 } as const;
const LSR = { DR: 0x01, OE: 0x02, ERRORS: 0x1e, THRE: 0x20, TEMT: 0x40 } as const;
const MSR = { ANY_DELTA: 0x0f, CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80 } as const;
/** Receive FIFO trigger levels by FCR[7:6]. */
const TRIGGER = [1, 4, 8, 14] as const;

export class Serial implements IoRegion {
  readonly name = "serial";
  readonly maxAccess = 1;
  #divisor = 12;
  #ier = 0;
  #fcr = 0;
  #lcr = 0;
  #mcr: number = MCR.OUT2;
  #lsr: number = LSR.THRE | LSR.TEMT;
  #msr: number = MSR.DCD | MSR.DSR | MSR.CTS;
  #scr = 0;
  #rx: number[] = [];
  #thrPending = false;
  #timeoutPending = false;

  /** `transmit` gets every byte sent; `irq` the level of the interrupt line. */
  constructor(
    private readonly transmit: (byte: number) => void,
    private readonly irq: (level: boolean) => void,
  ) {}

  /** A byte arrives from outside. @returns false when there is no room for it now: send it later. */
  receive(byte: number): boolean {
    if (this.#mcr & MCR.LOOP) return false;
    return this.#receive(byte);
  }

  read(offset: number): number {
    switch (offset) {
      case 0:
        if (this.#lcr & LCR_DLAB) return this.#divisor & 0xff;
        return this.#readRbr();
      case 1:
        return this.#lcr & LCR_DLAB ? this.#divisor >> 8 : this.#ier;
      case 2: {
        const iir = this.#iir();
        if ((iir & 0x0f) === IIR.THRI) {
          this.#thrPending = false;
          this.#update();
        }
        return iir;
      }
      case 3:
        return this.#lcr;
      case 4:
        return this.#mcr;
      case 5: {
        const lsr = this.#lsr;
        if (lsr & LSR.ERRORS) {
          this.#lsr &= ~LSR.ERRORS;
          this.#update();
        }
        return lsr;
      }
      case 6: {
        if (this.#mcr & MCR.LOOP) {
          // In loopback the modem outputs come back as inputs.
          const mcr = this.#mcr;
          return ((mcr & 0x0c) << 4) | ((mcr & MCR.RTS) << 3) | ((mcr & MCR.DTR) << 5);
        }
        const msr = this.#msr;
        if (msr & MSR.ANY_DELTA) {
          this.#msr &= ~MSR.ANY_DELTA;
          this.#update();
        }
        return msr;
      }
      default:
        return this.#scr;
    }
  }

  write(offset: number, _size: number, value: number): void {
    switch (offset) {
      case 0:
        if (this.#lcr & LCR_DLAB) this.#divisor = (this.#divisor & 0xff00) | value;
        else this.#send(value);
        return;
      case 1: {
        if (this.#lcr & LCR_DLAB) {
          this.#divisor = (this.#divisor & 0xff) | (value << 8);
          return;
        }
        const raised = ~this.#ier & value & 0x0f;
        this.#ier = value & 0x0f;
        if (raised & IER.THRI) this.#thrPending = (this.#lsr & LSR.THRE) !== 0;
        this.#update();
        return;
      }
      case 2:
        this.#writeFcr(value);
        return;
      case 3:
        this.#lcr = value;
        return;
      case 4:
        this.#mcr = value & 0x1f;
        this.#update();
        return;
      case 7:
        this.#scr = value;
        return;
      default:
        return; // LSR and MSR are for reading; the factory test writes of the data sheet do nothing
    }
  }

  #readRbr(): number {
    const byte = this.#rx.shift() ?? 0;
    this.#timeoutPending = this.#rx.length > 0 && (this.#fcr & FCR.ENABLE) !== 0;
    if (this.#rx.length === 0) this.#lsr &= ~LSR.DR;
    this.#update();
    return byte;
  }

  #receive(byte: number): boolean {
    const room = this.#fcr & FCR.ENABLE ? FIFO_SIZE : 1;
    if (this.#rx.length >= room) return false;
    this.#rx.push(byte);
    this.#lsr |= LSR.DR;
    // The line is idle after any byte, so the character timeout has always passed.
    this.#timeoutPending = (this.#fcr & FCR.ENABLE) !== 0;
    this.#update();
    return true;
  }

  #send(byte: number): void {
    if (this.#mcr & MCR.LOOP) {
      if (!this.#receive(byte)) this.#lsr |= LSR.OE;
    } else this.transmit(byte);
    this.#thrPending = true;
    this.#update();
  }

  #writeFcr(value: number): void {
    if ((value ^ this.#fcr) & FCR.ENABLE) value |= FCR.CLEAR_RX | FCR.CLEAR_TX;
    if (value & FCR.CLEAR_RX) {
      this.#rx = [];
      this.#lsr &= ~LSR.DR;
      this.#timeoutPending = false;
    }
    if (value & FCR.CLEAR_TX) this.#thrPending = true;
    this.#fcr = value & 0xc9;
    this.#update();
  }

  #iir(): number {
    const fifo = this.#fcr & FCR.ENABLE ? IIR.FIFO : 0;
    if (this.#ier & IER.RLSI && this.#lsr & LSR.ERRORS) return fifo | IIR.RLSI;
    if (this.#ier & IER.RDI && this.#lsr & LSR.DR) {
      if (!(this.#fcr & FCR.ENABLE) || this.#rx.length >= TRIGGER[this.#fcr >> 6]) return fifo | IIR.RDI;
      if (this.#timeoutPending) return fifo | IIR.CTI;
    }
    if (this.#ier & IER.THRI && this.#thrPending) return fifo | IIR.THRI;
    if (this.#ier & IER.MSI && this.#msr & MSR.ANY_DELTA) return fifo | IIR.MSI;
    return fifo | IIR.NO_INT;
  }

  #update(): void {
    this.irq((this.#iir() & IIR.NO_INT) === 0);
  }
}
