import type { GuestOp } from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { initChipset } from "../src/dxe/chipset.js";

/** Runs the program against configuration registers; `reads` gives them by configuration address. */
function run(reads: Record<number, number>): [string, number][] {
  const registers = new Map(Object.entries(reads).map(([at, value]) => [Number(at), value]));
  const writes: [string, number][] = [];
  let address = 0;
  const program = initChipset();
  for (let step = program.next(); !step.done;) {
    const op: GuestOp = step.value;
    let result: number | undefined;
    if (op.op === "out" && op.port === 0xcf8) address = op.value;
    else if (op.op === "out") {
      registers.set(address, op.value);
      writes.push([address.toString(16), op.value]);
    } else if (op.op === "in") result = registers.get(address) ?? 0xffffffff;
    step = program.next(result);
  }
  return writes;
}

describe("initChipset", () => {
  it("places and enables q35's ACPI registers and ECAM window", () => {
    expect(run({ 0x80000000: 0x29c08086, 0x8000f844: 0 })).toEqual([
      ["8000f840", 0x600],
      ["8000f844", 0x80],
      ["80000060", 0],
      ["80000064", 0],
      ["80000060", 0xe0000001],
    ]);
  });
  it("leaves a machine without that host bridge alone", () => {
    expect(run({})).toEqual([]);
    expect(run({ 0x80000000: 0x12378086 })).toEqual([]);
  });
});
