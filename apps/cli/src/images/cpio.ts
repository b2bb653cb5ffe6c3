/**
 * cpio archives in the format that the kernel unpacks initial RAM disks from: "newc", Linux's
 * Documentation/driver-api/early-userspace/buffer-format.rst. Equal entries give equal bytes: no times, no owners.
 */
export interface CpioEntry {
  /** Without a leading slash. */
  readonly path: string;
  /** File type and permissions, as in st_mode. */
  readonly mode: number;
  readonly data?: Uint8Array;
}

export const directory = (path: string): CpioEntry => ({ path, mode: 0o040755 });
export const file = (path: string, data: Uint8Array, mode = 0o644): CpioEntry => ({
  path,
  mode: 0o100000 | mode,
  data,
});
export const symlink = (path: string, target: string): CpioEntry => ({
  path,
  mode: 0o120777,
  data: new TextEncoder().encode(target),
});

/** @returns the archive, with its trailer. */
export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts = [...entries, { path: "TRAILER!!!", mode: 0 }].map((entry, index) => record(entry, index + 1));
  return new Uint8Array(Buffer.concat(parts));
}

/** Header, name and data, each padded to a multiple of four bytes. */
function record({ path, mode, data = new Uint8Array() }: CpioEntry, inode: number): Uint8Array {
  const name = Buffer.from(`${path}\0`);
  const links = (mode & 0o170000) === 0o040000 ? 2 : 1;
  // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`);
  return Buffer.concat([header, name, padding(header.length + name.length), data, padding(data.length)]);
}

const padding = (length: number): Uint8Array => new Uint8Array(-length & 3);
