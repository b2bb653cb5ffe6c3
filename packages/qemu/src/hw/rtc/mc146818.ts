/**
 * CMOS RAM and real-time clock. Motorola MC146818A data sheet; the machine's use of the RAM as QEMU's hw/i386/pc.c
 * (pc_cmos_init) has it. Time is the machine's virtual time from a fixed start; the update cycle is instantaneous, so
 * UIP is never seen set. Alarm and update interrupts work with one second's resolution, the periodic one by its rate.
 */
import type { Now, Timer, Timers } from "../../clock.js";
import type { IoRegion } from "../../memory/address-space.js";

export const RTC_PORT = 0x70;
export const RTC_IRQ = 8;

const REG = {
  SECONDS: 0x00,
  SECONDS_ALARM: 0x01,
  MINUTES: 0x02,
  MINUTES_ALARM: 0x03,
  HOURS: 0x04,
  HOURS_ALARM: 0x05,
  DAY_OF_WEEK: 0x06,
  DAY_OF_MONTH: 0x07,
  MONTH: 0x08,
  YEAR: 0x09,
  A: 0x0a,
  B: 0x0b,
  C: 0x0c,
  D: 0x0d,
  CENTURY: 0x32,
} as const;
const A_RATE = 0x0f;
const B = { H24: 0x02, BINARY: 0x04, UIE: 0x10, AIE: 0x20, PIE: 0x40, SET: 0x80 } as const;
const C = { UF: 0x10, AF: 0x20, PF: 0x40, IRQF: 0x80 } as const;
const D_VRT = 0x80;
const SECOND = 1e9;

export class Mc146818 implements IoRegion {
  readonly name = "rtc";
  readonly maxAccess = 1;
  readonly #ram = new Uint8Array(128);
  #index = 0;
  /** Unix time in seconds at virtual time 0. */
  #base: number;
  readonly #now: Now;
  readonly #second: Timer;
  readonly #periodic: Timer;

  /** `start`: Unix time in seconds when the machine is switched on. */
  constructor(
    timers: Timers,
    start: number,
    private readonly irq: (level: boolean) => void,
  ) {
    this.#now = timers.now;
    this.#base = start;
    this.#ram[REG.A] = 0x26;
    this.#ram[REG.B] = B.H24;
    this.#ram[REG.D] = D_VRT;
    this.#second = timers.create(() => this.#everySecond());
    this.#periodic = timers.create(() => this.#everyPeriod());
  }

  /** Sets a byte of the RAM: what the machine tells its firmware. */
  set(index: number, value: number): void {
    this.#ram[index] = value;
  }
  get(index: number): number {
    return this.#ram[index];
  }

  read(offset: number): number {
    if (offset !== 1) return 0xff;
    const index = this.#index;
    if (index === REG.C) {
      const flags = this.#ram[REG.C];
      this.#ram[REG.C] = 0;
      this.irq(false);
      return flags;
    }
    if (isTime(index) && !(this.#ram[REG.B] & B.SET)) this.#loadTime();
    return this.#ram[index];
  }

  write(offset: number, _size: number, value: number): void {
    if (offset === 0) {
      this.#index = value & 0x7f;
      return;
    }
    if (offset !== 1) return;
    const index = this.#index;
    if (index === REG.C || index === REG.D) return;
    if (isTime(index)) {
      if (!(this.#ram[REG.B] & B.SET)) this.#loadTime();
      this.#ram[index] = value;
      if (!(this.#ram[REG.B] & B.SET)) this.#storeTime();
      return;
    }
    if (index === REG.B) {
      const old = this.#ram[REG.B];
      if (value & B.SET && !(old & B.SET)) this.#loadTime();
      this.#ram[REG.B] = value;
      if (old & B.SET && !(value & B.SET)) this.#storeTime();
    } else this.#ram[index] = index === REG.A ? value & 0x7f : value;
    this.#arm();
  }

  #unix(): number {
    return this.#base + Math.floor(this.#now() / SECOND);
  }

  #encode(value: number): number {
    return this.#ram[REG.B] & B.BINARY ? value : ((value / 10) << 4) | (value % 10);
  }
  #decode(byte: number): number {
    return this.#ram[REG.B] & B.BINARY ? byte : (byte >> 4) * 10 + (byte & 0x0f);
  }

  #loadTime(): void {
    const date = new Date(this.#unix() * 1000);
    const ram = this.#ram;
    ram[REG.SECONDS] = this.#encode(date.getUTCSeconds());
    ram[REG.MINUTES] = this.#encode(date.getUTCMinutes());
    const hours = date.getUTCHours();
    if (ram[REG.B] & B.H24) ram[REG.HOURS] = this.#encode(hours);
    else ram[REG.HOURS] = this.#encode(hours % 12 === 0 ? 12 : hours % 12) | (hours >= 12 ? 0x80 : 0);
    ram[REG.DAY_OF_WEEK] = this.#encode(date.getUTCDay() + 1);
    ram[REG.DAY_OF_MONTH] = this.#encode(date.getUTCDate());
    ram[REG.MONTH] = this.#encode(date.getUTCMonth() + 1);
    ram[REG.YEAR] = this.#encode(date.getUTCFullYear() % 100);
    ram[REG.CENTURY] = this.#encode(Math.floor(date.getUTCFullYear() / 100));
  }

  #storeTime(): void {
    const ram = this.#ram;
    const year = this.#decode(ram[REG.CENTURY]) * 100 + this.#decode(ram[REG.YEAR]);
    let hours = this.#decode(ram[REG.HOURS] & 0x7f);
    if (!(ram[REG.B] & B.H24)) hours = (hours % 12) + (ram[REG.HOURS] & 0x80 ? 12 : 0);
    const unix = Date.UTC(
      year,
      this.#decode(ram[REG.MONTH]) - 1,
      this.#decode(ram[REG.DAY_OF_MONTH]),
      hours,
      this.#decode(ram[REG.MINUTES]),
      this.#decode(ram[REG.SECONDS]),
    );
    if (Number.isFinite(unix)) this.#base = unix / 1000 - Math.floor(this.#now() / SECOND);
  }

  #arm(): void {
    const b = this.#ram[REG.B];
    const now = this.#now();
    this.#second.set(b & (B.UIE | B.AIE) && !(b & B.SET) ? (Math.floor(now / SECOND) + 1) * SECOND : null);
    const period = this.#period();
    this.#periodic.set(b & B.PIE && period > 0 ? (Math.floor(now / period) + 1) * period : null);
  }

  /** Nanoseconds between periodic interrupts, 0 for none. */
  #period(): number {
    const rate = this.#ram[REG.A] & A_RATE;
    if (rate === 0) return 0;
    return (2 ** ((rate <= 2 ? rate + 7 : rate) - 1) / 32768) * SECOND;
  }

  #everySecond(): void {
    this.#loadTime();
    const ram = this.#ram;
    const matches = (time: number, alarm: number) => ram[alarm] >= 0xc0 || ram[alarm] === ram[time];
    let flags = C.UF as number;
    if (
      matches(REG.SECONDS, REG.SECONDS_ALARM) &&
      matches(REG.MINUTES, REG.MINUTES_ALARM) &&
      matches(REG.HOURS, REG.HOURS_ALARM)
    )
      flags |= C.AF;
    this.#raise(flags);
    this.#arm();
  }

  #everyPeriod(): void {
    this.#raise(C.PF);
    this.#arm();
  }

  #raise(flags: number): void {
    this.#ram[REG.C] |= flags;
    // UF, AF, PF stand in the same bits as UIE, AIE, PIE.
    if (this.#ram[REG.C] & this.#ram[REG.B] & (C.UF | C.AF | C.PF)) {
      this.#ram[REG.C] |= C.IRQF;
      this.irq(true);
    }
  }
}

const isTime = (index: number): boolean =>
  index === REG.SECONDS ||
  index === REG.MINUTES ||
  index === REG.HOURS ||
  (index >= REG.DAY_OF_WEEK && index <= REG.YEAR) ||
  index === REG.CENTURY;
