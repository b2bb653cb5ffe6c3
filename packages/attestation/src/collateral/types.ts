/** Verification collateral as Intel's provisioning certification service (API v4) publishes it. */

/** TCB statuses, from good to bad; also the order in which they are merged. */
export const TCB_STATUS = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
] as const;
export type TcbStatus = (typeof TCB_STATUS)[number];

/** The worse of two statuses. */
export const worseTcbStatus = (a: TcbStatus, b: TcbStatus): TcbStatus =>
  TCB_STATUS.indexOf(a) >= TCB_STATUS.indexOf(b) ? a : b;

export interface TcbComponent {
  svn: number;
  category?: string;
  type?: string;
}

export interface TcbLevel {
  tcb: { sgxtcbcomponents: TcbComponent[]; pcesvn: number; tdxtcbcomponents: TcbComponent[] };
  tcbDate: string;
  tcbStatus: TcbStatus;
  advisoryIDs?: string[];
}

/** A TCB level that depends on one SVN: of a TDX module identity or of the quoting enclave. */
export interface IsvSvnLevel {
  tcb: { isvsvn: number };
  tcbDate: string;
  tcbStatus: TcbStatus;
  advisoryIDs?: string[];
}

export interface TdxModule {
  /** 48 bytes, hexadecimal. */
  mrsigner: string;
  /** 8 bytes, hexadecimal. */
  attributes: string;
  attributesMask: string;
}

export interface TdxModuleIdentity extends TdxModule {
  /** "TDX_" and the module's major version, two hexadecimal digits. */
  id: string;
  tcbLevels: IsvSvnLevel[];
}

/** TCB info, version 3, of TDX. */
export interface TcbInfo {
  id: "TDX";
  version: 3;
  issueDate: string;
  nextUpdate: string;
  fmspc: string;
  pceId: string;
  tcbType: 0;
  tcbEvaluationDataNumber: number;
  tdxModule: TdxModule;
  tdxModuleIdentities: TdxModuleIdentity[];
  tcbLevels: TcbLevel[];
}

/** Identity of the TD quoting enclave, version 2. */
export interface QeIdentity {
  id: "TD_QE";
  version: 2;
  issueDate: string;
  nextUpdate: string;
  tcbEvaluationDataNumber: number;
  miscselect: string;
  miscselectMask: string;
  attributes: string;
  attributesMask: string;
  mrsigner: string;
  isvprodid: number;
  tcbLevels: IsvSvnLevel[];
}

/**
 * Everything a verifier needs besides the quote and the root certificate. Field names and forms are those that
 * verifiers' JSON files have: chains PEM; CRLs DER, hexadecimal; signatures r ‖ s, hexadecimal, over the exact
 * text beside them.
 */
export interface Collateral {
  pck_crl_issuer_chain: string;
  root_ca_crl: string;
  pck_crl: string;
  tcb_info_issuer_chain: string;
  tcb_info: string;
  tcb_info_signature: string;
  qe_identity_issuer_chain: string;
  qe_identity: string;
  qe_identity_signature: string;
}
