/** The whole platform under a machine: processor, memory controller, TDX module, Linux host, a process that uses KVM. */
import { type GuestProgram, Trace } from "@swtdx/abi";
import { type ExecutionEngine, Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { type KvmParameters, KvmProcess } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

export interface Platform {
  readonly host: LinuxHost;
  readonly kvm: KvmProcess;
  readonly trace: Trace;
  readonly memory: MemoryController;
}

export function powerOn({
  programs = new Map<string, GuestProgram>(),
  lps = 1,
  memoryBytes = 2 ** 30,
  residentBytes = 256 * 2 ** 20,
  seed = "qemu",
  engines = [] as readonly ExecutionEngine[],
  parameters = undefined as Partial<KvmParameters> | undefined,
} = {}): Platform {
  const trace = new Trace();
  const random = new SeededRandom(new TextEncoder().encode(seed));
  const arena = new Arena({ residentBytes });
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const processor = new Processor({
    arena,
    memory,
    random,
    lps,
    trace,
    engines: [new ProgramEngine({ programs }), ...engines],
  });
  registerTdxFirmware(processor, trace);
  const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
  const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });
  return { host, kvm: new KvmProcess(host, parameters), trace, memory };
}
