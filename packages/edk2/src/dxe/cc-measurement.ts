/**
 * EFI_CC_MEASUREMENT_PROTOCOL: how boot loaders and kernels measure into the RTMRs.
 * Source: UEFI 2.10, ch. 38.2; OvmfPkg/Tcg/TdTcg2Dxe (edk2).
 */
import {
  EFI_CC_EVENT,
  EFI_STATUS,
  efiArguments,
  guest,
  type GuestProgram,
  mrIndexOfPcr,
  PE_COFF_IMAGE,
  parsePe,
  readStruct,
} from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { extendAndLog, extendRtmr } from "../lib/measure.js";
import { readState } from "../lib/state.js";
import { authenticodeSha384 } from "./authenticode.js";

const { SUCCESS, INVALID_PARAMETER, BUFFER_TOO_SMALL, UNSUPPORTED } = EFI_STATUS;

/** EFI_CC_BOOT_SERVICE_CAPABILITY: 20 bytes; SHA-384 only, TCG 2 format, CC type TDX. */
const CAPABILITY_SIZE = 20;
const HASH_SHA384 = 4;
const FORMAT_TCG_2 = 2;
const CC_TYPE_TDX = 2;
const MAX_EVENT = 0x1_0000;
/** EFI_CC_FLAG_EXTEND_ONLY: the event is not logged. */
const EXTEND_ONLY = 1n;
const MAX_DATA = 2 ** 30;

/** GetCapability(This, *ProtocolCapability). */
export const GetCapability: GuestProgram = function* (regs) {
  const size = yield* guest.load(regs.rdx, 1);
  if (size < BigInt(CAPABILITY_SIZE)) {
    yield* guest.store(regs.rdx, 1, BigInt(CAPABILITY_SIZE));
    return BUFFER_TOO_SMALL;
  }
  const out = new Uint8Array(CAPABILITY_SIZE);
  const view = new DataView(out.buffer);
  view.setUint8(0, CAPABILITY_SIZE);
  view.setUint8(1, 1);
  view.setUint8(3, 1);
  view.setUint32(8, HASH_SHA384, true);
  view.setUint32(12, FORMAT_TCG_2, true);
  view.setUint8(16, CC_TYPE_TDX);
  yield* guest.storeBytes(regs.rdx, out);
  return SUCCESS;
};

/** GetEventLog(This, EventLogFormat, *Location, *LastEntry, *Truncated). */
export const GetEventLog: GuestProgram = function* (regs) {
  const [, format, location, last, truncated] = yield* efiArguments(regs, 5);
  if (format !== BigInt(FORMAT_TCG_2)) return INVALID_PARAMETER;
  const { LogBase, LogUsed } = yield* readState();
  if (location) yield* guest.store(location, 8, BigInt(LogBase));
  if (last) yield* guest.store(last, 8, BigInt(LogBase + LogUsed));
  if (truncated) yield* guest.store(truncated, 1, 0n);
  return SUCCESS;
};

/** HashLogExtendEvent(This, Flags, DataToHash, DataToHashLen, *Event). */
export const HashLogExtendEvent: GuestProgram = function* (regs) {
  const [, flags, data, length, eventPointer] = yield* efiArguments(regs, 5);
  if (!eventPointer || length === undefined || length > BigInt(MAX_DATA)) return INVALID_PARAMETER;
  const event = yield* readStruct(eventPointer, EFI_CC_EVENT);
  if (event.Size < EFI_CC_EVENT.size || event.Size > MAX_EVENT || event.MrIndex < 1 || event.MrIndex > 4)
    return INVALID_PARAMETER;
  const bytes = yield* guest.loadBytes(data, Number(length));
  let digest: Uint8Array;
  if ((flags & PE_COFF_IMAGE) !== 0n) {
    const image = parsePe(bytes);
    if ("error" in image) return UNSUPPORTED;
    digest = authenticodeSha384(bytes, image);
  } else {
    digest = sha384(bytes);
  }
  const tail = yield* guest.loadBytes(
    eventPointer + BigInt(EFI_CC_EVENT.size),
    event.Size - EFI_CC_EVENT.size,
  );
  if ((flags & EXTEND_ONLY) !== 0n) yield* extendRtmr(event.MrIndex - 1, digest);
  else yield* extendAndLog(event.MrIndex, event.EventType, digest, tail);
  return SUCCESS;
};

/** MapPcrToMrIndex(This, PcrIndex, *MrIndex). */
export const MapPcrToMrIndex: GuestProgram = function* (regs) {
  const index = mrIndexOfPcr(Number(regs.rdx & 0xffff_ffffn));
  if (index === null) return INVALID_PARAMETER;
  yield* guest.store(regs.r8, 4, BigInt(index));
  return SUCCESS;
};
