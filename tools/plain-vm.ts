/** An ordinary VM on a host of its own, without the command: for tools that run programs of others on this machine. */
import { Trace } from "@swtdx/abi";
import { Processor, X86Engine, type X86EngineOptions } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { openKvm } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { Machine, type MachineOptions, type Syscalls } from "@swtdx/qemu";

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export interface PlainVm {
  readonly host: LinuxHost;
  readonly machine: Machine;
}

/** @param trace gets what the layers do; `bios` is 64 KiB of nothing unless the options say otherwise */
export function plainVm(
  options: Partial<MachineOptions> & { readonly memoryBytes: number },
  trace = new Trace(),
  engine: X86EngineOptions = {},
  open: (host: LinuxHost) => Syscalls = openKvm,
): PlainVm {
  const random = new SeededRandom(new Uint8Array(32));
  const memoryBytes = (Math.ceil(options.memoryBytes / GIB) + 1) * GIB;
  const arena = new Arena({ residentBytes: Math.min(options.memoryBytes + 64 * MIB, GIB) });
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const lps = options.smp ?? 1;
  const processor = new Processor({ arena, memory, random, lps, trace, engines: [new X86Engine(engine)] });
  const host = LinuxHost.boot({ processor, memoryBytes, trace });
  const machine = new Machine({
    bios: new Uint8Array(64 * 1024),
    ...options,
    plain: true,
    syscalls: open(host),
    trace,
  });
  return { host, machine };
}
