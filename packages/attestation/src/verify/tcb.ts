/**
 * TCB levels: which of the published levels a platform, its TDX module and its quoting enclave have.
 * Source: Intel PCS API v4, "TCB info", "Comparing TCB levels" and DCAP QuoteVerification.
 */
import type { SgxReportBody, TdQuoteBody10 } from "@swtdx/abi";
import { equal, fromHex, hex } from "../bytes.js";
import type { IsvSvnLevel, QeIdentity, TcbInfo, TcbStatus, TdxModule } from "../collateral/types.js";
import { worseTcbStatus } from "../collateral/types.js";
import type { SgxExtension } from "../pki/sgx-extension.js";

/** A level that was found, or why none was. */
export type LevelMatch =
  | { ok: true; status: TcbStatus; advisoryIDs: readonly string[]; detail: string }
  | { ok: false; detail: string };

const atLeast = (svns: Uint8Array, required: readonly { svn: number }[], from = 0): boolean =>
  required.every(({ svn }, i) => i < from || svns[i] >= svn);

/** The first level, from newest to oldest, all of whose SVNs the platform reaches. */
export function matchTcbLevel(tcbInfo: TcbInfo, pck: SgxExtension, teeTcbSvn: Uint8Array): LevelMatch {
  // TEE_TCB_SVN[0..1] are the module's SVN and major version; with a major version they are judged apart.
  const from = teeTcbSvn[1] > 0 ? 2 : 0;
  for (const level of tcbInfo.tcbLevels) {
    if (!atLeast(pck.tcb.components, level.tcb.sgxtcbcomponents)) continue;
    if (pck.tcb.pceSvn < level.tcb.pcesvn) continue;
    if (!atLeast(teeTcbSvn, level.tcb.tdxtcbcomponents, from)) continue;
    return {
      ok: true,
      status: level.tcbStatus,
      advisoryIDs: level.advisoryIDs ?? [],
      detail: `${level.tcbStatus}, level of ${level.tcbDate}`,
    };
  }
  return { ok: false, detail: "no published TCB level is as low as this platform's" };
}

const matchIsvSvn = (levels: readonly IsvSvnLevel[], svn: number): LevelMatch => {
  const level = levels.find(({ tcb }) => svn >= tcb.isvsvn);
  return level
    ? {
        ok: true,
        status: level.tcbStatus,
        advisoryIDs: level.advisoryIDs ?? [],
        detail: `SVN ${svn}: ${level.tcbStatus}, level of ${level.tcbDate}`,
      }
    : { ok: false, detail: `no published level is as low as SVN ${svn}` };
};

const u64le = (value: bigint): Uint8Array => {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, value, true);
  return out;
};
/** Bytes of a text that parse.ts has checked. */
const bytes = (text: string): Uint8Array => fromHex(text) ?? new Uint8Array();
const masked = (value: Uint8Array, mask: Uint8Array): Uint8Array => value.map((byte, i) => byte & mask[i]);

function moduleProblem(module: TdxModule, body: TdQuoteBody10): string | null {
  if (!equal(body.MRSIGNERSEAM, bytes(module.mrsigner)))
    return `MRSIGNERSEAM is ${hex(body.MRSIGNERSEAM)}, expected ${module.mrsigner.toLowerCase()}`;
  const mask = bytes(module.attributesMask);
  if (!equal(masked(u64le(body.SEAMATTRIBUTES), mask), masked(bytes(module.attributes), mask)))
    return `SEAMATTRIBUTES is 0x${body.SEAMATTRIBUTES.toString(16)}, expected ${module.attributes}`;
  return null;
}

/** Whether TCB info knows the TDX module, and the level of its SVN. */
export function matchTdxModule(tcbInfo: TcbInfo, body: TdQuoteBody10): LevelMatch {
  const [svn, major] = [body.TEE_TCB_SVN[0], body.TEE_TCB_SVN[1]];
  if (major === 0) {
    const problem = moduleProblem(tcbInfo.tdxModule, body);
    return problem
      ? { ok: false, detail: problem }
      : { ok: true, status: "UpToDate", advisoryIDs: [], detail: "major version 0: part of the TCB level" };
  }
  const id = `TDX_${major.toString(16).padStart(2, "0").toUpperCase()}`;
  const identity = tcbInfo.tdxModuleIdentities.find((known) => known.id.toUpperCase() === id);
  if (!identity) return { ok: false, detail: `TCB info has no TDX module identity ${id}` };
  const problem = moduleProblem(identity, body);
  if (problem) return { ok: false, detail: `${id}: ${problem}` };
  const match = matchIsvSvn(identity.tcbLevels, svn);
  return { ...match, detail: `${id}, ${match.detail}` };
}

/** Whether the quoting enclave is the one QE identity names; null when it is. */
export function qeIdentityProblem(identity: QeIdentity, report: SgxReportBody): string | null {
  if (!equal(report.MRSIGNER, bytes(identity.mrsigner)))
    return `MRSIGNER is ${hex(report.MRSIGNER)}, expected ${identity.mrsigner.toLowerCase()}`;
  if (report.ISVPRODID !== identity.isvprodid)
    return `ISVPRODID is ${report.ISVPRODID}, expected ${identity.isvprodid}`;
  const select = new Uint8Array(4);
  new DataView(select.buffer).setUint32(0, report.MISCSELECT, true);
  const selectMask = bytes(identity.miscselectMask);
  if (!equal(masked(select, selectMask), masked(bytes(identity.miscselect), selectMask)))
    return `MISCSELECT is ${hex(select)}, expected ${identity.miscselect}`;
  const mask = bytes(identity.attributesMask);
  if (!equal(masked(report.ATTRIBUTES, mask), masked(bytes(identity.attributes), mask)))
    return `ATTRIBUTES is ${hex(report.ATTRIBUTES)}, expected ${identity.attributes} under ${identity.attributesMask}`;
  return null;
}

/** The level of the quoting enclave's ISVSVN. */
export const matchQe = (identity: QeIdentity, report: SgxReportBody): LevelMatch =>
  matchIsvSvn(identity.tcbLevels, report.ISVSVN);

/**
 * The status of a platform one of whose parts (TDX module, quoting enclave) has a status of its own: an outdated
 * part makes an otherwise good platform outdated and keeps its need for configuration.
 */
export function convergeTcbStatus(platform: TcbStatus, part: TcbStatus): TcbStatus {
  if (part === "OutOfDate" || part === "OutOfDateConfigurationNeeded") {
    if (platform === "ConfigurationNeeded" || platform === "ConfigurationAndSWHardeningNeeded")
      return "OutOfDateConfigurationNeeded";
  }
  return worseTcbStatus(platform, part);
}
