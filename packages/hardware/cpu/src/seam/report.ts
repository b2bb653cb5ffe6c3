/**
 * Reports: SEAMREPORT, SEAMDB, SEAMVERIFYREPORT, EVERIFYREPORT2.
 * Intel TDX Module Architecture Specification "Measurement and attestation", SDM vol. 3D (EVERIFYREPORT2); layouts:
 * @swtdx/abi tdx/tdreport.ts. The MAC is HMAC-SHA-256 with a key that only this processor has; how Intel derives
 * it is not published.
 */
import { REPORTMACSTRUCT, REPORTMACSTRUCT_MACED_SIZE, TEE_TCB_INFO, TEE_TYPE } from "@swtdx/abi";
import { hmacSha256, sha384 } from "@swtdx/crypto";
import type { RandomSource } from "../interface/processor.js";
import {
  SeamOpsStatus,
  type SeamExtend,
  type SeamReport,
  type SeamReportRequest,
} from "../interface/seam.js";

/** An entry of the SEAM database: a module that has run since the database was cleared. */
interface SeamDbEntry {
  readonly nonce: Uint8Array;
  readonly extend: SeamExtend;
}
const SEAMDB_SIZE = 256;

export const emptySeamExtend = (): SeamExtend => ({
  valid: 0n,
  teeTcbSvn: new Uint8Array(16),
  mrSeam: new Uint8Array(48),
  mrSignerSeam: new Uint8Array(48),
  attributes: 0n,
  teeTcbSvn2: new Uint8Array(16),
  seamReady: false,
  pSeamldrReady: false,
  systemUnderDebug: false,
});
export const copySeamExtend = (value: SeamExtend): SeamExtend => ({
  ...value,
  teeTcbSvn: value.teeTcbSvn.slice(),
  mrSeam: value.mrSeam.slice(),
  mrSignerSeam: value.mrSignerSeam.slice(),
  teeTcbSvn2: value.teeTcbSvn2.slice(),
});

export class ReportUnit {
  readonly #key: Uint8Array;
  readonly #random: RandomSource;
  #database: SeamDbEntry[] = [];
  extend = emptySeamExtend();

  /** @param cpuSvn 16 bytes */
  constructor(
    random: RandomSource,
    readonly cpuSvn: Uint8Array,
  ) {
    this.#random = random.fork("report");
    this.#key = this.#random.bytes(32);
  }
  reset(): void {
    this.extend = emptySeamExtend();
    this.#database = [];
  }

  #report(request: SeamReportRequest, extend: SeamExtend): SeamReport {
    const teeTcbInfo = TEE_TCB_INFO.encode({
      VALID: extend.valid,
      TEE_TCB_SVN: extend.teeTcbSvn,
      MRSEAM: extend.mrSeam,
      MRSIGNERSEAM: extend.mrSignerSeam,
      ATTRIBUTES: extend.attributes,
      TEE_TCB_SVN2: this.extend.teeTcbSvn2,
    });
    const { type, subtype, version } = request.reportType;
    const reportMacStruct = REPORTMACSTRUCT.encode({
      REPORTTYPE: { TYPE: type, SUBTYPE: subtype, VERSION: version, RESERVED: 0 },
      CPUSVN: this.cpuSvn,
      TEE_TCB_INFO_HASH: sha384(teeTcbInfo),
      TEE_INFO_HASH: request.teeInfoHash,
      REPORTDATA: request.reportData,
    });
    reportMacStruct.set(this.#mac(reportMacStruct), REPORTMACSTRUCT_MACED_SIZE);
    return { reportMacStruct, teeTcbInfo };
  }
  #mac(reportMacStruct: Uint8Array): Uint8Array {
    return hmacSha256(this.#key, reportMacStruct.subarray(0, REPORTMACSTRUCT_MACED_SIZE));
  }

  seamreport(request: SeamReportRequest): SeamReport {
    return this.#report(request, this.extend);
  }
  seamdbClear(): number {
    this.#database = [];
    return SeamOpsStatus.SUCCESS;
  }
  /** Adds what SEAMEXTEND holds now, with a new nonce. */
  seamdbInsert(): number {
    if (this.#database.length >= SEAMDB_SIZE) return SeamOpsStatus.DATABASE_ERROR;
    this.#database.push({ nonce: this.#random.bytes(32), extend: copySeamExtend(this.extend) });
    return SeamOpsStatus.SUCCESS;
  }
  /** The newest entry; without one, index 0 with a zero nonce: the current SEAMEXTEND. */
  seamdbGetref(): { index: bigint; nonce: Uint8Array; size: bigint } {
    const last = this.#database.length - 1;
    const entry = this.#database[last];
    return {
      index: BigInt(Math.max(last, 0)),
      nonce: entry ? entry.nonce.slice() : new Uint8Array(32),
      size: BigInt(this.#database.length),
    };
  }
  seamdbReport(
    request: SeamReportRequest,
    index: bigint,
    nonce: Uint8Array,
  ): SeamReport | { status: number } {
    const entry = this.#database[Number(index)];
    if (!entry) {
      if (index === 0n && this.#database.length === 0 && nonce.every((byte) => byte === 0))
        return this.seamreport(request);
      return { status: SeamOpsStatus.DATABASE_ERROR };
    }
    if (nonce.length !== 32 || entry.nonce.some((byte, i) => byte !== nonce[i]))
      return { status: SeamOpsStatus.DATABASE_ERROR };
    return this.#report(request, entry.extend);
  }

  /** Checks a REPORTMACSTRUCT's MAC: RAX of SEAMOPS[SEAMVERIFYREPORT]. */
  verify(reportMacStruct: Uint8Array): number {
    if (reportMacStruct.length !== REPORTMACSTRUCT.size) return SeamOpsStatus.INPUT_ERROR;
    const report = REPORTMACSTRUCT.decode(reportMacStruct);
    if (
      report.REPORTTYPE.TYPE !== TEE_TYPE.TDX ||
      report.REPORTTYPE.RESERVED !== 0 ||
      report.RESERVED_0.some((byte) => byte !== 0) ||
      report.RESERVED_1.some((byte) => byte !== 0)
    )
      return SeamOpsStatus.INVALID_REPORTMACSTRUCT;
    // A CPUSVN above the processor's own cannot be derived.
    if (report.CPUSVN.some((byte, i) => byte > this.cpuSvn[i])) return SeamOpsStatus.INVALID_CPUSVN;
    const expected = this.#mac(reportMacStruct);
    let different = 0;
    for (let i = 0; i < 32; i++) different |= expected[i] ^ report.MAC[i];
    return different === 0 ? SeamOpsStatus.SUCCESS : SeamOpsStatus.INVALID_REPORTMACSTRUCT;
  }
}
