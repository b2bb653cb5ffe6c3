/** The whole chain in a simulated TD, on the machine's real devices. */
import { EV, type Guest, guest, TDREPORT_STRUCT, viewOf } from "@swtdx/abi";
import { parseEventLog, replayEventLog } from "@swtdx/attestation";
import { createHash } from "node:crypto";
import type { Kernel } from "@swtdx/guest";
import { describe, expect, it } from "vitest";
import { buildImage } from "@swtdx/grub";
import { allPrograms, boot } from "./support/boot.js";
import { CFV_SIZE, IMAGE_SIZE } from "../src/image/layout.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const sha384 = (bytes: Uint8Array | string) => createHash("sha384").update(bytes).digest("hex");
const utf8 = (text: string) => new TextEncoder().encode(text);
const ucs2 = (text: string) => Buffer.from(`${text}\0`, "utf16le");

/** An init that hands what it sees to the test. */
function observer<T>(look: (kernel: Kernel) => Guest<T>) {
  const seen: T[] = [];
  const init = function* (kernel: Kernel): Guest<void> {
    seen.push(yield* look(kernel));
    yield* kernel.powerOff();
  };
  return { seen, init };
}

describe("a TD from reset to power-off", () => {
  it("prints what a Linux guest prints, and powers off", async () => {
    const { outcome, console: text, kvm } = await boot();
    expect(outcome).toEqual({ exit: "poweroff", reason: "ACPI S5" });
    for (const line of [
      "swtdx TDVF: 256 MiB of private memory",
      'BdsDxe: starting Boot0000 "swtdx"',
      "GRUB  version 2.14",
      "tdx: Guest detected",
      "Command line: BOOT_IMAGE=/kernel console=ttyS0",
      "Memory Encryption Features active: Intel TDX",
      "init: hello from a Trust Domain",
      `init: MRTD  ${hex(kvm.td.mrtd)}`,
      `init: RTMR3 ${hex(kvm.td.rtmr[3])}`,
      "reboot: Power down",
    ])
      expect(text).toContain(line);
    // Memory is accepted as it is needed: far from all of it.
    expect(kvm.td.accepted).toBeLessThan(4096);
  });

  it("brings up its application processors", async () => {
    const { outcome, console: text, kvm } = await boot({ machine: { smp: 4 } });
    expect(outcome.exit).toBe("poweroff");
    expect(text).toContain("smp: Brought up 1 node, 4 CPUs");
    expect(kvm.vcpus.slice(1).every(({ ves }) => (ves.get(12) ?? 0) > 0)).toBe(true);
  });

  it("gets a quote from the machine's quote generation service", async () => {
    const { console: text } = await boot({
      machine: {
        quoteGenerationService: async (message: Uint8Array) => {
          await new Promise((done) => setTimeout(done, 5));
          const out = new Uint8Array(16 + 8 + 100);
          const view = viewOf(out);
          out.set(message.subarray(0, 4));
          view.setUint32(4, 1, true);
          view.setUint32(8, out.length, true);
          view.setUint32(20, 100, true);
          return out;
        },
      },
    });
    expect(text).toContain("init: quote of 100 bytes");
  });
});

describe("measurements", async () => {
  const initrd = utf8("an initrd\n");
  const { seen, init } = observer(function* (kernel) {
    const log = yield* kernel.eventLog();
    const report = yield* kernel.parts.tdxGuest.getReport(utf8("nonce"));
    const { initrd: where } = kernel.parts;
    return { log, report, initrd: yield* guest.loadBytes(BigInt(where!.address), where!.size) };
  });
  const { outcome, kvm, bios, kernel } = await boot({ guest: { init }, machine: { initrd } });
  const log = parseEventLog(seen[0].log!);
  const row = (event: (typeof log.events)[number]) => [event.mrIndex, event.type];

  it("are in the order and of the kind that OVMF, GRUB and Linux make them", () => {
    expect(outcome.exit).toBe("poweroff");
    expect(log.events.map(row)).toEqual([
      [1, EV.EFI_HANDOFF_TABLES2],
      [1, EV.EFI_PLATFORM_FIRMWARE_BLOB2],
      ...Array(5).fill([1, EV.EFI_VARIABLE_DRIVER_CONFIG]),
      [1, EV.SEPARATOR],
      ...Array(3).fill([1, EV.PLATFORM_CONFIG_FLAGS]),
      [1, EV.EFI_VARIABLE_BOOT],
      [1, EV.EFI_VARIABLE_BOOT],
      [2, EV.EFI_ACTION],
      [2, EV.SEPARATOR],
      [2, EV.EFI_BOOT_SERVICES_APPLICATION],
      [3, EV.IPL],
      [3, EV.IPL],
      [3, EV.IPL],
      [3, EV.IPL],
      [2, EV.EFI_BOOT_SERVICES_APPLICATION],
      [3, EV.IPL],
      [3, EV.EVENT_TAG],
      [3, EV.EVENT_TAG],
      [2, EV.EFI_ACTION],
      [2, EV.EFI_ACTION],
    ]);
  });
  it("replay to the RTMRs", () => {
    expect(replayEventLog(log).map(hex)).toEqual(kvm.td.rtmr.map(hex));
    const { RTMR, MRTD } = TDREPORT_STRUCT.decode(seen[0].report).TDINFO_STRUCT;
    expect(RTMR.map(hex)).toEqual(kvm.td.rtmr.map(hex));
    expect(hex(MRTD)).toBe(hex(kvm.td.mrtd));
    expect(RTMR.slice(0, 3).every((value) => value.some((byte) => byte !== 0))).toBe(true);
    expect(RTMR[3].every((byte) => byte === 0)).toBe(true);
  });
  it("are of what they say", () => {
    const digests = log.events.map(({ digest }) => hex(digest));
    const known: [string, Uint8Array | string][] = [
      ["configuration volume", bios.subarray(0, CFV_SIZE)],
      ["separator", new Uint8Array(4)],
      ["boot attempt", "Calling EFI Application from Boot Option"],
      ["GRUB command", "linux /kernel console=ttyS0"],
      ["kernel command line", "/kernel console=ttyS0"],
      ["kernel file", kernel],
      ["load options", ucs2("BOOT_IMAGE=/kernel console=ttyS0")],
      ["initrd", initrd],
      ["exit", "Exit Boot Services Returned with Success"],
    ];
    for (const [what, data] of known) expect([what, digests.includes(sha384(data))]).toEqual([what, true]);
    expect(bios.length).toBe(IMAGE_SIZE);
    expect(hex(seen[0].initrd)).toBe(hex(initrd));
  });
  it("carry OVMF's event data", () => {
    const texts = log.events.map(({ event }) => new TextDecoder("latin1").decode(event));
    expect(texts[0].startsWith("\x09TdxTable\0\x01\0\0\0\0\0\0\0")).toBe(true);
    expect(texts[0].length).toBe(10 + 8 + 24);
    expect(texts[1].startsWith(")Fv(XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX)\0")).toBe(true);
    expect(texts[8]).toBe("ACPI DATA");
    expect(texts.filter((text) => text.startsWith("grub_cmd: "))).toEqual([
      "grub_cmd: echo Loading Linux ...\0",
      "grub_cmd: linux /kernel console=ttyS0\0",
      "grub_cmd: boot\0",
    ]);
    expect(texts).toContain("kernel_cmdline: /kernel console=ttyS0\0");
    expect(texts).toContain("/kernel\0");
  });
});

describe("what is measured depends on what is booted", () => {
  const rtmrs = async (options: Parameters<typeof boot>[0]) => {
    const { init } = observer(function* () {});
    const { kvm, outcome } = await boot({ ...options, guest: { init } });
    expect(outcome.exit).toBe("poweroff");
    return [kvm.td.mrtd, ...kvm.td.rtmr].map(hex);
  };
  it("each register on its own part", async () => {
    const base = await rtmrs({});
    expect(await rtmrs({})).toEqual(base);
    const differs = async (options: Parameters<typeof boot>[0]) =>
      (await rtmrs(options)).map((value, i) => value !== base[i]);
    expect(await differs({ machine: { append: "console=ttyS0 quiet" } })).toEqual(
      [0, 0, 0, 1, 0].map(Boolean),
    );
    expect(await differs({ machine: { memoryBytes: 512 * 2 ** 20 } })).toEqual([0, 1, 0, 0, 0].map(Boolean));
    // GRUB's image is in the boot volume, so MRTD has it as well.
    expect(await differs({ config: "linux /kernel $fw_cmdline\nboot\n" })).toEqual(
      [1, 0, 1, 1, 0].map(Boolean),
    );
    expect(await differs({ machine: { initrd: utf8("other") } })).toEqual([0, 0, 0, 1, 0].map(Boolean));
  });
});

describe("a hostile machine", () => {
  it.each([
    ["an empty script", new Uint8Array(128)],
    ["no whole entry", new Uint8Array(100).fill(1)],
    ["an unknown file", Uint8Array.from({ length: 128 }, (_, i) => (i === 0 ? 1 : 0x61))],
    ["pointers without files", Uint8Array.from({ length: 256 }, (_, i) => (i % 128 === 0 ? 2 : 0))],
    ["noise", Uint8Array.from({ length: 4096 }, (_, i) => (i * 2654435761) >>> 24)],
  ])("with %s for ACPI is booted without its tables", async (_what, script) => {
    const { seen, init } = observer(function* (kernel) {
      const log = yield* kernel.eventLog();
      return { signatures: kernel.parts.acpi.map(({ signature }) => signature), log };
    });
    const fwCfgFiles = new Map([["etc/table-loader", script]]);
    const { outcome, kvm } = await boot({ guest: { init }, machine: { fwCfgFiles } });
    expect(outcome.exit).toBe("poweroff");
    expect(seen[0].signatures).toEqual(["CCEL"]);
    expect(replayEventLog(parseEventLog(seen[0].log!)).map(hex)).toEqual(kvm.td.rtmr.map(hex));
  });
});

describe("what cannot boot", () => {
  it("is reported to the VMM", async () => {
    const { outcome, console: text } = await boot({ config: "linux /nothing\n" });
    expect(text).toContain("error: file `/nothing' not found.");
    expect(outcome).toEqual({
      exit: "fatal",
      reason: "vCPU 0: TD reported a fatal error 0x0: Boot0000 returned: ABORTED",
    });
    const none = await boot({ machine: { kernel: undefined, append: undefined } });
    expect(none.outcome.exit).toBe("fatal");
    expect(none.console).toContain("error: file `/kernel' not found.");
  });
  it("a kernel panics when its init returns", async () => {
    const { outcome } = await boot({ guest: { init: function* () {} } });
    expect(outcome.reason).toContain("Attempted to kill init!");
  });
});

it("names every program that the images need", () => {
  expect(buildImage().length).toBeGreaterThan(0);
  expect([...allPrograms(new Map()).keys()].every((name) => /^@swtdx\/(edk2|grub):\w+$/.test(name))).toBe(
    true,
  );
});
