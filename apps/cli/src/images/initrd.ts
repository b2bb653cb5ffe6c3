/**
 * The initial RAM disk of a Debian kernel: busybox, /init (initrd/init), and the modules it loads, as the archive has
 * them, compressed and signed.
 */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { gzipSync } from "node:zlib";
import { initScript } from "../assets.js";
import { MODULES } from "./catalog.js";
import { cpio, directory, file, symlink } from "./cpio.js";

/**
 * @param busybox the path of a static busybox
 * @param modules paths of the kernel's modules, of those named in `MODULES`, in any order
 * @returns the archive, gzip'd
 */
export function buildInitrd(busybox: string, modules: readonly string[]): Uint8Array {
  const order: readonly string[] = MODULES;
  const place = (path: string): number => order.indexOf(basename(path).replace(/\.ko(\..*)?$/, ""));
  const archive = cpio([
    ...["bin", "dev", "modules", "mnt", "proc", "sys", "tmp"].map(directory),
    file("bin/busybox", readFileSync(busybox), 0o755),
    symlink("bin/sh", "busybox"),
    file("init", initScript(), 0o755),
    ...[...modules]
      .sort((a, b) => place(a) - place(b))
      .map((path) => file(`modules/${basename(path)}`, readFileSync(path))),
  ]);
  return gzipSync(archive, { level: 9 });
}
