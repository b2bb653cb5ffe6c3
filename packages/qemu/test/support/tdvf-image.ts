/** Synthetic TDVF images for tests: an OVMF table with the metadata offset, the descriptor, sections. */
const guid = (text: string): Buffer => {
  const [a, b, c, d, e] = text.split("-") as [string, string, string, string, string];
  const swap = (hex: string) => Buffer.from(hex, "hex").reverse();
  return Buffer.concat([swap(a), swap(b), swap(c), Buffer.from(d + e, "hex")]);
};

export interface RawSection {
  dataOffset?: number;
  rawSize?: number;
  gpa: number | bigint;
  memorySize: number | bigint;
  type: number;
  attributes?: number;
}

export interface ImageOptions {
  size?: number;
  sections?: RawSection[];
  signature?: string;
  version?: number;
  length?: number;
  count?: number;
  /** Distance from the end that the table's entry states. */
  offset?: number;
  footerGuid?: string;
  entryGuid?: string;
  tableLength?: number;
  entryLength?: number;
  fill?: (image: Buffer) => void;
}

export const FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d";
export const ENTRY = "e47a6535-984a-4798-865e-4685a7bf8ec2";

/** The layout of edk2's IntelTdx images, smaller: 128 KiB with CFV 0..0x10000 and BFV 0x10000... */
export const goodSections = (size = 0x20000): RawSection[] => [
  {
    dataOffset: 0x10000,
    rawSize: size - 0x10000,
    gpa: 2 ** 32 - size + 0x10000,
    memorySize: size - 0x10000,
    type: 0,
    attributes: 1,
  },
  { dataOffset: 0, rawSize: 0x10000, gpa: 2 ** 32 - size, memorySize: 0x10000, type: 1 },
  { gpa: 0x810000, memorySize: 0x10000, type: 3 },
  { gpa: 0x80b000, memorySize: 0x2000, type: 3 },
  { gpa: 0x809000, memorySize: 0x2000, type: 2 },
  { gpa: 0x800000, memorySize: 0x6000, type: 3 },
];

export function tdvfImage(options: ImageOptions = {}): Uint8Array {
  const size = options.size ?? 0x20000;
  const sections = options.sections ?? goodSections(size);
  const image = Buffer.alloc(size);
  for (let i = 0; i < size; i++) image[i] = (i * 7 + (i >> 8)) & 0xff;
  options.fill?.(image);
  const descriptor = size - 0xa00;
  const put = (at: number, ...words: number[]) =>
    words.forEach((word, i) => image.writeUInt32LE(word >>> 0, at + 4 * i));
  guid("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae").copy(image, descriptor - 16);
  put(
    descriptor,
    0,
    options.length ?? 16 + 32 * sections.length,
    options.version ?? 1,
    options.count ?? sections.length,
  );
  image.write(options.signature ?? "TDVF", descriptor, "ascii");
  sections.forEach((section, i) => {
    const at = descriptor + 16 + 32 * i;
    put(at, section.dataOffset ?? 0, section.rawSize ?? 0);
    image.writeBigUInt64LE(BigInt(section.gpa), at + 8);
    image.writeBigUInt64LE(BigInt(section.memorySize), at + 16);
    put(at + 24, section.type, section.attributes ?? 0);
  });
  // The table, top down: footer entry, an unrelated entry, the metadata offset.
  let end = size - 0x20;
  const entry = (name: string, data: Buffer, length = data.length + 18) => {
    guid(name).copy(image, end - 16);
    image.writeUInt16LE(length, end - 18);
    data.copy(image, end - 18 - data.length);
    end -= data.length + 18;
  };
  const distance = Buffer.alloc(4);
  distance.writeUInt32LE((options.offset ?? size - descriptor) >>> 0);
  entry(options.footerGuid ?? FOOTER, Buffer.alloc(0), options.tableLength ?? 18 + (18 + 8) + (18 + 4));
  entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", Buffer.alloc(8, 0x5a));
  entry(options.entryGuid ?? ENTRY, distance, options.entryLength ?? 22);
  return new Uint8Array(image);
}
