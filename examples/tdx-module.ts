/** The TDX module by SEAMCALL: what it says of itself, and its answers to calls that are out of order or wrong. */
import { formatStatus, metadataFieldId, type SeamcallName, SYS_METADATA, Trace } from "@swtdx/abi";
import { ProgramEngine, Processor } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { leaf, LinuxHost, seamcallRet, type TdxModuleArgs, tdxModuleArgs } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

const memoryBytes = 2 ** 29;
const trace = new Trace();
const random = new SeededRandom(new Uint8Array(32));
const arena = new Arena({ residentBytes: 64 * 2 ** 20 });
const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
const engines = [new ProgramEngine({ programs: new Map() })];
const processor = new Processor({ arena, memory, random, trace, engines });
registerTdxFirmware(processor, trace);
const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });

const call = (name: SeamcallName, operands: Partial<TdxModuleArgs>): TdxModuleArgs => {
  const args = tdxModuleArgs(operands);
  const status = seamcallRet(host.lps[0], leaf(name), args);
  console.log(`${name}: ${formatStatus(status)}`);
  return args;
};
const { r8 } = call("TDH.SYS.RD", { rdx: metadataFieldId(SYS_METADATA.BUILD_DATE) });
console.log(`  BUILD_DATE ${r8}`);

// A TD whose memory nobody has prepared: its TDR first, then what must wait for it.
const tdr = BigInt(host.pages.allocPage("TDR")! * 4096);
call("TDH.MNG.ADDCX", { rcx: tdr, rdx: tdr });
call("TDH.MNG.CREATE", { rcx: tdr + 1n, rdx: 33n });
call("TDH.MNG.CREATE", { rcx: tdr, rdx: 1n });
call("TDH.MNG.CREATE", { rcx: tdr, rdx: 33n });
call("TDH.MNG.INIT", { rcx: tdr, rdx: tdr });
call("TDH.MNG.KEY.CONFIG", { rcx: tdr });
call("TDH.PHYMEM.PAGE.RECLAIM", { rcx: tdr });
