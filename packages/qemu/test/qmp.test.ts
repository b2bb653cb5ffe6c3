import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Machine } from "../src/machine.js";
import { QmpSession } from "../src/qmp/qmp.js";
import { FakeKvm, step } from "./support/fake-kvm.js";
import { tdvfImage } from "./support/tdvf-image.js";

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- answers differ from command to command
type Answer = Record<string, any>;
const bios = tdvfImage();
function setup() {
  const kvm = new FakeKvm();
  const machine = new Machine({ syscalls: kvm, bios, memoryBytes: 64 * 2 ** 20, smp: 2 });
  const lines: string[] = [];
  const session = new QmpSession(machine, (line) => lines.push(line));
  const take = () => lines.splice(0).map((line) => JSON.parse(line) as Answer);
  const ask = (request: object) => {
    session.receive(`${JSON.stringify(request)}\n`);
    return take();
  };
  return { kvm, machine, session, lines, take, ask };
}

describe("QMP", () => {
  it("greets, negotiates, and answers", () => {
    const { take, ask, lines, session } = setup();
    expect(lines[0]).toMatch(/\r\n$/);
    expect(take()[0]["QMP"].version.qemu.major).toBe(10);
    expect(ask({ execute: "query-status" })[0]["error"].class).toBe("CommandNotFound");
    expect(ask({ execute: "qmp_capabilities", id: 1 })).toEqual([{ return: {}, id: 1 }]);
    expect(ask({ execute: "qmp_capabilities" })[0]["error"].class).toBe("CommandNotFound");
    expect(ask({ execute: "query-status", id: "a" })).toEqual([
      { return: { running: false, status: "prelaunch" }, id: "a" },
    ]);
    expect(ask({ execute: "query-cpus-fast" })[0]["return"].length).toBe(2);
    expect(ask({ execute: "query-memory-size-summary" })).toEqual([
      { return: { "base-memory": 64 * 2 ** 20 } },
    ]);
    expect(
      ask({ execute: "query-pci" })[0]["return"][0].devices.map((d: { slot: number }) => d.slot),
    ).toEqual([0, 31]);
    expect(ask({ execute: "query-commands" })[0]["return"]).toContainEqual({ name: "query-kvm" });
    expect(ask({ execute: "constructor" })[0]["error"].desc).toBe(
      "The command constructor has not been found",
    );
    session.receive('{"execute": "query-');
    expect(take()).toEqual([]);
    session.receive('kvm"}\n{"execute":"query-name"}\n');
    expect(take().map((answer) => answer["return"])).toEqual([{ enabled: true, present: true }, {}]);
  });
  it("refuses what is no command", () => {
    const { session, take } = setup();
    take();
    for (const text of [
      "{",
      "[]",
      "1",
      '{"id":1}',
      '{"execute":3}',
      '{"execute":"stop","arguments":1}',
      "x".repeat(70000),
    ]) {
      session.receive(`${text}\n`);
      expect([text.slice(0, 40), take()[0]["error"].class]).toEqual([text.slice(0, 40), "GenericError"]);
    }
    session.receive("y".repeat(70000));
    expect(take()[0]["error"].desc).toContain("at most");
  });
  it("stops, continues and quits a running machine", async () => {
    const { machine, ask, take } = setup();
    ask({ execute: "qmp_capabilities" });
    const run = machine.run({ timeoutSeconds: 20 });
    expect(ask({ execute: "query-status" })).toEqual([{ return: { running: true, status: "running" } }]);
    expect(ask({ execute: "stop" })).toMatchObject([{ event: "STOP" }, { return: {} }]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const at = machine.now();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(machine.now()).toBe(at);
    expect(machine.state).toBe("paused");
    expect(ask({ execute: "cont" })).toMatchObject([{ event: "RESUME" }, { return: {} }]);
    ask({ execute: "stop" });
    ask({ execute: "quit" });
    expect(await run).toEqual({ exit: "timeout", reason: "QMP quit" });
    expect(take()).toEqual([]);
    expect(machine.state).toBe("shutdown");
  });
  it("tells of power button, reset and panic", async () => {
    const { machine, ask, kvm, take } = setup();
    ask({ execute: "qmp_capabilities" });
    expect(ask({ execute: "system_powerdown" })).toMatchObject([{ event: "POWERDOWN" }, { return: {} }]);
    kvm.script(0, step.plain(8));
    await machine.run();
    expect(take()).toMatchObject([
      { event: "GUEST_PANICKED", data: { info: { reason: "vCPU 0: triple fault" } } },
    ]);
    const other = setup();
    other.ask({ execute: "qmp_capabilities" });
    expect(other.ask({ execute: "system_reset" })).toMatchObject([{ event: "RESET" }, { return: {} }]);
    expect(await other.machine.run()).toEqual({ exit: "reset", reason: "QMP system_reset" });
  });
  it("survives any input", () => {
    const { session } = setup();
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.jsonValue().map((x) => JSON.stringify({ execute: x })),
        ),
        (text) => {
          session.receive(`${text}\n`);
        },
      ),
    );
  });
});
