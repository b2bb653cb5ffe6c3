/** The machine on the real stack: KVM, Linux host, TDX module, processor, with the project's own guest software. */
import type { GuestProgram } from "@swtdx/abi";
import { createCollateral, createPki, Qgs, QuotingEnclave, verifyQuote } from "@swtdx/attestation";
import { SeededRandom } from "@swtdx/crypto";
import { buildFirmware, programs as edk2 } from "@swtdx/edk2";
import { buildImage, GRUB_FILE_GUID, programs as grub } from "@swtdx/grub";
import { createGuest } from "@swtdx/guest";
import { beforeAll, describe, expect, it } from "vitest";
import type { PrivateMemoryKind } from "../src/accel/kvm.js";
import { Machine } from "../src/machine.js";
import { measureStatic } from "../src/measure.js";
import { mrtd as oracleMrtd } from "../../../tools/mrtd-oracle.mjs";
import { debianImages } from "./support/debian-images.js";
import { powerOn } from "./support/platform.js";
import { tdvfImage } from "./support/tdvf-image.js";

const MIB = 2 ** 20;
type OnSerial = (machine: Machine) => void;

describe("measureStatic", () => {
  const measure = (bios: Uint8Array) => {
    const { kvm, trace } = powerOn();
    return measureStatic({ syscalls: kvm, trace, bios, memoryBytes: 64 * MIB });
  };
  it("gives what a bare calculation from the specification gives", () => {
    for (const bios of [tdvfImage(), buildFirmware({})]) expect(measure(bios).mrtd).toBe(oracleMrtd(bios));
  });
  it("gives the reference values of Debian's images, where SWTDX_IMAGES names the folder that has them", () => {
    for (const { image, mrtd } of debianImages) expect(measure(image).mrtd).toBe(mrtd);
  });
  it("leaves nothing of the TD on the host", () => {
    const { kvm, trace, host } = powerOn();
    const bios = tdvfImage();
    const run = () => measureStatic({ syscalls: kvm, trace, bios, memoryBytes: 64 * MIB });
    const first = run();
    const free = host.pages.freePageCount;
    const keyIds = host.tdx!.guestKeyIds.inUse;
    for (let i = 0; i < 5; i++) expect(run()).toEqual(first);
    expect(host.pages.freePageCount).toBe(free);
    expect(host.tdx!.guestKeyIds.inUse).toBe(keyIds);
  });
});

describe("a TD with our own guest software", () => {
  const kernel = createGuest();
  const programs = new Map<string, GuestProgram>([...edk2, ...grub, ...kernel.programs]);
  const bios = buildFirmware({ applications: [{ guid: GRUB_FILE_GUID, image: buildImage() }] });
  async function boot(smp: number, privateMemory: PrivateMemoryKind = "guest_memfd", onSerial?: OnSerial) {
    const parameters = { tdx_unmap_user: privateMemory === "unmapped" };
    const platform = powerOn({ programs, lps: smp, parameters });
    const { host } = platform;
    const random = new SeededRandom(new TextEncoder().encode("quotes"));
    const pki = createPki(random.fork("pki"));
    const verifyReport = (report: Uint8Array) => host.lps[0].everifyreport2(report) === 0;
    const qgs = new Qgs({
      enclave: new QuotingEnclave({ pki, random: random.fork("qe"), verifyReport }),
      pki,
    });
    const quotes: Uint8Array[] = [];
    const free = host.pages.freePageCount;
    let text = "";
    const machine = new Machine({
      syscalls: platform.kvm,
      trace: platform.trace,
      bios,
      biosName: "edk2",
      memoryBytes: 256 * MIB,
      privateMemory,
      smp,
      kernel: kernel.image,
      append: "console=ttyS0 report_data=c0ffee",
      serial(bytes) {
        text += new TextDecoder().decode(bytes);
        onSerial?.(machine);
      },
      quoteGenerationService: async (message) => {
        const response = qgs.handle(message);
        quotes.push(response.slice(24));
        return response;
      },
    });
    const outcome = await machine.run({ timeoutSeconds: 60 });
    const { exits } = machine;
    const mrtd = machine.td!.mrtd;
    machine.close();
    const leaked = free - host.pages.freePageCount;
    return { outcome, text, exits, mrtd, leaked, quotes, pki, keyIds: host.tdx!.guestKeyIds.inUse };
  }
  let first: Awaited<ReturnType<typeof boot>>;
  beforeAll(async () => {
    first = await boot(1);
  });

  it("boots to its end and powers off", () => {
    const { outcome, text, mrtd } = first;
    expect([outcome, text.slice(-2000)]).toEqual([
      { exit: "poweroff", reason: "ACPI S5" },
      expect.anything(),
    ]);
    expect(text).toContain("swtdx TDVF");
    for (const table of ["FACP", "APIC", "MCFG", "WAET", "CCEL"])
      expect(text).toMatch(new RegExp(`ACPI: ${table} 0x[0-9A-F]{16} [0-9A-F]{6} \\(v`));
    expect(mrtd).toBe(oracleMrtd(bios));
  });
  it("gets a quote of itself that verifies", () => {
    const { text, quotes, pki, mrtd } = first;
    expect(text).toMatch(/init: quote of \d+ bytes/);
    expect(quotes).toHaveLength(1);
    const now = new Date("2026-06-01T00:00:00Z");
    const collateral = createCollateral(pki, { issueDate: now });
    const verdict = verifyQuote(quotes[0], { root: pki.root.certificate.der, collateral, now });
    expect(verdict.checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(verdict.ok).toBe(true);
    // Quote v4: the TD's body begins at 48; MRTD stands at 136 of it, REPORTDATA at 520.
    const hex = (at: number, length: number) =>
      Buffer.from(quotes[0].subarray(at, at + length)).toString("hex");
    expect(hex(48 + 136, 48)).toBe(mrtd);
    expect(hex(48 + 520, 4)).toBe("c0ffee00");
  });
  it("leaves the host as it was", () => {
    expect([first.keyIds, first.leaked]).toEqual([0, 0]);
  });
  it("runs the same twice", async () => {
    const second = await boot(1);
    expect([second.text, second.exits, second.quotes]).toEqual([first.text, first.exits, first.quotes]);
  });
  it("says the same with private memory that is unmapped from QEMU", async () => {
    const { outcome, text, mrtd, keyIds, leaked } = await boot(1, "unmapped");
    // Pages of 4 KiB take more of the guest's time.
    const timeless = (lines: string) => lines.replaceAll(/^\[ *[\d.]+\]/gm, "");
    expect([outcome, timeless(text), mrtd]).toEqual([first.outcome, timeless(first.text), first.mrtd]);
    expect([keyIds, leaked]).toEqual([0, 0]);
  });
  it("ends with QEMU when a device reaches for unmapped memory", async () => {
    let touched = false;
    const { outcome, keyIds, leaked } = await boot(1, "unmapped", ({ board: { ports } }) => {
      if (touched) return;
      touched = true;
      // A command of fw_cfg's DMA in the firmware's volume, which is the TD's.
      ports.write(0x514, 4, 0);
      ports.write(0x518, 4, 0x00f0ffff);
    });
    expect(outcome).toEqual({
      exit: "fatal",
      reason: expect.stringMatching(/^QEMU is killed: PROT_NONE at 0x7f/) as string,
    });
    expect([keyIds, leaked]).toEqual([0, 0]);
  });
  it("boots with two vCPUs", async () => {
    const { outcome, text } = await boot(2);
    expect([outcome.exit, text.slice(-500)]).toEqual(["poweroff", expect.stringContaining("Power down")]);
  });
});
