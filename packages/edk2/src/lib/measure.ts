/**
 * Measurement: hash, extend an RTMR, append to the event log. The log is a range of guest memory that the CCEL
 * table names; what is not written yet is 0xff.
 * Follows OvmfPkg/Tcg/TdTcg2Dxe (edk2).
 */
import {
  bytes,
  encodeCcEvent,
  encodeGuid,
  encodeSpecIdEvent,
  encodeUcs2,
  guest,
  type Guest,
  struct,
  u64,
  tdcall,
} from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { TDCALL_SCRATCH } from "../image/layout.js";
import { readState, updateState } from "./state.js";
import { reportFatalError } from "./tdx.js";

/** TDG.MR.RTMR.EXTEND of a digest of 48 bytes. */
export function* extendRtmr(rtmr: number, digest: Uint8Array): Guest<void> {
  const scratch = BigInt(TDCALL_SCRATCH);
  yield* guest.storeBytes(scratch, digest);
  const { rax } = yield* tdcall("TDG.MR.RTMR.EXTEND", { rcx: scratch, rdx: BigInt(rtmr) });
  if (rax !== 0n) yield* reportFatalError(`TDG.MR.RTMR.EXTEND failed: 0x${rax.toString(16)}`);
}

/** Prepares `size` bytes at `base` as the event log and writes its first record. */
export function* initEventLog(base: number, size: number): Guest<void> {
  const log = new Uint8Array(size).fill(0xff);
  const first = encodeSpecIdEvent();
  log.set(first);
  yield* guest.storeBytes(BigInt(base), log);
  yield* updateState({ LogBase: base, LogSize: size, LogUsed: first.length });
}

/** Moves the log to `size` bytes at `base`. */
export function* moveEventLog(base: number, size: number): Guest<void> {
  const { LogBase, LogUsed } = yield* readState();
  const log = new Uint8Array(size).fill(0xff);
  log.set(yield* guest.loadBytes(BigInt(LogBase), LogUsed));
  yield* guest.storeBytes(BigInt(base), log);
  yield* updateState({ LogBase: base, LogSize: size });
}

/** Extends `digest` (mrIndex 1..4 for RTMR[0..3]) and logs it; a full log ends the TD: it could not be replayed. */
export function* extendAndLog(
  mrIndex: number,
  type: number,
  digest: Uint8Array,
  event: Uint8Array,
): Guest<void> {
  yield* extendRtmr(mrIndex - 1, digest);
  const { LogBase, LogSize, LogUsed } = yield* readState();
  const record = encodeCcEvent({ mrIndex, type, digest, event });
  if (LogUsed + record.length > LogSize) yield* reportFatalError("The event log is full");
  yield* guest.storeBytes(BigInt(LogBase + LogUsed), record);
  yield* updateState({ LogUsed: LogUsed + record.length });
}

/** Hashes `data`, extends and logs it. */
export const measure = (mrIndex: number, type: number, data: Uint8Array, event: Uint8Array): Guest<void> =>
  extendAndLog(mrIndex, type, sha384(data), event);

/** Data and event of EV_SEPARATOR. */
export const SEPARATOR = new Uint8Array(4);

/** A variable as it is measured. */
export interface Variable {
  name: string;
  guid: string;
  data: Uint8Array;
}

const UEFI_VARIABLE_DATA = struct("UEFI_VARIABLE_DATA", 32, {
  VariableName: bytes(0, 16),
  UnicodeNameLength: u64(16),
  VariableDataLength: u64(24),
});
/** UEFI_VARIABLE_DATA: GUID, lengths, the name without its NUL, the value. */
export function variableEvent({ name, guid, data }: Variable): Uint8Array {
  const text = encodeUcs2(name).subarray(0, 2 * name.length);
  const out = new Uint8Array(UEFI_VARIABLE_DATA.size + text.length + data.length);
  out.set(
    UEFI_VARIABLE_DATA.encode({
      VariableName: encodeGuid(guid),
      UnicodeNameLength: BigInt(name.length),
      VariableDataLength: BigInt(data.length),
    }),
  );
  out.set(text, UEFI_VARIABLE_DATA.size);
  out.set(data, UEFI_VARIABLE_DATA.size + text.length);
  return out;
}
