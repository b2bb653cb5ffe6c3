/** Reading TCB info and QE identity: their texts come from outside, so every field is checked before use. */
import { fromHex } from "../bytes.js";
import { CollateralError } from "../errors.js";
import {
  type Collateral,
  type IsvSvnLevel,
  type QeIdentity,
  type TcbComponent,
  type TcbInfo,
  type TcbLevel,
  type TcbStatus,
  type TdxModule,
  type TdxModuleIdentity,
  TCB_STATUS,
} from "./types.js";

type Json = Record<string, unknown>;

const fail = (field: string, expectation: string): never => {
  throw new CollateralError(field, `expected ${expectation}`);
};

const object = (value: unknown, field: string): Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Json)
    : fail(field, "an object");

const list = <T>(value: unknown, field: string, item: (value: unknown, field: string) => T): T[] =>
  Array.isArray(value) ? value.map((entry, i) => item(entry, `${field}[${i}]`)) : fail(field, "an array");

const text = (value: unknown, field: string): string =>
  typeof value === "string" ? value : fail(field, "a string");

const hexText = (value: unknown, field: string, bytes: number): string => {
  const out = text(value, field);
  return fromHex(out)?.length === bytes ? out : fail(field, `${bytes} bytes in hexadecimal`);
};

const integer = (value: unknown, field: string, max = 0xffff): number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max
    ? (value as number)
    : fail(field, `an integer in 0..${max}`);

const literal = <const T>(value: unknown, field: string, expected: T): T =>
  value === expected ? expected : fail(field, JSON.stringify(expected));

const date = (value: unknown, field: string): string => {
  const out = text(value, field);
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(out) && !Number.isNaN(Date.parse(out))
    ? out
    : fail(field, "a date such as 2026-01-31T00:00:00Z");
};

const status = (value: unknown, field: string): TcbStatus =>
  TCB_STATUS.find((known) => known === value) ?? fail(field, `one of ${TCB_STATUS.join(", ")}`);

const advisories = (value: Json, field: string): { advisoryIDs?: string[] } =>
  value["advisoryIDs"] === undefined
    ? {}
    : { advisoryIDs: list(value["advisoryIDs"], `${field}.advisoryIDs`, text) };

const level = (value: Json, field: string) => ({
  tcbDate: date(value["tcbDate"], `${field}.tcbDate`),
  tcbStatus: status(value["tcbStatus"], `${field}.tcbStatus`),
  ...advisories(value, field),
});

function sixteen(value: unknown, field: string): TcbComponent[] {
  const out = list(value, field, (entry, at) => ({
    svn: integer(object(entry, at)["svn"], `${at}.svn`, 255),
  }));
  return out.length === 16 ? out : fail(field, "16 components");
}

function tcbLevel(value: unknown, field: string): TcbLevel {
  const outer = object(value, field);
  const tcb = object(outer["tcb"], `${field}.tcb`);
  return {
    tcb: {
      sgxtcbcomponents: sixteen(tcb["sgxtcbcomponents"], `${field}.tcb.sgxtcbcomponents`),
      pcesvn: integer(tcb["pcesvn"], `${field}.tcb.pcesvn`),
      tdxtcbcomponents: sixteen(tcb["tdxtcbcomponents"], `${field}.tcb.tdxtcbcomponents`),
    },
    ...level(outer, field),
  };
}

function isvSvnLevel(value: unknown, field: string): IsvSvnLevel {
  const outer = object(value, field);
  const tcb = object(outer["tcb"], `${field}.tcb`);
  return { tcb: { isvsvn: integer(tcb["isvsvn"], `${field}.tcb.isvsvn`) }, ...level(outer, field) };
}

function tdxModule(value: unknown, field: string): TdxModule {
  const module = object(value, field);
  return {
    mrsigner: hexText(module["mrsigner"], `${field}.mrsigner`, 48),
    attributes: hexText(module["attributes"], `${field}.attributes`, 8),
    attributesMask: hexText(module["attributesMask"], `${field}.attributesMask`, 8),
  };
}

const moduleIdentity = (value: unknown, field: string): TdxModuleIdentity => ({
  id: text(object(value, field)["id"], `${field}.id`),
  ...tdxModule(value, field),
  tcbLevels: list(object(value, field)["tcbLevels"], `${field}.tcbLevels`, isvSvnLevel),
});

function json(source: string, field: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    return fail(field, "JSON");
  }
  return object(value, field);
}

const issued = (value: Json, field: string) => ({
  issueDate: date(value["issueDate"], `${field}.issueDate`),
  nextUpdate: date(value["nextUpdate"], `${field}.nextUpdate`),
  tcbEvaluationDataNumber: integer(value["tcbEvaluationDataNumber"], `${field}.tcbEvaluationDataNumber`),
});

/** Reads the text of TCB info. @throws CollateralError */
export function parseTcbInfo(source: string): TcbInfo {
  const field = "tcb_info";
  const value = json(source, field);
  return {
    id: literal(value["id"], `${field}.id`, "TDX"),
    version: literal(value["version"], `${field}.version`, 3),
    ...issued(value, field),
    fmspc: hexText(value["fmspc"], `${field}.fmspc`, 6),
    pceId: hexText(value["pceId"], `${field}.pceId`, 2),
    tcbType: literal(value["tcbType"], `${field}.tcbType`, 0),
    tdxModule: tdxModule(value["tdxModule"], `${field}.tdxModule`),
    tdxModuleIdentities:
      value["tdxModuleIdentities"] === undefined
        ? []
        : list(value["tdxModuleIdentities"], `${field}.tdxModuleIdentities`, moduleIdentity),
    tcbLevels: list(value["tcbLevels"], `${field}.tcbLevels`, tcbLevel),
  };
}

/** Reads the text of QE identity. @throws CollateralError */
export function parseQeIdentity(source: string): QeIdentity {
  const field = "qe_identity";
  const value = json(source, field);
  return {
    id: literal(value["id"], `${field}.id`, "TD_QE"),
    version: literal(value["version"], `${field}.version`, 2),
    ...issued(value, field),
    miscselect: hexText(value["miscselect"], `${field}.miscselect`, 4),
    miscselectMask: hexText(value["miscselectMask"], `${field}.miscselectMask`, 4),
    attributes: hexText(value["attributes"], `${field}.attributes`, 16),
    attributesMask: hexText(value["attributesMask"], `${field}.attributesMask`, 16),
    mrsigner: hexText(value["mrsigner"], `${field}.mrsigner`, 32),
    isvprodid: integer(value["isvprodid"], `${field}.isvprodid`),
    tcbLevels: list(value["tcbLevels"], `${field}.tcbLevels`, isvSvnLevel),
  };
}

const FIELDS = [
  "pck_crl_issuer_chain",
  "root_ca_crl",
  "pck_crl",
  "tcb_info_issuer_chain",
  "tcb_info",
  "tcb_info_signature",
  "qe_identity_issuer_chain",
  "qe_identity",
  "qe_identity_signature",
] as const satisfies readonly (keyof Collateral)[];

/** Reads a collateral file: a JSON object of strings; what they hold is checked when they are used.
 * @throws CollateralError */
export function parseCollateral(source: string): Collateral {
  const value = json(source, "collateral");
  const out = {} as Collateral;
  for (const field of FIELDS) {
    const item = value[field];
    // Some tools write byte strings as arrays of numbers.
    out[field] = Array.isArray(item)
      ? item.map((byte, i) => integer(byte, `${field}[${i}]`, 255).toString(16).padStart(2, "0")).join("")
      : text(item, field);
  }
  return out;
}
