/** The same firmware and kernel in an ordinary VM. */
import { expect, test } from "vitest";
import { boot, image, says } from "./support.js";

test("trixie in an ordinary VM", async () => {
  const { lines, summary } = await boot("plain", [
    ...["--plain", "--bios", image("trixie/OVMF.fd"), "--append", "console=ttyS0"],
    ...["--kernel", image("trixie/vmlinuz"), "--initrd", image("trixie/initrd.gz")],
  ]);
  expect(lines).toContain("init: not a TD");
  expect(says(lines, "reboot: Power down")).toBe(true);
  expect(lines.filter((line) => /FAILED|tdx|Memory Encryption/i.test(line))).toEqual([]);
  expect(summary).toMatchObject({ exit: "poweroff", td: null, quote: null });
});
