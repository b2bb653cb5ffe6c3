/**
 * Structures of the public interfaces as tables: one definition gives a structure's TypeScript type, its size,
 * and how it is read and written. Everything is little-endian, as on x86.
 *
 * @example
 * const VE_INFO = struct("VE_INFO", 128, { EXIT_REASON: u32(0x00), VALID: u32(0x04), GPA: u64(0x18) });
 * const bytes = VE_INFO.encode({ EXIT_REASON: 10 });   // what is not given is zero
 * VE_INFO.decode(bytes).EXIT_REASON;                   // 10
 */

/** A field of a structure: where it is and how its value is read and written. */
export interface Field<T> {
  readonly offset: number;
  /** Size in bytes. */
  readonly size: number;
  read(view: DataView, base: number): T;
  write(view: DataView, base: number, value: T): void;
}

const scalar = <T>(
  offset: number,
  size: number,
  read: (view: DataView, at: number) => T,
  write: (view: DataView, at: number, value: T) => void,
): Field<T> => ({
  offset,
  size,
  read: (view, base) => read(view, base + offset),
  write: (view, base, value) => write(view, base + offset, value),
});

/** An unsigned 8-bit field at `offset` bytes. */
export const u8 = (offset: number): Field<number> =>
  scalar(
    offset,
    1,
    (v, at) => v.getUint8(at),
    (v, at, x) => v.setUint8(at, x),
  );

/** An unsigned 16-bit field at `offset` bytes. */
export const u16 = (offset: number): Field<number> =>
  scalar(
    offset,
    2,
    (v, at) => v.getUint16(at, true),
    (v, at, x) => v.setUint16(at, x, true),
  );

/** An unsigned 32-bit field at `offset` bytes. */
export const u32 = (offset: number): Field<number> =>
  scalar(
    offset,
    4,
    (v, at) => v.getUint32(at, true),
    (v, at, x) => v.setUint32(at, x, true),
  );

/** An unsigned 64-bit field at `offset` bytes, as bigint. */
export const u64 = (offset: number): Field<bigint> =>
  scalar(
    offset,
    8,
    (v, at) => v.getBigUint64(at, true),
    (v, at, x) => v.setBigUint64(at, x, true),
  );

/**
 * A 64-bit field that holds an address or a count below 2^53, as number.
 * @throws RangeError when the bytes hold more.
 */
export const addr = (offset: number): Field<number> =>
  scalar(
    offset,
    8,
    (v, at) => {
      const value = v.getBigUint64(at, true);
      if (value > BigInt(Number.MAX_SAFE_INTEGER))
        throw new RangeError(`0x${value.toString(16)} is no address`);
      return Number(value);
    },
    (v, at, x) => v.setBigUint64(at, BigInt(x), true),
  );

/** `size` raw bytes at `offset`. Reading copies; a shorter value is padded with zeros. */
export const bytes = (offset: number, size: number): Field<Uint8Array> => ({
  offset,
  size,
  read: (view, base) => new Uint8Array(view.buffer, view.byteOffset + base + offset, size).slice(),
  write: (view, base, value) => {
    if (value.length > size) throw new RangeError(`${value.length} bytes for a field of ${size}`);
    const target = new Uint8Array(view.buffer, view.byteOffset + base + offset, size);
    target.fill(0);
    target.set(value);
  },
});

/** `count` elements, each as `element(0)` describes, `stride` bytes apart (default: the element's size). */
export const array = <T>(
  offset: number,
  count: number,
  element: (offset: number) => Field<T>,
  stride?: number,
): Field<readonly T[]> => {
  const step = stride ?? element(0).size;
  const fields = Array.from({ length: count }, (_, i) => element(offset + i * step));
  return {
    offset,
    size: count * step,
    read: (view, base) => fields.map((field) => field.read(view, base)),
    write: (view, base, value) => {
      if (value.length > count) throw new RangeError(`${value.length} elements for an array of ${count}`);
      value.forEach((item, i) => fields[i].write(view, base, item));
    },
  };
};

/** A structure inside a structure. */
export const nested = <F extends Fields>(offset: number, inner: Struct<F>): Field<Values<F>> => ({
  offset,
  size: inner.size,
  read: (view, base) => inner.read(view, base + offset),
  write: (view, base, value) => inner.write(view, value, base + offset),
});

// A table holds fields of any type; `Values` recovers each.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Fields = Readonly<Record<string, Field<any>>>;
export type Values<F extends Fields> = { -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never };
/** The TypeScript type of what a structure holds: `type TdParams = StructOf<typeof TD_PARAMS>`. */
export type StructOf<S> = S extends Struct<infer F> ? Values<F> : never;

/** A structure: its name, size in bytes, fields, and how to read and write it. */
export interface Struct<F extends Fields> {
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  readonly fields: F;
  /** Reads all fields of the structure that starts at `base` of `view`. */
  read(view: DataView, base?: number): Values<F>;
  /** Writes the given fields; the others keep their bytes. */
  write(view: DataView, value: Partial<Values<F>>, base?: number): void;
  /** Reads the structure from the start of `source`. @throws RangeError when it is too short. */
  decode(source: Uint8Array): Values<F>;
  /** A fresh buffer of `size` bytes with the given fields; all else is zero. */
  encode(value: Partial<Values<F>>): Uint8Array;
}

/** A view over the same bytes. */
export const viewOf = (source: Uint8Array): DataView =>
  new DataView(source.buffer, source.byteOffset, source.byteLength);

/**
 * Defines a structure of `size` bytes.
 * @throws RangeError when a field reaches past the end: a mistake in the table.
 */
export function struct<const F extends Fields>(name: string, size: number, fields: F): Struct<F> {
  const entries = Object.entries(fields);
  for (const [key, field] of entries)
    if (field.offset + field.size > size) throw new RangeError(`${name}.${key} ends past ${size}`);
  const read = (view: DataView, base = 0): Values<F> => {
    const out: Record<string, unknown> = {};
    for (const [key, field] of entries) out[key] = field.read(view, base);
    return out as Values<F>;
  };
  const write = (view: DataView, value: Partial<Values<F>>, base = 0): void => {
    for (const [key, field] of entries) {
      const item = value[key as keyof F];
      if (item !== undefined) field.write(view, base, item);
    }
  };
  return {
    name,
    size,
    fields,
    read,
    write,
    decode(source) {
      if (source.length < size) throw new RangeError(`${name} has ${size} bytes, got ${source.length}`);
      return read(viewOf(source));
    },
    encode(value) {
      const out = new Uint8Array(size);
      write(viewOf(out), value);
      return out;
    },
  };
}
