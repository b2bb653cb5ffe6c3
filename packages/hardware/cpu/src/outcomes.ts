/** Outcomes that carry nothing of their own: shared objects, so that returning them allocates nothing. */
import type { Fault, Ok, VmFailInvalid, VmFailValid } from "./interface/outcome.js";

export const OK: Ok = { kind: "ok" };
export const FAIL_INVALID: VmFailInvalid = { kind: "failInvalid" };
export const UD: Fault = { kind: "fault", vector: 6, errorCode: null };
export const GP0: Fault = { kind: "fault", vector: 13, errorCode: 0 };
export const failValid = (error: number): VmFailValid => ({ kind: "failValid", error });
/** #PF with P and RSVD: a private KeyID outside SEAM. */
export const rsvdFault = (address: number, write: boolean): Fault => ({
  kind: "fault",
  vector: 14,
  errorCode: write ? 0xb : 9,
  address,
});
export const machineCheck = (address: number): Fault => ({
  kind: "fault",
  vector: 18,
  errorCode: null,
  address,
});
