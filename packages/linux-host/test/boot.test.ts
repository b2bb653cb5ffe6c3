/** A host with the real processor, memory controller and TDX module. */
import { Trace, type TraceEvent } from "@swtdx/abi";
import { ProgramEngine, Processor } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";
import { describe, expect, it } from "vitest";
import { LinuxHost, seamldrInfo } from "../src/index.js";

const GIB = 2 ** 30;

export function powerOn(options: { memoryBytes?: number; lps?: number; firmware?: boolean } = {}) {
  const { memoryBytes = GIB, lps = 1, firmware = true } = options;
  const trace = new Trace();
  const events: TraceEvent[] = [];
  trace.subscribe((event) => events.push(event));
  const random = new SeededRandom(new TextEncoder().encode("linux-host"));
  const arena = new Arena({ residentBytes: 256 * 2 ** 20 });
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const processor = new Processor({
    arena,
    memory,
    random,
    lps,
    trace,
    engines: [new ProgramEngine({ programs: new Map() })],
  });
  registerTdxFirmware(processor, trace);
  const host = LinuxHost.boot({
    processor,
    memoryBytes,
    trace,
    ...(firmware ? { firmware: { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() } } : {}),
  });
  return { host, events, memory };
}

describe("LinuxHost.boot", () => {
  it("loads and initializes the module as Linux does", () => {
    const { host, events } = powerOn({ lps: 2 });
    const text = host.log.lines.map((line) => line.text);
    expect(text).toEqual([
      "virt/tdx: BIOS enabled: private KeyID range [32, 64)",
      "virt/tdx: 4108 KB allocated for PAMT",
      "virt/tdx: module initialized",
    ]);
    const leaves = events.flatMap((event) => (event.type === "SEAMCALL" ? [event.leaf] : []));
    const order = [...new Set(leaves)];
    expect(order).toEqual([
      "TDH.SYS.INIT",
      "TDH.SYS.LP.INIT",
      "TDH.SYS.RD",
      "TDH.SYS.CONFIG",
      "TDH.SYS.KEY.CONFIG",
      "TDH.SYS.TDMR.INIT",
    ]);
    expect(leaves.filter((leaf) => leaf === "TDH.SYS.LP.INIT")).toHaveLength(2);
    expect(host.tdx!.sysInfo!.maxVcpusPerTd).toBeGreaterThan(0);
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx")).toBe("Y\n");
    expect(host.sysfs.read("/sys/devices/faux/tdx_host/version")).toMatch(/^1\.5\.\d\d\n$/);
    expect(host.sysfs.read("/sys/nothing")).toBeNull();
    const info = seamldrInfo(host.lps[0], host.pages);
    expect(typeof info).not.toBe("bigint");
  });

  it("works with memory above 4 GiB", () => {
    const { host } = powerOn({ memoryBytes: 4 * GIB });
    expect(host.tdx!.tdmrs.map(({ base, size }) => [base / GIB, size / GIB])).toEqual([
      [0, 3],
      [4, 1],
    ]);
  });

  it("without TDX firmware the host runs, without TDX", () => {
    const { host } = powerOn({ firmware: false });
    expect(host.tdx).toBeNull();
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx")).toBe("N\n");
  });

  it("refuses impossible memory", () => {
    expect(() => powerOn({ memoryBytes: 12345 })).toThrow(RangeError);
  });
});
