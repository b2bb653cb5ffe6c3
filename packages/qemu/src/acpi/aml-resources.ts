/** Resource descriptors of ACPI: what _CRS and _PRS list. ACPI specification 6.5, 6.4. */
import { type Aml, amlBuffer, le } from "./aml.js";

/** A resource template: descriptors and the end tag. */
export const amlResources = (...descriptors: Aml[]): Aml => amlBuffer([...descriptors.flat(), 0x79, 0]);

/** Fixed I/O ports, 16-bit decoded. */
export const amlIo = (base: number, length: number, align = 1): Aml => [
  0x47,
  1,
  ...le(base, 2),
  ...le(base, 2),
  align,
  length,
];
/** An ISA interrupt, edge triggered and active high. */
export const amlIrq = (irq: number): Aml => [0x22, ...le(1 << irq, 2)];
/** An ISA interrupt, level triggered, active low, shared. */
export const amlSharedIrq = (irq: number): Aml => [0x23, ...le(1 << irq, 2), 0x18];
/** Global system interrupts, consumed, level triggered, active high, shared: one of them. */
export const amlInterrupt = (...gsis: number[]): Aml => [
  0x89,
  ...le(2 + 4 * gsis.length, 2),
  0x09,
  gsis.length,
  ...gsis.flatMap((gsi) => le(gsi, 4)),
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
const WRITABLE = 0x01;
const CACHEABLE = 0x02;
export const amlWordBus = (first: number, last: number): Aml => range(0x88, 2, SPACE.BUS, 0, first, last);
export const amlWordIo = (first: number, last: number): Aml => range(0x88, 2, SPACE.IO, 3, first, last);
/** Writable 32-bit memory; `cacheable` as for frame buffers. */
export const amlDwordMemory = (first: number, last: number, cacheable = false): Aml =>
  range(0x87, 4, SPACE.MEMORY, WRITABLE | (cacheable ? CACHEABLE : 0), first, last);
/** Writable 64-bit memory. */
export const amlQwordMemory = (first: number, last: number, cacheable: boolean): Aml =>
  range(0x8a, 8, SPACE.MEMORY, WRITABLE | (cacheable ? CACHEABLE : 0), first, last);
