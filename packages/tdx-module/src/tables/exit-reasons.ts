/**
 * Basic VM exit reasons that the dispatcher distinguishes: the processor's, and those that this processor never gives.
 * SDM vol. 3D appendix C.
 */
import { ExitReason as ProcessorExitReason } from "@swtdx/cpu";

export const ExitReason = {
  ...ProcessorExitReason,
  SMI: 6,
  C_STATE_SMI: 42,
  ENQCMD_PASID: 72,
  ENQCMDS_PASID: 73,
} as const;

const EXIT_REASON_NAMES = new Map<number, string>(Object.entries(ExitReason).map(([name, n]) => [n, name]));
/** Name of a basic exit reason, for the trace. */
export const exitReasonName = (reason: number): string =>
  EXIT_REASON_NAMES.get(reason & 0xffff) ?? String(reason & 0xffff);
