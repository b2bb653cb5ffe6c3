/**
 * Leaf numbers of the TDX module's interface functions: TDH (SEAMCALL, host side) and TDG (TDCALL, guest side).
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h. P-SEAMLDR's: seamldr.ts.
 */

/** RAX[15:0] of SEAMCALL. */
export const SEAMCALL_LEAF = {
  "TDH.VP.ENTER": 0,
  "TDH.MNG.ADDCX": 1,
  "TDH.MEM.PAGE.ADD": 2,
  "TDH.MEM.SEPT.ADD": 3,
  "TDH.VP.ADDCX": 4,
  "TDH.MEM.PAGE.RELOCATE": 5,
  "TDH.MEM.PAGE.AUG": 6,
  "TDH.MEM.RANGE.BLOCK": 7,
  "TDH.MNG.KEY.CONFIG": 8,
  "TDH.MNG.CREATE": 9,
  "TDH.VP.CREATE": 10,
  "TDH.MNG.RD": 11,
  "TDH.MEM.RD": 12,
  "TDH.MNG.WR": 13,
  "TDH.MEM.WR": 14,
  "TDH.MEM.PAGE.DEMOTE": 15,
  "TDH.MR.EXTEND": 16,
  "TDH.MR.FINALIZE": 17,
  "TDH.VP.FLUSH": 18,
  "TDH.MNG.VPFLUSHDONE": 19,
  "TDH.MNG.KEY.FREEID": 20,
  "TDH.MNG.INIT": 21,
  "TDH.VP.INIT": 22,
  "TDH.MEM.PAGE.PROMOTE": 23,
  "TDH.PHYMEM.PAGE.RDMD": 24,
  "TDH.MEM.SEPT.RD": 25,
  "TDH.VP.RD": 26,
  "TDH.MNG.KEY.RECLAIMID": 27,
  "TDH.PHYMEM.PAGE.RECLAIM": 28,
  "TDH.MEM.PAGE.REMOVE": 29,
  "TDH.MEM.SEPT.REMOVE": 30,
  "TDH.SYS.KEY.CONFIG": 31,
  "TDH.SYS.INFO": 32,
  "TDH.SYS.INIT": 33,
  "TDH.SYS.RD": 34,
  "TDH.SYS.LP.INIT": 35,
  "TDH.SYS.TDMR.INIT": 36,
  "TDH.SYS.RDALL": 37,
  "TDH.MEM.TRACK": 38,
  "TDH.MEM.RANGE.UNBLOCK": 39,
  "TDH.PHYMEM.CACHE.WB": 40,
  "TDH.PHYMEM.PAGE.WBINVD": 41,
  "TDH.MEM.SEPT.WR": 42,
  "TDH.VP.WR": 43,
  "TDH.SYS.LP.SHUTDOWN": 44,
  "TDH.SYS.CONFIG": 45,
  "TDH.SERVTD.BIND": 48,
  "TDH.SERVTD.PREBIND": 49,
  "TDH.SYS.SHUTDOWN": 52,
  "TDH.SYS.UPDATE": 53,
  "TDH.EXPORT.ABORT": 64,
  "TDH.EXPORT.BLOCKW": 65,
  "TDH.EXPORT.RESTORE": 66,
  "TDH.EXPORT.MEM": 68,
  "TDH.EXPORT.PAUSE": 70,
  "TDH.EXPORT.TRACK": 71,
  "TDH.EXPORT.STATE.IMMUTABLE": 72,
  "TDH.EXPORT.STATE.TD": 73,
  "TDH.EXPORT.STATE.VP": 74,
  "TDH.EXPORT.UNBLOCKW": 75,
  "TDH.IMPORT.ABORT": 80,
  "TDH.IMPORT.END": 81,
  "TDH.IMPORT.COMMIT": 82,
  "TDH.IMPORT.MEM": 83,
  "TDH.IMPORT.TRACK": 84,
  "TDH.IMPORT.STATE.IMMUTABLE": 85,
  "TDH.IMPORT.STATE.TD": 86,
  "TDH.IMPORT.STATE.VP": 87,
  "TDH.MIG.STREAM.CREATE": 96,
} as const;
export type SeamcallName = keyof typeof SEAMCALL_LEAF;

/** RAX[15:0] of TDCALL. */
export const TDCALL_LEAF = {
  "TDG.VP.VMCALL": 0,
  "TDG.VP.INFO": 1,
  "TDG.MR.RTMR.EXTEND": 2,
  "TDG.VP.VEINFO.GET": 3,
  "TDG.MR.REPORT": 4,
  "TDG.VP.CPUIDVE.SET": 5,
  "TDG.MEM.PAGE.ACCEPT": 6,
  "TDG.VM.RD": 7,
  "TDG.VM.WR": 8,
  "TDG.VP.RD": 9,
  "TDG.VP.WR": 10,
  "TDG.SYS.RD": 11,
  "TDG.SYS.RDALL": 12,
  "TDG.SERVTD.RD": 18,
  "TDG.SERVTD.WR": 20,
  "TDG.MR.VERIFYREPORT": 22,
  "TDG.MEM.PAGE.ATTR.RD": 23,
  "TDG.MEM.PAGE.ATTR.WR": 24,
  "TDG.VP.ENTER": 25,
  "TDG.VP.INVEPT": 26,
  "TDG.VP.INVVPID": 27,
} as const;
export type TdcallName = keyof typeof TDCALL_LEAF;

const seamcallNames = new Map<number, SeamcallName>(
  Object.entries(SEAMCALL_LEAF).map(([name, leaf]) => [leaf, name as SeamcallName]),
);
const tdcallNames = new Map<number, TdcallName>(
  Object.entries(TDCALL_LEAF).map(([name, leaf]) => [leaf, name as TdcallName]),
);

/** @returns the function's name, or null when no function has this leaf number. */
export const seamcallName = (leaf: number): SeamcallName | null => seamcallNames.get(leaf) ?? null;
/** @returns the function's name, or null when no function has this leaf number. */
export const tdcallName = (leaf: number): TdcallName | null => tdcallNames.get(leaf) ?? null;

/** RAX as SEAMCALL and TDCALL take it. */
export interface LeafAndVersion {
  /** RAX[15:0]. */
  readonly leaf: number;
  /** RAX[23:16]: the version of the function's operands. */
  readonly version: number;
  /** RAX[62:24]; the module answers OPERAND_INVALID | RAX unless it is zero. */
  readonly reserved: bigint;
  /** RAX[63] of SEAMCALL: 1 addresses the P-SEAMLDR instead of the TDX module. */
  readonly pSeamldr: boolean;
}

export const decodeLeaf = (rax: bigint): LeafAndVersion => ({
  leaf: Number(rax & 0xffffn),
  version: Number((rax >> 16n) & 0xffn),
  reserved: (rax >> 24n) & 0x7f_ffff_ffffn,
  pSeamldr: ((rax >> 63n) & 1n) === 1n,
});

/** RAX for a function of the TDX module. */
export const encodeLeaf = (leaf: number, version = 0): bigint => BigInt(leaf | (version << 16));
