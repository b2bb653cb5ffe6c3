/**
 * The firmware from its first stack to the boot manager: memory map, event log, secure boot state, fw_cfg, ACPI,
 * system table. Follows the DXE phase of OvmfPkg/IntelTdx (edk2) in what it leaves to be seen.
 */
import { EFI_GUID, EFI_MEMORY_TYPE, EV, guest, type GuestProgram } from "@swtdx/abi";
import { bootApplication } from "../bds/boot.js";
import { TD_HOB } from "../image/layout.js";
import { fwCfgPresent } from "../lib/fw-cfg.js";
import { measure, moveEventLog, SEPARATOR, variableEvent } from "../lib/measure.js";
import { print } from "../lib/serial.js";
import { reportFatalError } from "../lib/tdx.js";
import { installHandlers } from "../lib/ve.js";
import { validateTdHob } from "../sec/hob.js";
import { initChipset } from "./chipset.js";
import { installAcpi } from "./acpi.js";
import { initDma } from "./dma.js";
import { allocate, initMemoryMap } from "./memory-map.js";
import { installSystemTable } from "./system-table.js";

const EVENT_LOG_SIZE = 0x1_0000;

/** The variables of UEFI 2.10, ch. 32.3 as they stand without enrolled keys: SecureBoot is 0, the others are empty. */
const SECURE_BOOT_VARIABLES = [
  { name: "SecureBoot", guid: EFI_GUID.GLOBAL_VARIABLE, data: new Uint8Array([0]) },
  { name: "PK", guid: EFI_GUID.GLOBAL_VARIABLE, data: new Uint8Array() },
  { name: "KEK", guid: EFI_GUID.GLOBAL_VARIABLE, data: new Uint8Array() },
  { name: "db", guid: EFI_GUID.IMAGE_SECURITY_DATABASE, data: new Uint8Array() },
  { name: "dbx", guid: EFI_GUID.IMAGE_SECURITY_DATABASE, data: new Uint8Array() },
];

export const DxeMain: GuestProgram = function* () {
  yield* installHandlers();
  const hob = validateTdHob(yield* guest.loadBytes(BigInt(TD_HOB.base), TD_HOB.size));
  if ("error" in hob) return yield* reportFatalError(`TD HOB: ${hob.error}`);
  yield* initMemoryMap(hob.resources);
  const log = yield* allocate(EVENT_LOG_SIZE, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  if (log < 0) return yield* reportFatalError("Not enough memory for the event log");
  yield* moveEventLog(log, EVENT_LOG_SIZE);
  for (const variable of SECURE_BOOT_VARIABLES) {
    const data = variableEvent(variable);
    yield* measure(1, EV.EFI_VARIABLE_DRIVER_CONFIG, data, data);
  }
  // Configuration ends here; authorities would follow.
  yield* measure(1, EV.SEPARATOR, SEPARATOR, SEPARATOR);
  const total = hob.resources.reduce((sum, { size }) => sum + size, 0);
  yield* print(`swtdx TDVF: ${Math.round(total / 2 ** 20)} MiB of private memory\n`);
  if (!(yield* fwCfgPresent())) return yield* reportFatalError("No fw_cfg device");
  yield* initDma();
  yield* initChipset();
  const rsdp = yield* installAcpi();
  if (rsdp < 0) return yield* reportFatalError("Not enough memory for ACPI tables");
  if ((yield* installSystemTable(rsdp)) < 0)
    return yield* reportFatalError("Not enough memory for the system table");
  return yield* bootApplication();
};
