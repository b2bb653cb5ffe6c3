/**
 * @swtdx/tdx-module: P-SEAMLDR and the TDX module, as SEAM firmware for @swtdx/cpu, with the images that name them.
 * `registerTdxFirmware` makes both known to a processor; what is loaded decides what runs.
 */
import { Trace } from "@swtdx/abi";
import type { Processor, SeamLoad } from "@swtdx/cpu";
import { TdxModule } from "./module.js";
import { P_SEAMLDR_PROGRAM, TDX_MODULE_PROGRAM } from "./seamldr/module-image.js";
import { PSeamldr } from "./seamldr/p-seamldr.js";
import { SYSINFO_TABLE_SIZE, SysInfoTable } from "./seamldr/sysinfo-table.js";

export {
  buildModuleImage,
  buildSeamldrAcm,
  type ModuleImage,
  type ModuleOptions,
} from "./seamldr/module-image.js";
export { SEAM_SIGSTRUCT, type SeamSigstruct } from "./seamldr/sigstruct.js";
export type { Cmr, PlatformInfo } from "./seamldr/sysinfo-table.js";
export { MODULE_VERSION } from "./version.js";

function createModule(load: SeamLoad, trace: Trace): TdxModule {
  const page = new Uint8Array(SYSINFO_TABLE_SIZE);
  load.read(load.seamRange.base, page);
  return new TdxModule(load, new SysInfoTable(page), trace);
}

/** Makes P-SEAMLDR and TDX module known to a processor by the names in their images. */
export function registerTdxFirmware(processor: Processor, trace: Trace = new Trace()): void {
  processor.registerSeamFirmware(P_SEAMLDR_PROGRAM, (load) => new PSeamldr(load));
  processor.registerSeamFirmware(TDX_MODULE_PROGRAM, (load) => createModule(load, trace));
}
