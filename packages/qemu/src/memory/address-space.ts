/**
 * An address space of devices: I/O ports, or guest-physical addresses that are not RAM. An access that is wider than
 * the device's registers, or that crosses its end, is split as QEMU's memory core splits it; where nothing is, reads
 * give ones and writes go nowhere.
 */

/** A device's registers. Offsets and sizes are bytes; values are unsigned 32-bit numbers. */
export interface IoRegion {
  readonly name: string;
  /** Widest access that reaches the device whole, in bytes; wider ones arrive in parts. */
  readonly maxAccess: 1 | 2 | 4;
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

interface Mapping {
  readonly base: number;
  readonly end: number;
  readonly region: IoRegion;
}

export class AddressSpace {
  #mappings: Mapping[] = [];
  #last: Mapping | null = null;

  /** Maps `region` to `size` bytes from `base`. What was mapped later wins where two overlap. */
  map(base: number, size: number, region: IoRegion): void {
    this.#mappings.unshift({ base, end: base + size, region });
    this.#last = null;
  }

  /** Removes all mappings of `region`. */
  unmap(region: IoRegion): void {
    this.#mappings = this.#mappings.filter((mapping) => mapping.region !== region);
    this.#last = null;
  }

  /** The device at `address`, or null. */
  at(address: number): IoRegion | null {
    return this.#find(address)?.region ?? null;
  }

  /** Reads `size` (1, 2 or 4) bytes. */
  read(address: number, size: number): number {
    const mapping = this.#find(address);
    if (mapping !== null && size <= mapping.region.maxAccess && address + size <= mapping.end)
      return truncate(mapping.region.read(address - mapping.base, size), size);
    let value = 0;
    for (let done = 0; done < size;) {
      const here = this.#find(address + done);
      const part = here === null ? 1 : this.#part(here, address + done, size - done);
      const bits = here === null ? 0xff : here.region.read(address + done - here.base, part);
      value |= truncate(bits, part) << (done * 8);
      done += part;
    }
    return value >>> 0;
  }

  /** Writes the low `size` (1, 2 or 4) bytes of `value`. */
  write(address: number, size: number, value: number): void {
    for (let done = 0; done < size;) {
      const here = this.#find(address + done);
      const part = here === null ? 1 : this.#part(here, address + done, size - done);
      here?.region.write(address + done - here.base, part, truncate(value >>> (done * 8), part));
      done += part;
    }
  }

  #part(mapping: Mapping, address: number, left: number): number {
    let part: number = mapping.region.maxAccess;
    while (part > left || address + part > mapping.end) part >>= 1;
    return part;
  }

  #find(address: number): Mapping | null {
    const last = this.#last;
    if (last !== null && address >= last.base && address < last.end) return last;
    for (const mapping of this.#mappings)
      if (address >= mapping.base && address < mapping.end) {
        this.#last = this.#mappings.some((other) => other !== mapping && overlap(other, mapping))
          ? null
          : mapping;
        return mapping;
      }
    return null;
  }
}

const truncate = (value: number, size: number): number =>
  size === 4 ? value >>> 0 : value & ((1 << (size * 8)) - 1);

const overlap = (a: Mapping, b: Mapping): boolean => a.base < b.end && b.base < a.end;
