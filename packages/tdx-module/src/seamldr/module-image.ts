/**
 * Images: the TDX module with its signature structure, and the NP-SEAMLDR (ACM) with the P-SEAMLDR in it. Both are
 * program images (abi's program-image.ts): the bytes name the TypeScript program that a processor runs from them, and
 * the module's bytes are what MRSEAM measures.
 */
import { array, bytes, encodeProgramImage, struct, u16, u32, u64, u8 } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { MODULE_VERSION } from "../version.js";
import { encodeSysInfoTable, type PlatformInfo } from "./sysinfo-table.js";

export const TDX_MODULE_PROGRAM = "@swtdx/tdx-module:tdx-module";
export const P_SEAMLDR_PROGRAM = "@swtdx/tdx-module:p-seamldr";

/** SEAM_SIGSTRUCT: the fields that the loader uses. Signature fields are zero: the platform's root of trust is private. */
export const SEAM_SIGSTRUCT = struct("SEAM_SIGSTRUCT", 2048, {
  HEADER_TYPE: u32(0),
  HEADER_LENGTH: u32(4),
  HEADER_VERSION: u32(8),
  /** Bit 31: debug. */
  MODULE_TYPE: u32(12),
  MODULE_VENDOR: u32(16),
  DATE: u32(20),
  SIZE: u32(24),
  SEAMHASH: bytes(896, 48),
  /** 16-bit: bits 7:0 minor SVN, 15:8 major SVN. */
  SEAMSVN: u16(944),
  ATTRIBUTES: u64(952),
  NUM_STACK_PAGES: u32(976),
  NUM_TLS_PAGES: u32(980),
  NUM_KEYHOLE_PAGES: u32(984),
  NUM_GLOBAL_DATA_PAGES: u32(988),
  CPUID_TABLE_SIZE: u32(1020),
  CPUID_TABLE: array(1024, 255, u32),
});
/** Vendor of Intel's modules. */
export const MODULE_VENDOR_INTEL = 0x8086;

/** A module to load: its bytes and its SEAM_SIGSTRUCT. */
export interface ModuleImage {
  readonly image: Uint8Array;
  readonly sigstruct: Uint8Array;
}

const PAGE = 4096;
const pad = (image: Uint8Array): Uint8Array => {
  const out = new Uint8Array(Math.ceil(image.length / PAGE) * PAGE);
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

/** @param svn security version number, 0-255; in TEE_TCB_SVN[0] */
export function buildModuleImage({ svn = 5 }: { svn?: number } = {}): ModuleImage {
  const version = VERSION_STRUCT.encode({
    MAJOR: MODULE_VERSION.MAJOR,
    MINOR: MODULE_VERSION.MINOR,
    UPDATE: MODULE_VERSION.UPDATE,
    BUILD: MODULE_VERSION.BUILD_NUM,
    SVN: svn,
  });
  const image = pad(encodeProgramImage(TDX_MODULE_PROGRAM, version));
  const sigstruct = SEAM_SIGSTRUCT.encode({
    HEADER_TYPE: 6,
    HEADER_LENGTH: 225,
    HEADER_VERSION: 0x10000,
    MODULE_VENDOR: MODULE_VENDOR_INTEL,
    DATE: MODULE_VERSION.BUILD_DATE,
    SIZE: 512,
    SEAMHASH: sha384(image),
    SEAMSVN: (MODULE_VERSION.MAJOR << 8) | svn,
  });
  return { image, sigstruct };
}

/**
 * The NP-SEAMLDR module that BIOS or OS launches by GETSEC[ENTERACCS]: the P-SEAMLDR, and behind its header the
 * SYSINFO_TABLE with what MCHECK found.
 */
export const buildSeamldrAcm = (platform: PlatformInfo): Uint8Array =>
  encodeProgramImage(P_SEAMLDR_PROGRAM, encodeSysInfoTable(platform));
/** Offset of the SYSINFO_TABLE in that image. */
export const ACM_SYSINFO_OFFSET = encodeProgramImage(P_SEAMLDR_PROGRAM).length;
