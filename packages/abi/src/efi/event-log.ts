/**
 * The confidential-computing event log as TDVF writes it: TCG crypto-agile records with SHA-384 digests only.
 * Source: TCG PC Client Platform Firmware Profile 1.06, ch. 10; UEFI 2.10, ch. 38.4; event types: ch. 10.4.1.
 */
import { bytes, struct, u16, u32, u8, viewOf } from "../struct.js";

/** TPM algorithm identifier of SHA-384. */
export const TPM_ALG_SHA384 = 0x000c;
export const SHA384_SIZE = 48;

export const EV = {
  NO_ACTION: 0x0000_0003,
  SEPARATOR: 0x0000_0004,
  EVENT_TAG: 0x0000_0006,
  PLATFORM_CONFIG_FLAGS: 0x0000_000a,
  IPL: 0x0000_000d,
  EFI_VARIABLE_DRIVER_CONFIG: 0x8000_0001,
  EFI_VARIABLE_BOOT: 0x8000_0002,
  EFI_BOOT_SERVICES_APPLICATION: 0x8000_0003,
  EFI_BOOT_SERVICES_DRIVER: 0x8000_0004,
  EFI_RUNTIME_SERVICES_DRIVER: 0x8000_0005,
  EFI_GPT_EVENT: 0x8000_0006,
  EFI_ACTION: 0x8000_0007,
  EFI_PLATFORM_FIRMWARE_BLOB: 0x8000_0008,
  EFI_HANDOFF_TABLES: 0x8000_0009,
  EFI_PLATFORM_FIRMWARE_BLOB2: 0x8000_000a,
  EFI_HANDOFF_TABLES2: 0x8000_000b,
  EFI_VARIABLE_BOOT2: 0x8000_000c,
  EFI_VARIABLE_AUTHORITY: 0x8000_00e0,
} as const;

/** The name of an event type as tools print it, or its number. */
export const eventTypeName = (type: number): string => {
  const name = Object.entries(EV).find(([, value]) => value === type)?.[0];
  return name ? `EV_${name}` : `0x${type.toString(16)}`;
};

/** The measurement register of a PCR: 0 is MRTD, 1..4 are RTMR[0..3] (UEFI 2.10, table 38.1 for TDX). */
export function mrIndexOfPcr(pcr: number): number | null {
  if (pcr === 0) return 0;
  if (pcr === 1 || pcr === 7) return 1;
  if (pcr >= 2 && pcr <= 6) return 2;
  if (pcr >= 8 && pcr <= 15) return 3;
  return null;
}

/** TCG_PCR_EVENT, the first record's SHA-1 form, up to its event. */
export const TCG_PCR_EVENT = struct("TCG_PCR_EVENT", 32, {
  PCRIndex: u32(0),
  EventType: u32(4),
  Digest: bytes(8, 20),
  EventSize: u32(28),
});

/** TCG_EfiSpecIdEvent with one algorithm, SHA-384, and no vendor information. */
export const TCG_EfiSpecIDEvent = struct("TCG_EfiSpecIDEvent", 33, {
  signature: bytes(0, 16),
  platformClass: u32(16),
  specVersionMinor: u8(20),
  specVersionMajor: u8(21),
  specErrata: u8(22),
  uintnSize: u8(23),
  numberOfAlgorithms: u32(24),
  algorithmId: u16(28),
  digestSize: u16(30),
  vendorInfoSize: u8(32),
});

/** TCG_PCR_EVENT2 with one SHA-384 digest, up to its event; as CC_EVENT its first field is the MR index. */
export const CC_EVENT = struct("CC_EVENT", 66, {
  MrIndex: u32(0),
  EventType: u32(4),
  DigestCount: u32(8),
  AlgorithmId: u16(12),
  Digest: bytes(14, 48),
  EventSize: u32(62),
});

/** One measurement. */
export interface CcEvent {
  /** 1..4 for RTMR[0..3]. */
  mrIndex: number;
  type: number;
  /** SHA-384, 48 bytes. */
  digest: Uint8Array;
  /** The event's bytes. */
  event: Uint8Array;
}

/** The log's first record, which says that every digest is SHA-384. */
export function encodeSpecIdEvent(): Uint8Array {
  const signature = new Uint8Array(16);
  signature.set(new TextEncoder().encode("Spec ID Event03"));
  const event = TCG_EfiSpecIDEvent.encode({
    signature,
    specVersionMajor: 2,
    uintnSize: 2,
    numberOfAlgorithms: 1,
    algorithmId: TPM_ALG_SHA384,
    digestSize: SHA384_SIZE,
  });
  const out = new Uint8Array(TCG_PCR_EVENT.size + event.length);
  TCG_PCR_EVENT.write(viewOf(out), { PCRIndex: 1, EventType: EV.NO_ACTION, EventSize: event.length });
  out.set(event, TCG_PCR_EVENT.size);
  return out;
}

/** One record of the log. */
export function encodeCcEvent(event: CcEvent): Uint8Array {
  const out = new Uint8Array(CC_EVENT.size + event.event.length);
  CC_EVENT.write(viewOf(out), {
    MrIndex: event.mrIndex,
    EventType: event.type,
    DigestCount: 1,
    AlgorithmId: TPM_ALG_SHA384,
    Digest: event.digest,
    EventSize: event.event.length,
  });
  out.set(event.event, CC_EVENT.size);
  return out;
}
