/**
 * Collateral for a platform of a private hierarchy, good or bad on purpose. What is bad is bad in the way Intel
 * would publish it: a TCB recovery, a revoked certificate, a list that was not renewed.
 */
import { hex, utf8 } from "../bytes.js";
import { issueCrl } from "../pki/crl.js";
import { sign } from "../pki/ecdsa.js";
import { COMMON_NAME } from "../pki/names.js";
import type { Pki } from "../pki/pki.js";
import { QE_ATTRIBUTES, QE_ISVPRODID, QE_ISVSVN, QE_MRSIGNER } from "../qe/identity.js";
import type {
  Collateral,
  IsvSvnLevel,
  QeIdentity,
  TcbComponent,
  TcbInfo,
  TcbLevel,
  TcbStatus,
} from "./types.js";

export interface CollateralOptions {
  /** When it is published. */
  issueDate: Date;
  /** When the next is due; default 30 days later, as Intel's. Earlier than now: expired collateral. */
  nextUpdate?: Date;
  /** The status of this platform's TCB; default UpToDate. Anything but UpToDate comes with advisories. */
  tcbStatus?: TcbStatus;
  /** The status of the quoting enclave's ISVSVN; default UpToDate. */
  qeTcbStatus?: TcbStatus;
  /** The status of the TDX module's SVN; default UpToDate. */
  tdxModuleStatus?: TcbStatus;
  /** TEE_TCB_SVN of the current TDX module, 16 bytes: [0] SVN, [1] major version, [2] SEAM microcode SVN. */
  teeTcbSvn?: Uint8Array;
  /** MRSIGNERSEAM, 48 bytes; Intel-signed modules have zeros. */
  mrSignerSeam?: Uint8Array;
  /** Another family of processors, 6 bytes: a quote of this platform must be refused. */
  fmspc?: Uint8Array;
  /** Certificates to put on their issuer's CRL. */
  revoked?: readonly ("pck" | "platformCa" | "tcbSigning")[];
  tcbEvaluationDataNumber?: number;
  /** Last changes before signing. */
  editTcbInfo?: (tcbInfo: TcbInfo) => void;
  editQeIdentity?: (identity: QeIdentity) => void;
}

/** TEE_TCB_SVN of a TDX module 1.5 with SVN 5. */
export const DEFAULT_TEE_TCB_SVN: readonly number[] = [5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
export const ADVISORIES: readonly string[] = ["INTEL-SA-01036", "INTEL-SA-01099"];

const DAY = 86_400_000;
const TCB_DATE = "2024-11-13T00:00:00Z";
const OLD_TCB_DATE = "2023-08-09T00:00:00Z";

/** As the service writes dates: whole seconds. */
const iso = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, "Z");

/** TCB info names only some components. Source: Intel's published TCB info, version 3. */
const SGX_COMPONENTS: readonly Omit<TcbComponent, "svn">[] = [
  { category: "BIOS", type: "Early Microcode Update" },
  { category: "OS/VMM", type: "SGX Late Microcode Update" },
  { category: "OS/VMM", type: "TXT SINIT" },
  { category: "BIOS" },
  { category: "BIOS" },
  { category: "BIOS" },
  {},
  { category: "OS/VMM", type: "SEAMLDR ACM" },
];
const TDX_COMPONENTS: readonly Omit<TcbComponent, "svn">[] = [
  { category: "OS/VMM", type: "TDX Module" },
  { category: "OS/VMM", type: "TDX Module" },
  { category: "OS/VMM", type: "TDX Late Microcode Update" },
];
const components = (svns: Uint8Array, names: readonly Omit<TcbComponent, "svn">[]): TcbComponent[] =>
  Array.from(svns, (svn, i) => ({ svn, ...names[i] }));

/** Levels from newest to oldest: `status` for `svn`; when that is not UpToDate, a newer one stands before it. */
function isvSvnLevels(svn: number, status: TcbStatus): IsvSvnLevel[] {
  const own: IsvSvnLevel = {
    tcb: { isvsvn: svn },
    tcbDate: status === "UpToDate" ? TCB_DATE : OLD_TCB_DATE,
    tcbStatus: status,
    ...(status !== "UpToDate" && { advisoryIDs: [...ADVISORIES] }),
  };
  if (status === "UpToDate") return [own];
  return [{ tcb: { isvsvn: svn + 1 }, tcbDate: TCB_DATE, tcbStatus: "UpToDate" }, own];
}

function tcbLevels(pki: Pki, teeTcbSvn: Uint8Array, status: TcbStatus): TcbLevel[] {
  const { platform } = pki;
  const level = (raise: number, rest: Pick<TcbLevel, "tcbDate" | "tcbStatus" | "advisoryIDs">): TcbLevel => {
    const sgx = platform.tcbComponents.slice();
    // Microcode is what TCB recoveries raise.
    sgx[0] = Math.max(0, sgx[0] + raise);
    sgx[1] = Math.max(0, sgx[1] + raise);
    return {
      tcb: {
        sgxtcbcomponents: components(sgx, SGX_COMPONENTS),
        pcesvn: platform.pceSvn,
        tdxtcbcomponents: components(teeTcbSvn, TDX_COMPONENTS),
      },
      ...rest,
    };
  };
  const own = level(0, {
    tcbDate: status === "UpToDate" ? TCB_DATE : OLD_TCB_DATE,
    tcbStatus: status,
    ...(status !== "UpToDate" && { advisoryIDs: [...ADVISORIES] }),
  });
  return status === "UpToDate"
    ? [own, level(-1, { tcbDate: OLD_TCB_DATE, tcbStatus: "OutOfDate", advisoryIDs: [...ADVISORIES] })]
    : [level(1, { tcbDate: TCB_DATE, tcbStatus: "UpToDate" }), own];
}

/** What the platform's TCB info says, before it is signed. */
export function createTcbInfo(pki: Pki, options: CollateralOptions): TcbInfo {
  const teeTcbSvn = options.teeTcbSvn ?? Uint8Array.from(DEFAULT_TEE_TCB_SVN);
  const module = {
    mrsigner: hex(options.mrSignerSeam ?? new Uint8Array(48)).toUpperCase(),
    attributes: "0000000000000000",
    attributesMask: "FFFFFFFFFFFFFFFF",
  };
  const [svn, major] = [teeTcbSvn[0], teeTcbSvn[1]];
  // For a module with a major version its SVN is judged by its identity, not by the levels.
  const required = teeTcbSvn.slice();
  if (major > 0) required.fill(0, 0, 2);
  return {
    id: "TDX",
    version: 3,
    issueDate: iso(options.issueDate),
    nextUpdate: iso(nextUpdate(options)),
    fmspc: hex(options.fmspc ?? pki.platform.fmspc).toUpperCase(),
    pceId: hex(pki.platform.pceId).toUpperCase(),
    tcbType: 0,
    tcbEvaluationDataNumber: options.tcbEvaluationDataNumber ?? 18,
    tdxModule: module,
    tdxModuleIdentities:
      major === 0
        ? []
        : [
            {
              id: `TDX_${major.toString(16).padStart(2, "0").toUpperCase()}`,
              ...module,
              tcbLevels: isvSvnLevels(svn, options.tdxModuleStatus ?? "UpToDate"),
            },
          ],
    tcbLevels: tcbLevels(pki, required, options.tcbStatus ?? "UpToDate"),
  };
}

/** What QE identity says, before it is signed. */
export function createQeIdentity(options: CollateralOptions): QeIdentity {
  return {
    id: "TD_QE",
    version: 2,
    issueDate: iso(options.issueDate),
    nextUpdate: iso(nextUpdate(options)),
    tcbEvaluationDataNumber: options.tcbEvaluationDataNumber ?? 18,
    miscselect: "00000000",
    miscselectMask: "FFFFFFFF",
    attributes: `${hex(QE_ATTRIBUTES.subarray(0, 8)).toUpperCase().replace(/^15/, "11")}0000000000000000`,
    attributesMask: "FBFFFFFFFFFFFFFF0000000000000000",
    mrsigner: hex(QE_MRSIGNER).toUpperCase(),
    isvprodid: QE_ISVPRODID,
    tcbLevels: isvSvnLevels(QE_ISVSVN, options.qeTcbStatus ?? "UpToDate"),
  };
}

const nextUpdate = (options: CollateralOptions): Date =>
  options.nextUpdate ?? new Date(options.issueDate.getTime() + 30 * DAY);

/** Signed collateral for the platform of `pki`. Equal inputs give equal texts. */
export function createCollateral(pki: Pki, options: CollateralOptions): Collateral {
  const tcbInfo = createTcbInfo(pki, options);
  options.editTcbInfo?.(tcbInfo);
  const identity = createQeIdentity(options);
  options.editQeIdentity?.(identity);
  const signed = (value: unknown): [text: string, signature: string] => {
    const text = JSON.stringify(value);
    return [text, hex(sign(pki.tcbSigning.key, utf8(text)))];
  };
  const [tcb_info, tcb_info_signature] = signed(tcbInfo);
  const [qe_identity, qe_identity_signature] = signed(identity);
  const revoked = options.revoked ?? [];
  const crl = (
    issuer: "root" | "platformCa",
    names: readonly ("pck" | "platformCa" | "tcbSigning")[],
  ): string =>
    hex(
      issueCrl(
        {
          issuerCommonName: issuer === "root" ? COMMON_NAME.ROOT_CA : COMMON_NAME.PLATFORM_CA,
          thisUpdate: options.issueDate,
          nextUpdate: nextUpdate(options),
          number: 1,
          revoked: names.filter((name) => revoked.includes(name)).map((name) => pki[name].certificate.serial),
        },
        pki[issuer].key,
      ),
    );
  return {
    pck_crl_issuer_chain: pki.pckCrlIssuerChain,
    root_ca_crl: crl("root", ["platformCa", "tcbSigning"]),
    pck_crl: crl("platformCa", ["pck"]),
    tcb_info_issuer_chain: pki.tcbSigningChain,
    tcb_info,
    tcb_info_signature,
    qe_identity_issuer_chain: pki.tcbSigningChain,
    qe_identity,
    qe_identity_signature,
  };
}
