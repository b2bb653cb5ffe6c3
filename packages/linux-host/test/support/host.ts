/** A host with the real processor, memory controller and TDX module. */
import { Trace, type TraceEvent } from "@swtdx/abi";
import { ProgramEngine, Processor } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";
import { LinuxHost, type TdxModuleImage } from "../../src/index.js";

export const GIB = 2 ** 30;

export function powerOn(
  options: {
    memoryBytes?: number;
    lps?: number;
    firmware?: boolean;
    module?: TdxModuleImage | Uint8Array;
  } = {},
) {
  const { memoryBytes = GIB, lps = 1, firmware = true, module = buildModuleImage() } = options;
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
    ...(firmware ? { firmware: { buildSeamldr: buildSeamldrAcm, module } } : {}),
  });
  return { host, events, memory };
}
