/**
 * Images: the TDX module with its signature structure, and the NP-SEAMLDR (ACM) with the P-SEAMLDR in it. Both are
 * program images (abi's program-image.ts): the bytes name the TypeScript program that a processor runs from them, and
 * the module's bytes are what MRSEAM measures.
 */
import { encodeProgramImage, PAGE_SIZE, struct, u16, u8 } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { MAX_RESERVED_PER_TDMR, MAX_TDMRS, MODULE_VERSION } from "../version.js";
import { PAMT_ENTRY_SIZE } from "../structures/pamt.js";
import { MODULE_TYPE_DEBUG, SEAM_SIGSTRUCT, SIGSTRUCT_HEADER, signSigstruct } from "./sigstruct.js";
import { encodeSysInfoTable, type PlatformInfo } from "./sysinfo-table.js";

export const TDX_MODULE_PROGRAM = "@swtdx/tdx-module:tdx-module";
export const P_SEAMLDR_PROGRAM = "@swtdx/tdx-module:p-seamldr";

/** A module to load: its bytes and its SEAM_SIGSTRUCT. */
export interface ModuleImage {
  readonly image: Uint8Array;
  readonly sigstruct: Uint8Array;
}

/** Whole pages. */
const pad = (image: Uint8Array): Uint8Array => {
  const out = new Uint8Array(Math.ceil(image.length / PAGE_SIZE) * PAGE_SIZE);
  out.set(image);
  return out;
};

const VERSION_STRUCT = struct("MODULE_VERSION", 16, {
  MAJOR: u16(0),
  MINOR: u16(2),
  UPDATE: u16(4),
  BUILD: u16(6),
  SVN: u8(8),
});

export interface ModuleOptions {
  /** Security version number, 0-255; TEE_TCB_SVN[0]. */
  readonly svn?: number;
  /** Signed for platforms under debug only. */
  readonly debug?: boolean;
  /** CPUID(1).EAX of the processors it is for; none: all. */
  readonly processors?: readonly number[];
}

/** A module image with its signed SEAM_SIGSTRUCT. */
export function buildModuleImage({
  svn = 5,
  debug = false,
  processors = [],
}: ModuleOptions = {}): ModuleImage {
  const version = VERSION_STRUCT.encode({
    MAJOR: MODULE_VERSION.MAJOR,
    MINOR: MODULE_VERSION.MINOR,
    UPDATE: MODULE_VERSION.UPDATE,
    BUILD: MODULE_VERSION.BUILD_NUM,
    SVN: svn,
  });
  const image = pad(encodeProgramImage(TDX_MODULE_PROGRAM, version));
  const sigstruct = SEAM_SIGSTRUCT.encode({
    ...SIGSTRUCT_HEADER,
    MODULE_TYPE: debug ? MODULE_TYPE_DEBUG : 0,
    DATE: MODULE_VERSION.BUILD_DATE,
    SEAMHASH: sha384(image),
    SEAMSVN: (MODULE_VERSION.MAJOR << 8) | svn,
    MAX_TDMRS,
    MAX_RSVD_PER_TDMR: MAX_RESERVED_PER_TDMR,
    PAMT_ENTRY_SIZE_4K: PAMT_ENTRY_SIZE,
    PAMT_ENTRY_SIZE_2M: PAMT_ENTRY_SIZE,
    PAMT_ENTRY_SIZE_1G: PAMT_ENTRY_SIZE,
    CPUID_TABLE_SIZE: processors.length,
    CPUID_TABLE: processors,
  });
  signSigstruct(sigstruct);
  return { image, sigstruct };
}

/**
 * The NP-SEAMLDR module that BIOS or OS launches by GETSEC[ENTERACCS]: the P-SEAMLDR, and behind its header the
 * P_SYSINFO_TABLE with what MCHECK found.
 */
export const buildSeamldrAcm = (platform: PlatformInfo): Uint8Array =>
  encodeProgramImage(P_SEAMLDR_PROGRAM, encodeSysInfoTable(platform));
/** Offset of the P_SYSINFO_TABLE in that image. */
export const ACM_SYSINFO_OFFSET = encodeProgramImage(P_SEAMLDR_PROGRAM).length;
