/** What a relying party demands of a TD beyond the quote being genuine. */
import type { QuoteBody } from "../quote/quote.js";
import { equal, hex, isZero } from "../bytes.js";
import type { TcbStatus } from "../collateral/types.js";
import type { Problem } from "./chain.js";

export interface Policy {
  /** TCB statuses to accept; default UpToDate and SWHardeningNeeded. */
  acceptedTcbStatuses?: readonly TcbStatus[];
  /** Accept TDs that the host can debug (ATTRIBUTES.DEBUG); default false. */
  allowDebug?: boolean;
  /** Demand ATTRIBUTES.SEPT_VE_DISABLE; default true. */
  requireSeptVeDisable?: boolean;
  /** Expected values, each of its field's full size in bytes. */
  reportData?: Uint8Array;
  mrtd?: Uint8Array;
  mrConfigId?: Uint8Array;
  mrOwner?: Uint8Array;
  mrOwnerConfig?: Uint8Array;
  mrSeam?: Uint8Array;
  /** By index; undefined accepts any. */
  rtmr?: readonly (Uint8Array | undefined)[];
}

export const DEFAULT_TCB_STATUSES: readonly TcbStatus[] = ["UpToDate", "SWHardeningNeeded"];

/** TDATTRIBUTES, TUD (TD under debug): bit 0 is DEBUG, 7:1 are reserved. */
const DEBUG = 0x01n;
const TUD_RESERVED = 0xfen;
/** SEC: bits 27:8 and 29 are reserved, 28 is SEPT_VE_DISABLE, 30 PKS, 31 KL; OTHER: 62:32 reserved, 63 PERFMON. */
const SEPT_VE_DISABLE = 1n << 28n;
const RESERVED = TUD_RESERVED | 0x0fff_ff00n | (1n << 29n) | 0x7fff_ffff_0000_0000n;

/** TDATTRIBUTES of a TD that protects its secrets. */
export function attributesProblem(attributes: bigint, policy: Policy): Problem {
  if (attributes & DEBUG && !policy.allowDebug) return "TDATTRIBUTES.DEBUG is set: the host can read the TD";
  const reserved = attributes & RESERVED;
  if (reserved) return `TDATTRIBUTES has the bits 0x${reserved.toString(16)} set, which must be 0`;
  if (!(attributes & SEPT_VE_DISABLE) && (policy.requireSeptVeDisable ?? true))
    return "TDATTRIBUTES.SEPT_VE_DISABLE is clear, expected 1";
  return null;
}

/** Fields of the body that must have an expected value. */
export function expectedProblem(body: QuoteBody, policy: Policy): Problem {
  const { fields } = body;
  if (body.kind === "TD_15" && !isZero(body.fields.MRSERVICETD))
    return `MRSERVICETD is ${hex(body.fields.MRSERVICETD)}, expected zeros (no service TD)`;
  const expected: readonly [string, Uint8Array, Uint8Array | undefined][] = [
    ["REPORTDATA", fields.REPORTDATA, policy.reportData],
    ["MRTD", fields.MRTD, policy.mrtd],
    ["MRCONFIGID", fields.MRCONFIGID, policy.mrConfigId],
    ["MROWNER", fields.MROWNER, policy.mrOwner],
    ["MROWNERCONFIG", fields.MROWNERCONFIG, policy.mrOwnerConfig],
    ["MRSEAM", fields.MRSEAM, policy.mrSeam],
    ["RTMR0", fields.RTMR0, policy.rtmr?.[0]],
    ["RTMR1", fields.RTMR1, policy.rtmr?.[1]],
    ["RTMR2", fields.RTMR2, policy.rtmr?.[2]],
    ["RTMR3", fields.RTMR3, policy.rtmr?.[3]],
  ];
  for (const [name, value, want] of expected)
    if (want && !equal(value, want)) return `${name} is ${hex(value)}, expected ${hex(want)}`;
  return null;
}
