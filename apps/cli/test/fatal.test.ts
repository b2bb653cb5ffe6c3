/** Guests that come to grief, as machine code: the architectural outcome, exit 4, and a summary that says where. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tdvfImage } from "../../../packages/qemu/test/support/tdvf-image.js";
import { directory, swtdx } from "./support/cli.js";

const SIZE = 0x20000;
const BASE = 2 ** 32 - SIZE;
/** Offsets in the image: code, its tables, 1 GiB pages. */
const AT = {
  CODE: 0x18000,
  GDT: 0x18800,
  GDTR: 0x18880,
  IDTR: 0x18890,
  IDT: 0x18900,
  PML4: 0x19000,
  PDPT: 0x1a000,
};
const STACK = BASE + 0x1e000;
const CODE64 = 8;
const CODE32 = 0x10;
const u32 = (value: number): number[] => [0, 8, 16, 24].map((bits) => (value >>> bits) & 0xff);
const gpa = (offset: number): number => BASE + offset;

/** A firmware that begins with this code, in 32-bit mode (a TD's vCPU) or 16-bit mode. */
function firmware(name: string, code: readonly number[], { real = false } = {}): string {
  const image = tdvfImage({
    size: SIZE,
    fill: (bytes) => {
      bytes.fill(0, AT.CODE, AT.PDPT + 0x1000);
      bytes.set(code, AT.CODE);
      bytes.writeBigUInt64LE(0x00af9b000000ffffn, AT.GDT + CODE64);
      bytes.writeBigUInt64LE(0x00cf9b000000ffffn, AT.GDT + CODE32);
      bytes.set([0x17, 0, ...u32(gpa(AT.GDT))], AT.GDTR);
      bytes.set([0xff, 0, ...u32(gpa(AT.IDT))], AT.IDTR);
      bytes.writeBigUInt64LE(BigInt(gpa(AT.PDPT)) | 3n, AT.PML4);
      // Linear 1 GiB: GPA 0 with the shared bit; 3 GiB: itself.
      bytes.writeBigUInt64LE((1n << 47n) | 0x83n, AT.PDPT + 8);
      bytes.writeBigUInt64LE(0xc0000083n, AT.PDPT + 24);
    },
  });
  const jump = AT.CODE - (SIZE - 16 + (real ? 3 : 5));
  image.set([0xe9, ...u32(jump).slice(0, real ? 2 : 4)], SIZE - 16);
  const path = join(directory, `${name}.fd`);
  writeFileSync(path, image);
  return path;
}
/** The gate of #VE. */
function withGate(path: string, handler: number): string {
  const image = readFileSync(path);
  const offset = u32(gpa(handler));
  image.set([...offset.slice(0, 2), CODE32, 0, 0, 0x8e, ...offset.slice(2)], AT.IDT + 20 * 8);
  writeFileSync(path, image);
  return path;
}

const LGDT = [0x0f, 0x01, 0x15, ...u32(gpa(AT.GDTR))];
const LIDT = [0x0f, 0x01, 0x1d, ...u32(gpa(AT.IDTR))];
const jumpTo = (at: number, selector: number): number[] => [0xea, ...u32(gpa(at)), selector, 0];
/** LIDT CS:[88a0h], where there are zeros. */
const LIDT16 = [0x2e, 0x0f, 0x01, 0x1e, 0xa0, 0x88];
const UD2 = [0x0f, 0x0b];

interface Summary {
  exit: string;
  reason: string;
  where: {
    shutdown: {
      mode: string;
      cpl: number;
      registers: Record<string, string>;
      code: string;
      stack: string;
    } | null;
    exits: string[];
  } | null;
}

async function boot(
  bios: string,
  ...args: readonly string[]
): Promise<Summary & { code: number; said: string }> {
  const json = `${bios}.json`;
  const { code, stderr } = await swtdx("boot", "--bios", bios, "--memory", "64M", "--json", json, ...args);
  return { ...(JSON.parse(readFileSync(json, "utf8")) as Summary), code: code!, said: stderr };
}

describe("a TD that", () => {
  test("jumps into data has no handler for what it finds there", async () => {
    const result = await boot(
      firmware("data", [0xe9, ...u32(0x7b), ...Array<number>(0x7b).fill(0x90), ...UD2]),
    );
    expect(result).toMatchObject({ code: 4, exit: "fatal", reason: "vCPU 0: triple fault" });
    expect(result.where!.shutdown).toMatchObject({ mode: "protected", cpl: 0 });
    expect(result.where!.shutdown!.registers["rip"]).toBe("0xffff8080");
    expect(result.where!.shutdown!.code).toMatch(/^0f 0b 00/);
    expect(result.where!.exits.at(-1)).toBe("TRIPLE_FAULT at RIP 0xffff8080");
    expect(result.said).toMatch(/^where +protected mode, CPL 0$/m);
    expect(result.said).toMatch(/RIP 0xffff8080/);
  });

  test("touches memory it has not accepted is not entered again", async () => {
    const result = await boot(firmware("unaccepted", [0xa1, ...u32(0x1000000), 0xf4]));
    expect(result).toMatchObject({ code: 4, exit: "fatal" });
    expect(result.where!.exits.at(-1)).toMatch(/^EPT_VIOLATION at RIP 0xffff8000, GPA 0x1000000, /);
  });

  test("touches it and has asked for #VE gets that", async () => {
    const bios = firmware("unaccepted-ve", [0xa1, ...u32(0x1000000), 0xf4]);
    const result = await boot(bios, "--td-attributes", "");
    expect(result).toMatchObject({ code: 4, exit: "fatal", reason: "vCPU 0: triple fault" });
    expect(result.where!.shutdown!.registers["rip"]).toBe("0xffff8000");
  });

  test("takes a second #VE before it asked about the first gets #DF", async () => {
    const head = [...LGDT, ...LIDT, 0xbc, ...u32(STACK)];
    const next = AT.CODE + head.length + 7;
    const loop = [0xb8, ...u32(0x40000000), 0x0f, 0xa2, 0xeb, 0xf7];
    const code = [...head, ...jumpTo(next, CODE32), ...loop, 0xcf];
    const result = await boot(withGate(firmware("ve", code), AT.CODE + code.length - 1));
    expect(result).toMatchObject({ code: 4, exit: "fatal", reason: "vCPU 0: triple fault" });
    expect(result.where!.shutdown!.registers["rip"]).toBe(`0x${gpa(next + 5).toString(16)}`);
    expect(result.where!.shutdown!.code).toMatch(/^0f a2/);
  });

  test("executes a shared page cannot", async () => {
    const head = [
      ...[0xb8, ...u32(gpa(AT.PML4)), 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0],
      ...[...LGDT, 0x0f, 0x20, 0xc0, 0x0d, ...u32(0x80000000), 0x0f, 0x22, 0xc0],
    ];
    const next = AT.CODE + head.length + 7;
    const code = [...head, ...jumpTo(next, CODE64), 0xb8, ...u32(0x40000000), 0xff, 0xe0];
    const result = await boot(firmware("shared", code));
    expect(result).toMatchObject({ code: 4, exit: "fatal" });
    expect(result.where!.shutdown).toMatchObject({ mode: "64-bit", cpl: 0 });
    expect(result.where!.shutdown!.registers["rip"]).toBe("0x40000000");
    expect(result.where!.shutdown!.registers["cr2"]).toBe("0x40000000");
  });
});

test("a VM that shuts down, likewise", async () => {
  const result = await boot(firmware("plain", [...LIDT16, ...UD2], { real: true }), "--plain");
  expect(result).toMatchObject({ code: 4, exit: "fatal", reason: "vCPU 0: triple fault" });
  expect(result.where!.shutdown).toMatchObject({ mode: "real", cpl: 0 });
  expect(result.where!.shutdown!.registers).toMatchObject({ rip: "0x8006", cs: "0xf000 (base 0xffff0000)" });
});

test("a guest that turns in circles is stopped, and where", async () => {
  const result = await boot(firmware("circles", [0xf3, 0x90, 0xeb, 0xfc]), "--timeout", "1");
  expect(result).toMatchObject({ code: 5, exit: "timeout", where: { shutdown: null } });
  expect(result.where!.exits.at(-1)).toMatch(/ at RIP 0xffff800[02]/);
});
