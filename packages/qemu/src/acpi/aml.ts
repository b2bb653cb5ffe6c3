/** ACPI machine language, as much as static descriptions need. ACPI specification 6.5, chapters 20 and 6.4. */

/** A term, encoded. */
export type Aml = readonly number[];

const OP = {
  ZERO: 0x00,
  ONE: 0x01,
  NAME: 0x08,
  BYTE: 0x0a,
  WORD: 0x0b,
  DWORD: 0x0c,
  STRING: 0x0d,
  QWORD: 0x0e,
  SCOPE: 0x10,
  BUFFER: 0x11,
  PACKAGE: 0x12,
  DUAL_NAME: 0x2e,
  MULTI_NAME: 0x2f,
  EXT: 0x5b,
  EXT_DEVICE: 0x82,
} as const;

const le = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);

/** An integer in its shortest form. */
export function amlInt(value: number): Aml {
  if (value === 0) return [OP.ZERO];
  if (value === 1) return [OP.ONE];
  if (value < 0x100) return [OP.BYTE, value];
  if (value < 0x10000) return [OP.WORD, ...le(value, 2)];
  if (value < 2 ** 32) return [OP.DWORD, ...le(value, 4)];
  return [OP.QWORD, ...le(value, 8)];
}

export const amlString = (text: string): Aml => [OP.STRING, ...new TextEncoder().encode(text), 0];

/** A compressed EISA ID such as "PNP0A08". */
export function amlEisaId(id: string): Aml {
  const letter = (i: number) => id.charCodeAt(i) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return [OP.DWORD, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff];
}

/** A name such as "\\_SB.PCI0"; segments are padded to four characters. */
export function amlPath(path: string): Aml {
  const root = path.startsWith("\\");
  const segments = (root ? path.slice(1) : path).split(".").filter((part) => part !== "");
  const bytes = segments.flatMap((part) => [...part.padEnd(4, "_")].map((c) => c.charCodeAt(0)));
  const prefix =
    segments.length === 0
      ? [0]
      : segments.length === 1
        ? []
        : segments.length === 2
          ? [OP.DUAL_NAME]
          : [OP.MULTI_NAME, segments.length];
  return [...(root ? [0x5c] : []), ...prefix, ...bytes];
}

/** PkgLength, which counts itself. */
function packaged(content: Aml): number[] {
  const { length } = content;
  if (length + 1 < 0x40) return [length + 1, ...content];
  for (let extra = 1; extra <= 3; extra++) {
    const total = length + 1 + extra;
    if (total < 2 ** (4 + 8 * extra))
      return [(extra << 6) | (total & 0x0f), ...le(Math.floor(total / 16), extra), ...content];
  }
  throw new RangeError(`AML package of ${length} bytes`);
}

export const amlName = (name: string, value: Aml): Aml => [OP.NAME, ...amlPath(name), ...value];
export const amlScope = (name: string, ...terms: Aml[]): Aml => [
  OP.SCOPE,
  ...packaged([...amlPath(name), ...terms.flat()]),
];
export const amlDevice = (name: string, ...terms: Aml[]): Aml => [
  OP.EXT,
  OP.EXT_DEVICE,
  ...packaged([...amlPath(name), ...terms.flat()]),
];
export const amlPackage = (...elements: Aml[]): Aml => [
  OP.PACKAGE,
  ...packaged([elements.length, ...elements.flat()]),
];
const amlBuffer = (bytes: Aml): Aml => [OP.BUFFER, ...packaged([...amlInt(bytes.length), ...bytes])];

/** A resource template: descriptors and the end tag. */
export const amlResources = (...descriptors: Aml[]): Aml => amlBuffer([...descriptors.flat(), 0x79, 0]);

/** Fixed I/O ports, 16-bit decoded. */
export const amlIo = (base: number, length: number): Aml => [
  0x47,
  1,
  ...le(base, 2),
  ...le(base, 2),
  1,
  length,
];
/** An ISA interrupt, edge triggered and active high. */
export const amlIrq = (irq: number): Aml => [0x22, ...le(1 << irq, 2)];
/** A fixed range of 32-bit memory that can be written. */
export const amlMemory32Fixed = (base: number, length: number): Aml => [
  0x86,
  ...le(9, 2),
  1,
  ...le(base, 4),
  ...le(length, 4),
];

const SPACE = { MEMORY: 0, IO: 1, BUS: 2 } as const;
/** Fixed minimum and maximum, positively decoded, produced. */
const RANGE_FLAGS = 0x0c;
const range = (
  tag: number,
  size: number,
  space: number,
  specific: number,
  first: number,
  last: number,
): Aml => {
  const body = [
    space,
    RANGE_FLAGS,
    specific,
    ...[0, first, last, 0, last - first + 1].flatMap((value) => le(value, size)),
  ];
  return [tag, ...le(body.length, 2), ...body];
};
export const amlWordBus = (first: number, last: number): Aml => range(0x88, 2, SPACE.BUS, 0, first, last);
export const amlWordIo = (first: number, last: number): Aml => range(0x88, 2, SPACE.IO, 3, first, last);
/** Writable 32-bit memory; `cacheable` as for frame buffers. */
export const amlDwordMemory = (first: number, last: number, cacheable = false): Aml =>
  range(0x87, 4, SPACE.MEMORY, cacheable ? 0x03 : 0x01, first, last);
export const amlQwordMemory = (first: number, last: number): Aml =>
  range(0x8a, 8, SPACE.MEMORY, 0x03, first, last);
