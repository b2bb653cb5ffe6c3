/** The archive's format is proven by kernels: .ci boots them with what this makes. Here it is read back. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { cpio, type CpioEntry, directory as dir, file, symlink } from "../src/images/cpio.js";
import { buildInitrd } from "../src/images/initrd.js";
import { directory } from "./support/cli.js";

/** Reads an archive as the kernel does: header of 110 characters, name and data up to multiples of four. */
function read(archive: Uint8Array): CpioEntry[] {
  const bytes = Buffer.from(archive);
  const entries: CpioEntry[] = [];
  for (let at = 0; ;) {
    expect(bytes.toString("latin1", at, at + 6)).toBe("070701");
    const field = (index: number): number =>
      parseInt(bytes.toString("latin1", at + 6 + 8 * index, at + 14 + 8 * index), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const path = bytes.toString("utf8", at + 110, at + 110 + nameSize - 1);
    const start = (at + 110 + nameSize + 3) & ~3;
    if (path === "TRAILER!!!") {
      expect(start).toBe(bytes.length);
      return entries;
    }
    entries.push({ path, mode, data: new Uint8Array(bytes.subarray(start, start + size)) });
    at = (start + size + 3) & ~3;
  }
}

describe("initial RAM disks", () => {
  test("an archive has what was put in, whatever its length", () => {
    const entry = fc
      .tuple(fc.stringMatching(/^[a-zé][a-z/.0-9]{0,20}$/u), fc.uint8Array({ maxLength: 20 }))
      .map(([path, data]) => file(path, data, 0o755));
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5 }), (entries) => {
        expect(read(cpio(entries))).toEqual(entries);
      }),
    );
  });

  test("directories and links are what the kernel takes for such", () => {
    expect(read(cpio([dir("bin"), symlink("bin/sh", "busybox")]))).toEqual([
      { path: "bin", mode: 0o040755, data: new Uint8Array() },
      { path: "bin/sh", mode: 0o120777, data: new TextEncoder().encode("busybox") },
    ]);
  });

  test("one for a kernel has busybox, /init and the modules in the order of loading", () => {
    const from = join(directory, "modules");
    mkdirSync(from);
    const put = (name: string): string => {
      writeFileSync(join(from, name), `contents of ${name}`);
      return join(from, name);
    };
    const modules = ["vfat.ko.xz", "fat.ko.xz", "tdx-guest.ko", "tsm_report.ko", "configfs.ko.zst"].map(put);
    const made = buildInitrd(put("busybox"), modules);
    expect(made).toEqual(buildInitrd(join(from, "busybox"), [...modules].reverse()));
    const entries = new Map(read(gunzipSync(made)).map((entry) => [entry.path, entry]));
    expect([...entries.keys()].filter((path) => path.startsWith("modules/"))).toEqual(
      ["configfs.ko.zst", "tsm_report.ko", "tdx-guest.ko", "fat.ko.xz", "vfat.ko.xz"].map(
        (name) => `modules/${name}`,
      ),
    );
    expect(entries.get("init")).toMatchObject({
      mode: 0o100755,
      data: new Uint8Array(readFileSync(new URL("../initrd/init", import.meta.url))),
    });
    expect(entries.get("bin/busybox")).toMatchObject({
      data: new TextEncoder().encode("contents of busybox"),
    });
  });
});
