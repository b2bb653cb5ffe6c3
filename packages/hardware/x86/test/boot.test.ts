/** A guest that passes through all modes (tools/x86-vectors/boot.S): what it saw is what the architecture says. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { REG, Stop } from "../src/index.js";
import { machine, setMode } from "./machine.js";

const BASE = 0x1000;
const RESULTS = 0x8000;

function boot() {
  const { core, base, environment } = machine(4 << 20);
  core.u8.set(readFileSync(new URL("./vectors/boot.bin", import.meta.url)), base + BASE);
  setMode(core, 16);
  core.set32(REG.CR4, 0);
  core.set32(REG.IDTR_LIMIT, 0x3ff);
  core.set64(REG.RIP, BigInt(BASE));
  const stop = core.run(1 << 20);
  return { core, environment, stop, results: new BigUint64Array(core.u8.buffer, base + RESULTS, 18) };
}
/** As the common handler records an event. */
const event = (vector: number, error = 0, rpl = 0) => (BigInt(vector) << 32n) | BigInt((error << 8) | rpl);

test("real, protected, long and compatibility mode, ring 3, faults, SYSCALL, self-modifying code", () => {
  const { environment, stop, results } = boot();
  expect(stop).toBe(Stop.ENVIRONMENT);
  expect(environment.halted).toBe(true);
  expect([...results].map((v) => v.toString(16))).toEqual(
    [
      0x567843211234n,
      event(3),
      0x40000000n,
      event(14, 0),
      event(0),
      event(13, 0),
      0x44n,
      0xffffffffn,
      0x77n,
      0x99n,
      event(1),
      0x33n,
      0x202n,
      0x5ca11n,
      0x2bn,
      event(13, 0, 3),
      0x18000n - 56n,
      0xbadc0den,
    ].map((v) => v.toString(16)),
  );
});

test("the same instruction count and state each time", () => {
  const [one, two] = [boot(), boot()];
  expect(one.core.get64(REG.INSTRUCTIONS)).toBe(two.core.get64(REG.INSTRUCTIONS));
  expect(one.results).toEqual(two.results);
});
