/**
 * The blob of ACPI tables and the script by which firmware places and links them (fw_cfg files etc/acpi/tables,
 * etc/acpi/rsdp and etc/table-loader). QEMU, hw/acpi/bios-linker-loader.c and aml-build.c (acpi_table_begin).
 */
import {
  ACPI_TABLE_HEADER,
  BIOS_LINKER_LOADER_ADD_CHECKSUM,
  BIOS_LINKER_LOADER_ADD_POINTER,
  BIOS_LINKER_LOADER_ALLOCATE,
  BIOS_LINKER_LOADER_COMMAND,
} from "@swtdx/abi";

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);
const CHECKSUM_OFFSET = ACPI_TABLE_HEADER.fields.Checksum.offset;
/** What QEMU's tables carry. */
const OEM = {
  ID: "BOCHS ",
  TABLE_ID: "BXPC    ",
  REVISION: 1,
  CREATOR_ID: "BXPC",
  CREATOR_REVISION: 1,
} as const;

/** A file under construction: bytes that grow. */
export class Blob {
  #bytes: number[] = [];
  constructor(readonly name: string) {}

  get length(): number {
    return this.#bytes.length;
  }
  append(bytes: Iterable<number>): void {
    for (const byte of bytes) this.#bytes.push(byte);
  }
  /** Appends `value` in `size` bytes, little-endian. */
  int(value: number, size: number): void {
    for (let i = 0; i < size; i++) this.#bytes.push(Math.floor(value / 2 ** (8 * i)) & 0xff);
  }
  set(offset: number, value: number, size: number): void {
    for (let i = 0; i < size; i++) this.#bytes[offset + i] = Math.floor(value / 2 ** (8 * i)) & 0xff;
  }
  align(size: number): void {
    while (this.#bytes.length % size !== 0) this.#bytes.push(0);
  }
  toBytes(): Uint8Array {
    return Uint8Array.from(this.#bytes);
  }
}

export class Linker {
  readonly #allocate: Uint8Array[] = [];
  readonly #link: Uint8Array[] = [];

  /** Firmware is to load `blob`, aligned to `align` bytes, in `zone` (BIOS_LINKER_LOADER_ZONE). */
  allocate(blob: Blob, align: number, zone: number): void {
    const { ALLOCATE: command } = BIOS_LINKER_LOADER_COMMAND;
    this.#allocate.unshift(
      BIOS_LINKER_LOADER_ALLOCATE.encode({ command, file: ascii(blob.name), align, zone }),
    );
  }

  /** Writes to `offset` of `blob` a pointer to `target` of `source`, which firmware relocates. */
  pointer(blob: Blob, offset: number, size: number, source: Blob, target: number): void {
    blob.set(offset, target, size);
    const { ADD_POINTER: command } = BIOS_LINKER_LOADER_COMMAND;
    const files = { dest_file: ascii(blob.name), src_file: ascii(source.name) };
    this.#link.push(BIOS_LINKER_LOADER_ADD_POINTER.encode({ command, ...files, offset, size }));
  }

  /** Firmware is to make the bytes sum to zero by the byte at `offset`. */
  checksum(blob: Blob, offset: number, start: number, length: number): void {
    blob.set(offset, 0, 1);
    const { ADD_CHECKSUM: command } = BIOS_LINKER_LOADER_COMMAND;
    this.#link.push(
      BIOS_LINKER_LOADER_ADD_CHECKSUM.encode({ command, file: ascii(blob.name), offset, start, length }),
    );
  }

  /** Appends a table: its header, and what `body` appends. @returns its offset. */
  table(blob: Blob, signature: string, revision: number, body: () => void): number {
    const start = blob.length;
    blob.append(
      ACPI_TABLE_HEADER.encode({
        Signature: ascii(signature),
        Revision: revision,
        OemId: ascii(OEM.ID),
        OemTableId: ascii(OEM.TABLE_ID),
        OemRevision: OEM.REVISION,
        CreatorId: ascii(OEM.CREATOR_ID),
        CreatorRevision: OEM.CREATOR_REVISION,
      }),
    );
    body();
    const length = blob.length - start;
    blob.set(start + ACPI_TABLE_HEADER.fields.Length.offset, length, 4);
    this.checksum(blob, start + CHECKSUM_OFFSET, start, length);
    return start;
  }

  /** The script: allocations first, the last one before the others as in QEMU. */
  script(): Uint8Array {
    const commands = [...this.#allocate, ...this.#link];
    const out = new Uint8Array(commands.length * BIOS_LINKER_LOADER_ALLOCATE.size);
    commands.forEach((command, i) => out.set(command, i * BIOS_LINKER_LOADER_ALLOCATE.size));
    return out;
  }
}
