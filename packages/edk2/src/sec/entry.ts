/**
 * The reset vector, up to the switch to a stack: 32-bit mode without paging, then 64-bit mode.
 * The order is OVMF's (OvmfPkg/ResetVector, OvmfPkg/IntelTdx/Sec in edk2): detect TDX, page tables, 64-bit mode,
 * application processors to the mailbox, TD HOB checked and measured, configuration volume measured.
 */
import { EFI_CONFIGURATION_TABLE, encodeGuid, EV, guest, type Guest, type GuestProgram } from "@swtdx/abi";
import { programAddress } from "../dxe/services.js";
import { CFV_BASE, CFV_SIZE, FIRMWARE_STATE_BASE, STACK_TOP, TD_HOB, TEMP_LOG } from "../image/layout.js";
import { initEventLog, measure } from "../lib/measure.js";
import { initSerial } from "../lib/serial.js";
import { FIRMWARE_STATE, updateState } from "../lib/state.js";
import { deadLoop, reportFatalError, tdInfo } from "../lib/tdx.js";
import { installHandlers } from "../lib/ve.js";
import { validateTdHob } from "./hob.js";
import { waitAtMailbox } from "./mailbox.js";
import { enterLongMode, joinLongMode } from "./page-tables.js";

const CPUID_TDX = 0x21;
/** "IntelTDX    " in EBX, EDX, ECX. */
const SIGNATURE = { ebx: 0x65746e49, edx: 0x5844546c, ecx: 0x20202020 } as const;

/** gUefiOvmfPkgTokenSpaceGuid: names the TD HOB in its event. */
const TD_HOB_VENDOR = "93bb96af-b9f2-4eb8-9462-e0ba74564236";
const TD_HOB_DESCRIPTION = "TdxTable\0";
/** What OVMF writes for a volume that has no name of its own. */
const VOLUME_DESCRIPTION = "Fv(XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX)\0";

/** UEFI_PLATFORM_FIRMWARE_BLOB2: a counted description, base, length. */
function firmwareBlobEvent(description: string, base: number, length: number): Uint8Array {
  const out = new Uint8Array(1 + description.length + 16);
  out[0] = description.length;
  out.set(new TextEncoder().encode(description), 1);
  const view = new DataView(out.buffer);
  view.setBigUint64(1 + description.length, BigInt(base), true);
  view.setBigUint64(9 + description.length, BigInt(length), true);
  return out;
}

/** UEFI_HANDOFF_TABLE_POINTERS2 with one table. */
function handoffEvent(description: string, vendor: string, table: number): Uint8Array {
  const pointer = EFI_CONFIGURATION_TABLE.encode({ VendorGuid: encodeGuid(vendor), VendorTable: table });
  const out = new Uint8Array(1 + description.length + 8 + pointer.length);
  out[0] = description.length;
  out.set(new TextEncoder().encode(description), 1);
  new DataView(out.buffer).setBigUint64(1 + description.length, 1n, true);
  out.set(pointer, 9 + description.length);
  return out;
}

/** Checks and measures the TD HOB, then measures the configuration volume. */
function* measureInputs(): Guest<void> {
  const list = yield* guest.loadBytes(BigInt(TD_HOB.base), TD_HOB.size);
  const hob = validateTdHob(list);
  if ("error" in hob) return yield* reportFatalError(`TD HOB: ${hob.error}`);
  const table = handoffEvent(TD_HOB_DESCRIPTION, TD_HOB_VENDOR, TD_HOB.base);
  yield* measure(1, EV.EFI_HANDOFF_TABLES2, list.subarray(0, hob.measuredLength), table);
  const cfv = yield* guest.loadBytes(BigInt(CFV_BASE), CFV_SIZE);
  const blob = firmwareBlobEvent(VOLUME_DESCRIPTION, CFV_BASE, CFV_SIZE);
  yield* measure(1, EV.EFI_PLATFORM_FIRMWARE_BLOB2, cfv, blob);
}

export const SecEntry: GuestProgram = function* (regs) {
  const { eax: maxLeaf } = yield* guest.cpuid(0);
  const id = maxLeaf >= CPUID_TDX ? yield* guest.cpuid(CPUID_TDX) : null;
  if (id?.ebx !== SIGNATURE.ebx || id.edx !== SIGNATURE.edx || id.ecx !== SIGNATURE.ecx)
    return yield* deadLoop();

  // RSI is the vCPU's index (TDH.VP.INIT).
  const index = Number(regs.rsi & 0xffff_ffffn);
  if (index !== 0) {
    // The boot processor's state appears when its page tables stand.
    while ((yield* guest.load(BigInt(FIRMWARE_STATE_BASE), 4)) === 0n) yield* guest.pause();
    yield* joinLongMode();
    return yield* waitAtMailbox(index);
  }
  yield* enterLongMode();
  yield* installHandlers();
  const info = yield* tdInfo();
  yield* guest.storeBytes(BigInt(FIRMWARE_STATE_BASE), new Uint8Array(FIRMWARE_STATE.size));
  yield* updateState({ SharedBit: info.gpaw - 1, NumberOfVcpus: info.numVcpus });
  yield* initSerial();
  yield* initEventLog(TEMP_LOG.base, TEMP_LOG.size);
  yield* measureInputs();
  yield* guest.jump(BigInt(programAddress("DxeMain")), { rsp: BigInt(STACK_TOP) });
};
