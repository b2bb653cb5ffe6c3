/** A host with TDX: the BIOS's part, Linux loading and initialising the module, and what sysfs says afterwards. */
import { Trace } from "@swtdx/abi";
import { Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

const memoryBytes = 2 ** 30;
const trace = new Trace();
const random = new SeededRandom(new Uint8Array(32));
const arena = new Arena({ residentBytes: 64 * 2 ** 20 });
const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
const engines = [new ProgramEngine({ programs: new Map() })];
const processor = new Processor({ arena, memory, random, lps: 2, trace, engines });
registerTdxFirmware(processor, trace);

const calls = new Map<string, number>();
trace.subscribe(({ leaf }) => calls.set(leaf, (calls.get(leaf) ?? 0) + 1), ["SEAMCALL"]);
const host = LinuxHost.boot({
  processor,
  memoryBytes,
  trace,
  firmware: { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() },
  onLog: (line) => console.log(line.text),
});
for (const path of ["/sys/module/kvm_intel/parameters/tdx", "/sys/devices/faux/tdx_host/version"])
  console.log(`${path}: ${host.sysfs.read(path)?.trim()}`);
for (const [leaf, count] of calls) console.log(`${leaf} × ${count}`);
