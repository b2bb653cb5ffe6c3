/** Multiboot kernels: what of an ELF file comes into memory, and a program of a few bytes on the real stack. */
import { X86Engine } from "@swtdx/cpu";
import { describe, expect, it } from "vitest";
import { MachineError } from "../src/errors.js";
import { isMultiboot, loadMultiboot } from "../src/firmware/multiboot.js";
import { Machine } from "../src/machine.js";
import { layoutMemory } from "../src/memory/memory-map.js";
import { powerOn } from "./support/platform.js";

const MIB = 2 ** 20;
const BASE = 0x10_0000;
const CODE = 0x100;

/** An ELF file with one segment: header, Multiboot header, code; `bss` more bytes in memory. */
function elf(code: readonly number[], bss = 0): Uint8Array {
  const out = new Uint8Array(CODE + code.length);
  const view = new DataView(out.buffer);
  const words: Record<number, number> = {
    0: 0x464c457f,
    4: 0x010101,
    16: 2 | (3 << 16),
    20: 1,
    24: BASE + CODE,
    28: 52,
    40: 52 | (32 << 16),
    44: 1,
    // The segment.
    52: 1,
    56: 0,
    60: BASE,
    64: BASE,
    68: out.length,
    72: out.length + bss,
    76: 7,
    80: 4096,
    // The Multiboot header.
    96: 0x1badb002,
    100: 0,
    104: -0x1badb002,
  };
  for (const [at, value] of Object.entries(words)) view.setUint32(Number(at), value, true);
  out.set(code, CODE);
  return out;
}
const map = layoutMemory(64 * MIB, 64 * 1024);

describe("a Multiboot kernel", () => {
  it("is known by its header", () => {
    expect(isMultiboot(elf([0xf4]))).toBe(true);
    const broken = elf([0xf4]);
    broken[104] ^= 1;
    expect(isMultiboot(broken)).toBe(false);
    expect(isMultiboot(new Uint8Array(8))).toBe(false);
  });

  it("comes into memory with its module, command line and memory map", () => {
    const kernel = elf([0xf4], 100);
    const { blobs, entry, info } = loadMultiboot(kernel, { initrd: Uint8Array.of(7, 8), append: "a b" }, map);
    expect(entry).toBe(BASE + CODE);
    expect(blobs[0].address).toBe(BASE);
    expect(blobs[0].data).toEqual(Uint8Array.from([...kernel, ...new Uint8Array(100)]));
    expect(blobs[1]).toEqual({ address: BASE + 4096, data: Uint8Array.of(7, 8) });
    const block = blobs[2];
    expect(block.address).toBe(info);
    const view = new DataView(block.data.buffer);
    const word = (gpa: number) => view.getUint32(gpa - info, true);
    expect(word(info + 8)).toBe(63 * 1024);
    const line = block.data.subarray(word(info + 16) - info);
    expect(new TextDecoder().decode(line.subarray(0, line.indexOf(0)))).toBe("kernel a b");
    expect(word(info + 20)).toBe(1);
    expect(word(word(info + 24))).toBe(BASE + 4096);
    expect(word(word(info + 24) + 4)).toBe(BASE + 4098);
    expect(word(info + 44)).toBe(24);
    const entries = [0, 4, 8, 12, 16, 20].map((at) => word(word(info + 48) + at));
    expect(entries).toEqual([20, 0, 0, 64 * MIB, 0, 1]);
  });

  it("that is cut off, or too large, is refused", () => {
    const kernel = elf([0xf4]);
    for (const bad of [kernel.subarray(0, CODE), kernel.subarray(0, 60), elf([0xf4], 64 * MIB)])
      expect(() => loadMultiboot(bad, {}, map)).toThrow(MachineError);
  });

  it("runs in an ordinary VM: magic in EAX, information at EBX, test devices", async () => {
    const platform = powerOn({ engines: [new X86Engine()] });
    let text = "";
    const machine = new Machine({
      syscalls: platform.kvm,
      bios: new Uint8Array(64 * 1024),
      plain: true,
      memoryBytes: 64 * MIB,
      testDevices: true,
      kernel: elf([
        // mov esp, 0x90000; push eax; the top byte of EAX, then that of the command line, to the serial port
        ...[0xbc, 0x00, 0x00, 0x09, 0x00, 0x50, 0x66, 0xba, 0xf8, 0x03, 0x0f, 0xb6, 0x44, 0x24, 0x03, 0xee],
        ...[0x8b, 0x43, 0x10, 0x8a, 0x40, 0x07, 0xee],
        // The scratch register keeps what is written; memory of the device too: out 0xe0, ax; in al, 0xe1; out dx, al
        ...[0xb8, 0x00, 0x41, 0x00, 0x00, 0x66, 0xe7, 0xe0, 0xe4, 0xe1, 0xee],
        ...[0xc6, 0x05, 0x08, 0x00, 0x00, 0xff, 0x42, 0xa0, 0x08, 0x00, 0x00, 0xff, 0xee],
        // mov eax, 0; out 0xf4, eax
        ...[0x31, 0xc0, 0xe7, 0xf4, 0xf4],
      ]),
      append: "xyz",
      serial: (bytes) => (text += String.fromCharCode(...bytes)),
    });
    expect(await machine.run({ timeoutSeconds: 60 })).toEqual({ exit: "poweroff", reason: "debug exit 1" });
    machine.close();
    expect(text).toBe("+xAB");
  });
});
