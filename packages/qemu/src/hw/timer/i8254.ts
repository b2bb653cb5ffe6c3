/**
 * 8254 interval timer with the PC's system control port B (0x61). Intel 8254 data sheet; QEMU, hw/timer/i8254.c.
 * Counters run on the machine's virtual time; channel 0 drives an interrupt line.
 */
import type { Now, Timer, Timers } from "../../clock.js";
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";

export const PIT_HZ = 1193182;
export const PIT_IRQ = 0;

/** RW field of a control word. */
const RW = { LATCH: 0, LOW: 1, HIGH: 2, BOTH: 3 } as const;

interface Channel {
  mode: number;
  access: number;
  /** 0 stands for 65536. */
  count: number;
  /** Virtual time in ns when counting began. */
  loaded: number;
  gate: boolean;
  writeLow: number | null;
  readHigh: boolean;
  latchedCount: number | null;
  latchedStatus: number | null;
}

export class I8254 {
  readonly #channels: Channel[] = Array.from({ length: 3 }, (_, i) => ({
    mode: 3,
    access: RW.BOTH,
    count: 0,
    loaded: 0,
    gate: i !== 2,
    writeLow: null,
    readHigh: false,
    latchedCount: null,
    latchedStatus: null,
  }));
  readonly #now: Now;
  readonly #timer: Timer;
  #speaker = 0;

  constructor(
    timers: Timers,
    private readonly irq: (level: boolean) => void,
  ) {
    this.#now = timers.now;
    this.#timer = timers.create(() => {
      this.irq(true);
      this.irq(false);
      this.#arm(false);
    });
  }

  attach(ports: AddressSpace): void {
    ports.map(0x40, 4, this.#registers);
    ports.map(0x61, 1, this.#portB);
  }

  readonly #registers: IoRegion = {
    name: "pit",
    maxAccess: 1,
    read: (offset) => (offset === 3 ? 0 : this.#read(this.#channels[offset])),
    write: (offset, _size, value) => {
      if (offset === 3) this.#control(value);
      else this.#write(offset, value);
    },
  };

  readonly #portB: IoRegion = {
    name: "port61",
    maxAccess: 1,
    read: () => {
      const out = this.#out(this.#channels[2]) ? 0x20 : 0;
      const refresh = Math.floor(this.#now() / 15085) & 1 ? 0x10 : 0;
      return this.#speaker | out | refresh;
    },
    write: (_offset, _size, value) => {
      this.#speaker = value & 0x03;
      const channel = this.#channels[2];
      const gate = (value & 1) !== 0;
      // Modes 1 and 5 are triggered, 2 and 3 restarted by a rising gate.
      if (gate && !channel.gate && channel.mode !== 0 && channel.mode !== 4) channel.loaded = this.#now();
      channel.gate = gate;
    },
  };

  /** Clock ticks since the channel was loaded. */
  #ticks(channel: Channel): number {
    return Math.floor(((this.#now() - channel.loaded) * PIT_HZ) / 1e9);
  }

  #counter(channel: Channel): number {
    const count = channel.count || 0x10000;
    const ticks = this.#ticks(channel);
    switch (channel.mode) {
      case 2:
        return count - (ticks % count);
      case 3:
        return count - ((2 * ticks) % count);
      default:
        return (count - ticks) & 0xffff;
    }
  }

  #out(channel: Channel): boolean {
    const count = channel.count || 0x10000;
    const ticks = this.#ticks(channel);
    switch (channel.mode) {
      case 0:
        return ticks >= count;
      case 1:
        return ticks >= count;
      case 2:
        return ticks % count !== 0 || ticks === 0;
      case 3:
        return ticks % count < (count + 1) >> 1;
      default:
        return ticks === count;
    }
  }

  #control(value: number): void {
    const select = value >> 6;
    if (select === 3) {
      // Read-back: count and status of the selected channels, by bits that are clear.
      this.#channels.forEach((channel, i) => {
        if (!(value & (2 << i))) return;
        if (!(value & 0x20)) channel.latchedCount ??= this.#counter(channel);
        if (!(value & 0x10))
          channel.latchedStatus ??=
            (this.#out(channel) ? 0x80 : 0) | (channel.access << 4) | (channel.mode << 1);
      });
      return;
    }
    const channel = this.#channels[select];
    const access = (value >> 4) & 3;
    if (access === RW.LATCH) {
      channel.latchedCount ??= this.#counter(channel);
      return;
    }
    const mode = (value >> 1) & 7;
    channel.access = access;
    channel.mode = mode > 5 ? mode & 3 : mode;
    channel.writeLow = null;
    channel.readHigh = false;
    channel.latchedCount = null;
    if (select === 0) this.#timer.set(null);
  }

  #read(channel: Channel): number {
    if (channel.latchedStatus !== null) {
      const status = channel.latchedStatus;
      channel.latchedStatus = null;
      return status;
    }
    const count = channel.latchedCount ?? this.#counter(channel);
    if (channel.access === RW.LOW || channel.access === RW.HIGH) {
      channel.latchedCount = null;
      return (channel.access === RW.LOW ? count : count >> 8) & 0xff;
    }
    const high = channel.readHigh;
    channel.readHigh = !high;
    if (high) channel.latchedCount = null;
    return (high ? count >> 8 : count) & 0xff;
  }

  #write(index: number, value: number): void {
    const channel = this.#channels[index];
    if (channel.access === RW.LOW) this.#load(index, value);
    else if (channel.access === RW.HIGH) this.#load(index, value << 8);
    else if (channel.writeLow === null) channel.writeLow = value;
    else {
      const low = channel.writeLow;
      channel.writeLow = null;
      this.#load(index, low | (value << 8));
    }
  }

  #load(index: number, count: number): void {
    const channel = this.#channels[index];
    channel.count = count;
    channel.loaded = this.#now();
    if (index === 0) this.#arm(true);
  }

  /** Arms channel 0's interrupt: once per load in the one-shot modes, every period in 2 and 3. */
  #arm(first: boolean): void {
    const channel = this.#channels[0];
    const periodic = channel.mode === 2 || channel.mode === 3;
    if (!first && !periodic) return;
    const period = ((channel.count || 0x10000) / PIT_HZ) * 1e9;
    const done = Math.floor((this.#now() - channel.loaded) / period);
    this.#timer.set(Math.ceil(channel.loaded + (done + 1) * period));
  }
}
