/**
 * The platform from power-on to a host with TDX enabled: DRAM, processor package, firmware, Linux, KVM. Assembling
 * the layers is all that happens here.
 */
import type { GuestProgram, Trace } from "@swtdx/abi";
import { type PostMortem, ProgramEngine, Processor, REG, X86Engine } from "@swtdx/cpu";
import type { SeededRandom } from "@swtdx/crypto";
import { LinuxHost, MAX_HOST_MEMORY } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";
import { UsageError } from "../errors.js";

export interface PlatformOptions {
  readonly random: SeededRandom;
  readonly trace: Trace;
  /** The machine's RAM in bytes: the host's DRAM is sized to hold it. */
  readonly guestMemory: number;
  /** TypeScript guest programs by name. */
  readonly programs: ReadonlyMap<string, GuestProgram>;
}

export interface Platform {
  readonly host: LinuxHost;
  /** Whether this platform made a REPORTMACSTRUCT, as its quoting enclave asks the CPU. */
  verifyReport(reportMacStruct: Uint8Array): boolean;
  /** Instructions that guests have retired. */
  instructions(): number;
  /** What the logical processor knows of the end of its guests. */
  readonly postMortem: PostMortem;
}

const GIB = 2 ** 30;
/** Memory that is really there: guests touch only part of theirs. */
const RESIDENT = GIB;

/** Switches a host on and loads the TDX module. @throws UsageError when there is no room for the guest */
export function powerOn(options: PlatformOptions): Platform {
  const { random, trace } = options;
  // The host's own share and PAMTs, and whole GiBs, as DIMMs have.
  const memoryBytes = (Math.ceil(options.guestMemory / GIB) + 1) * GIB;
  if (memoryBytes > MAX_HOST_MEMORY)
    throw new UsageError(`--memory: a guest has at most ${MAX_HOST_MEMORY / GIB - 1} GiB`);
  const arena = new Arena({ residentBytes: RESIDENT });
  const memory = new MemoryController(arena, {
    dramBytes: LinuxHost.dramBytes(memoryBytes),
    random: random.fork("mktme"),
    trace,
  });
  const processor = new Processor({
    arena,
    memory,
    random: random.fork("processor"),
    lps: 1,
    trace,
    engines: [new ProgramEngine({ programs: options.programs }), new X86Engine()],
  });
  registerTdxFirmware(processor, trace);
  const host = LinuxHost.boot({
    processor,
    memoryBytes,
    trace,
    firmware: { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() },
  });
  return {
    host,
    postMortem: host.lps[0].postMortem,
    verifyReport: (mac) => host.lps[0].everifyreport2(mac) === 0,
    instructions: () => host.lps.reduce((sum, { regs }) => sum + Number(regs.get(REG.INSTRUCTIONS)), 0),
  };
}
