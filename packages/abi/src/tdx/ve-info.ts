/**
 * The virtualization-exception information area as the TDX module keeps it in TDVPS, and what TDG.VP.VEINFO.GET
 * returns. SDM vol. 3, "Virtualization-Exception Information"; intel/tdx-module src/common/data_structures/tdx_tdvps.h.
 */
import { struct, u16, u32, u64, type StructOf } from "../struct.js";

/** VALID while the area is in use: the processor then makes no #VE of an EPT violation. */
export const VE_INFO_VALID = 0xffff_ffff;

export const VE_INFO = struct("VE_INFO", 128, {
  EXIT_REASON: u32(0x00),
  /** VE_INFO_VALID or 0. */
  VALID: u32(0x04),
  EXIT_QUALIFICATION: u64(0x08),
  GLA: u64(0x10),
  GPA: u64(0x18),
  EPTP_INDEX: u16(0x20),
  /** From here on the module's own, set only for a #VE which it injects. */
  INSTRUCTION_LENGTH: u32(0x24),
  INSTRUCTION_INFORMATION: u32(0x28),
});
export type VeInfo = StructOf<typeof VE_INFO>;
