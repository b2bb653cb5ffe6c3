/** ACPI machine language: terms as bytes. ACPI specification 6.5, chapter 20. Resource descriptors: aml-resources.ts. */

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
  METHOD: 0x14,
  DUAL_NAME: 0x2e,
  MULTI_NAME: 0x2f,
  EXT: 0x5b,
  LOCAL0: 0x60,
  ARG0: 0x68,
  STORE: 0x70,
  SUBTRACT: 0x74,
  INCREMENT: 0x75,
  SHIFT_LEFT: 0x79,
  AND: 0x7b,
  OR: 0x7d,
  DEREF_OF: 0x83,
  NOTIFY: 0x86,
  SIZE_OF: 0x87,
  INDEX: 0x88,
  CREATE_DWORD_FIELD: 0x8a,
  LAND: 0x90,
  LOR: 0x91,
  LNOT: 0x92,
  LEQUAL: 0x93,
  LLESS: 0x95,
  TO_BUFFER: 0x96,
  TO_HEX_STRING: 0x98,
  IF: 0xa0,
  ELSE: 0xa1,
  WHILE: 0xa2,
  RETURN: 0xa4,
  BREAK: 0xa5,
} as const;
/** Second bytes after EXT. */
const EXT = {
  MUTEX: 0x01,
  ACQUIRE: 0x23,
  RELEASE: 0x27,
  DEBUG: 0x31,
  REGION: 0x80,
  FIELD: 0x81,
  DEVICE: 0x82,
  PROCESSOR: 0x83,
} as const;
/** No target: the result is not stored. */
const NOWHERE: Aml = [OP.ZERO];

export const le = (value: number, size: number): number[] =>
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

/** A UUID's text as a buffer of 16 bytes, the first three groups little-endian. */
export function amlUuid(text: string): Aml {
  const bytes = text
    .replaceAll("-", "")
    .match(/../g)!
    .map((pair) => Number.parseInt(pair, 16));
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return amlBuffer(order.map((i) => bytes[i]));
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

/** PkgLength of `length` bytes (or bits, in field lists) that follow, `self`: counting its own bytes. */
function pkgLength(length: number, self: boolean): number[] {
  for (let extra = 0; extra <= 3; extra++) {
    const total = length + (self ? 1 + extra : 0);
    if (extra === 0 ? total < 0x40 : total < 2 ** (4 + 8 * extra))
      return extra === 0 ? [total] : [(extra << 6) | (total & 0x0f), ...le(Math.floor(total / 16), extra)];
  }
  throw new RangeError(`AML package of ${length} bytes`);
}
const packaged = (content: Aml): number[] => [...pkgLength(content.length, true), ...content];

export const amlName = (name: string, value: Aml): Aml => [OP.NAME, ...amlPath(name), ...value];
export const amlScope = (name: string, ...terms: Aml[]): Aml => [
  OP.SCOPE,
  ...packaged([...amlPath(name), ...terms.flat()]),
];
export const amlDevice = (name: string, ...terms: Aml[]): Aml => [
  OP.EXT,
  EXT.DEVICE,
  ...packaged([...amlPath(name), ...terms.flat()]),
];
/** A processor object without P_BLK. */
export const amlProcessor = (name: string, id: number, ...terms: Aml[]): Aml => [
  OP.EXT,
  EXT.PROCESSOR,
  ...packaged([...amlPath(name), id, ...le(0, 4), 0, ...terms.flat()]),
];
/** A package of `length` elements, of which the first are given. */
export const amlPackageOf = (length: number, ...elements: Aml[]): Aml => [
  OP.PACKAGE,
  ...packaged([length, ...elements.flat()]),
];
export const amlPackage = (...elements: Aml[]): Aml => amlPackageOf(elements.length, ...elements);
export const amlBuffer = (bytes: Aml): Aml => [OP.BUFFER, ...packaged([...amlInt(bytes.length), ...bytes])];

/** A control method of `args` arguments. */
export const amlMethod = (name: string, args: number, ...terms: Aml[]): Aml => [
  OP.METHOD,
  ...packaged([...amlPath(name), args, ...terms.flat()]),
];
/** A control method that runs once at a time. */
export const amlSerialized = (name: string, args: number, ...terms: Aml[]): Aml => [
  OP.METHOD,
  ...packaged([...amlPath(name), args | 8, ...terms.flat()]),
];
export const amlCall = (name: string, ...args: Aml[]): Aml => [...amlPath(name), ...args.flat()];

export const REGION_SPACE = { SYSTEM_IO: 1, PCI_CONFIG: 2 } as const;
export const amlRegion = (name: string, space: number, offset: number, length: number): Aml => [
  OP.EXT,
  EXT.REGION,
  ...amlPath(name),
  space,
  ...amlInt(offset),
  ...amlInt(length),
];

/** Flags of a field: access width, and what becomes of bits that a write does not name. */
export const FIELD = { BYTE: 1, DWORD: 3, PRESERVE: 0, WRITE_AS_ZEROS: 0x40 } as const;
/** Bits of a region by name, in order; without a name they are skipped. */
export const amlField = (region: string, flags: number, bits: readonly [string | null, number][]): Aml => [
  OP.EXT,
  EXT.FIELD,
  ...packaged([
    ...amlPath(region),
    flags,
    ...bits.flatMap(([name, count]) => [
      ...(name === null ? [0] : amlPath(name)),
      ...pkgLength(count, false),
    ]),
  ]),
];

export const amlMutex = (name: string): Aml => [OP.EXT, EXT.MUTEX, ...amlPath(name), 0];
/** Waits for the mutex as long as it takes. */
export const amlAcquire = (name: string): Aml => [OP.EXT, EXT.ACQUIRE, ...amlPath(name), 0xff, 0xff];
export const amlRelease = (name: string): Aml => [OP.EXT, EXT.RELEASE, ...amlPath(name)];

export const amlLocal = (n: number): Aml => [OP.LOCAL0 + n];
export const amlArg = (n: number): Aml => [OP.ARG0 + n];
export const amlDebug: Aml = [OP.EXT, EXT.DEBUG];
export const amlStore = (value: Aml, target: Aml): Aml => [OP.STORE, ...value, ...target];
export const amlIncrement = (target: Aml): Aml => [OP.INCREMENT, ...target];
const binary =
  (op: number) =>
  (a: Aml, b: Aml, target: Aml = NOWHERE): Aml => [op, ...a, ...b, ...target];
export const amlSubtract = binary(OP.SUBTRACT);
export const amlShiftLeft = binary(OP.SHIFT_LEFT);
export const amlAnd = binary(OP.AND);
export const amlOr = binary(OP.OR);
export const amlLAnd = (a: Aml, b: Aml): Aml => [OP.LAND, ...a, ...b];
export const amlLOr = (a: Aml, b: Aml): Aml => [OP.LOR, ...a, ...b];
export const amlLNot = (a: Aml): Aml => [OP.LNOT, ...a];
export const amlEqual = (a: Aml, b: Aml): Aml => [OP.LEQUAL, ...a, ...b];
export const amlLess = (a: Aml, b: Aml): Aml => [OP.LLESS, ...a, ...b];
export const amlDerefOf = (a: Aml): Aml => [OP.DEREF_OF, ...a];
/** A reference to element or byte `at`. */
export const amlIndex = (a: Aml, at: Aml): Aml => [OP.INDEX, ...a, ...at, ...NOWHERE];
export const amlSizeOf = (a: Aml): Aml => [OP.SIZE_OF, ...a];
export const amlToBuffer = (a: Aml, target: Aml): Aml => [OP.TO_BUFFER, ...a, ...target];
export const amlToHexString = (a: Aml, target: Aml): Aml => [OP.TO_HEX_STRING, ...a, ...target];
export const amlDwordField = (buffer: Aml, byte: number, name: string): Aml => [
  OP.CREATE_DWORD_FIELD,
  ...buffer,
  ...amlInt(byte),
  ...amlPath(name),
];
export const amlNotify = (device: string, value: Aml): Aml => [OP.NOTIFY, ...amlPath(device), ...value];
export const amlIf = (condition: Aml, ...terms: Aml[]): Aml => [
  OP.IF,
  ...packaged([...condition, ...terms.flat()]),
];
/** Follows amlIf. */
export const amlElse = (...terms: Aml[]): Aml => [OP.ELSE, ...packaged(terms.flat())];
export const amlWhile = (condition: Aml, ...terms: Aml[]): Aml => [
  OP.WHILE,
  ...packaged([...condition, ...terms.flat()]),
];
export const amlReturn = (value: Aml): Aml => [OP.RETURN, ...value];
export const amlBreak: Aml = [OP.BREAK];
