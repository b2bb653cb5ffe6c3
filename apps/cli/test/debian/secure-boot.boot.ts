/**
 * Secure Boot in a TD: sid's OVMF has Microsoft's keys enrolled. A disk with Debian's shim, GRUB and kernel boots;
 * firmware refuses a shim without its signature, shim a GRUB, GRUB a kernel.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { authenticode, boot, directory, type Event, image, json, packaged, says, swtdx } from "./support.js";

const tool = fileURLToPath(new URL("../../../../tools/boot-disk.sh", import.meta.url));
const parts = {
  shim: packaged("trixie", "shim"),
  grub: packaged("trixie", "grub"),
  kernel: image("trixie/vmlinuz"),
  initrd: image("trixie/initrd.gz"),
};

function makeDisk(name: string, ...options: readonly string[]): string {
  const disk = join(directory, `${name}.img`);
  const files = Object.entries(parts).flatMap(([part, path]) => [`--${part}`, path]);
  const { status, stderr } = spawnSync(tool, [...files, ...options, disk], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return disk;
}

const bios = ["--bios", image("sid/OVMF.inteltdx.ms.fd")];

describe("Secure Boot", () => {
  test("a signed disk boots, and the event log tells of shim, GRUB and kernel", async () => {
    const disk = makeDisk("signed");
    const { lines, summary, eventLog } = await boot("signed", [...bios, "--drive", disk]);
    expect(says(lines, "secureboot: Secure boot enabled")).toBe(true);
    expect(says(lines, "init: in a Trust Domain")).toBe(true);
    const firstMiB = createHash("sha256").update(readFileSync(disk).subarray(0, 2 ** 20));
    expect(lines.find((line) => line.startsWith("init: disk vda of"))).toContain(firstMiB.digest("hex"));
    expect(lines.find((line) => line.startsWith("init: disk vda, partition 1"))).toContain(
      "./EFI/BOOT/BOOTX64.EFI ./EFI/BOOT/grubx64.efi ./EFI/debian/grub.cfg ./initrd.gz ./vmlinuz",
    );
    const { rtmr } = await json<{ rtmr: string[] }>("eventlog", "replay", eventLog);
    expect(rtmr).toEqual(summary.td!.rtmr);
    const events = await json<Event[]>("eventlog", "show", eventLog);
    const digests = events.map(({ digest }) => digest);
    for (const part of ["shim", "grub", "kernel"] as const)
      expect(digests, part).toContain(authenticode(parts[part]));
  });

  test.each([
    ["shim", /failed to load Boot[^\n]*Access Denied/],
    ["grub", /Verification failed: \(0x1A\) Security Violation/],
    ["kernel", /error: bad shim signature/],
  ])("a disk with an unsigned %s is refused", async (part, message) => {
    const disk = makeDisk(`unsigned-${part}`, "--unsigned", part);
    const started = /Linux version/;
    const { stdout } = await swtdx(
      ["boot", "--quiet", "--timeout", "1100", ...bios, "--drive", disk],
      new RegExp(`${message.source}|${started.source}`),
    );
    expect(stdout).toMatch(message);
    expect(stdout).not.toMatch(started);
  });
});
