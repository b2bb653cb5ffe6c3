/** A platform for tests: a private hierarchy, a CPU that can MAC reports, a quoting enclave, collateral. */
import {
  REPORTMACSTRUCT,
  REPORTMACSTRUCT_MACED_SIZE,
  TDINFO_STRUCT,
  TDREPORT_STRUCT,
  TEE_TCB_INFO,
  TEE_TYPE,
  type TdInfo,
  type TeeTcbInfo,
} from "@swtdx/abi";
import { SeededRandom, hmacSha256, sha384 } from "@swtdx/crypto";
import {
  type Collateral,
  type CollateralOptions,
  createCollateral,
  createPki,
  DEFAULT_TEE_TCB_SVN,
  type PkiOptions,
  QuotingEnclave,
  type QuoteForm,
} from "../../src/index.js";

export const NOW = new Date("2026-06-01T00:00:00Z");

export const random = (seed: string): SeededRandom => new SeededRandom(new TextEncoder().encode(seed));

/** A TDREPORT as SEAMREPORT and the TDX module make it, with a MAC under `key`. */
export function makeReport(
  key: Uint8Array,
  change: { td?: Partial<TdInfo>; tcb?: Partial<TeeTcbInfo>; reportData?: Uint8Array } = {},
): Uint8Array {
  const fill = (byte: number): Uint8Array => new Uint8Array(48).fill(byte);
  const tcb = TEE_TCB_INFO.encode({
    VALID: 0x301ffn,
    TEE_TCB_SVN: Uint8Array.from(DEFAULT_TEE_TCB_SVN),
    MRSEAM: fill(0x5e),
    TEE_TCB_SVN2: Uint8Array.from(DEFAULT_TEE_TCB_SVN),
    ...change.tcb,
  });
  const td = TDINFO_STRUCT.encode({
    ATTRIBUTES: 0x1000_0000n,
    XFAM: 0x602e7n,
    MRTD: fill(0xd0),
    RTMR: [fill(0xa0), fill(0xa1), fill(0xa2), fill(0xa3)],
    ...change.td,
  });
  const mac = REPORTMACSTRUCT.encode({
    REPORTTYPE: { TYPE: TEE_TYPE.TDX, SUBTYPE: 0, VERSION: 0, RESERVED: 0 },
    CPUSVN: new Uint8Array(16).fill(3),
    TEE_TCB_INFO_HASH: sha384(tcb),
    TEE_INFO_HASH: sha384(td),
    REPORTDATA: change.reportData ?? new TextEncoder().encode("what the TD wants to say"),
  });
  mac.set(hmacSha256(key, mac.subarray(0, REPORTMACSTRUCT_MACED_SIZE)), REPORTMACSTRUCT_MACED_SIZE);
  const out = new Uint8Array(TDREPORT_STRUCT.size);
  out.set(mac);
  out.set(tcb, 256);
  out.set(td, 512);
  return out;
}

export interface TestPlatform {
  pki: ReturnType<typeof createPki>;
  enclave: QuotingEnclave;
  /** The CPU's report key. */
  key: Uint8Array;
  root: Uint8Array;
  quote(form?: QuoteForm, change?: Parameters<typeof makeReport>[1]): Uint8Array;
  collateral(options?: Partial<CollateralOptions>): Collateral;
}

export function makePlatform(seed = "test", options: PkiOptions = {}): TestPlatform {
  const source = random(seed);
  const pki = createPki(source.fork("pki"), options);
  const key = source.fork("report-key").bytes(32);
  const enclave = new QuotingEnclave({
    pki,
    random: source.fork("qe"),
    verifyReport: (mac) => {
      const expected = hmacSha256(key, mac.subarray(0, REPORTMACSTRUCT_MACED_SIZE));
      return expected.every((byte, i) => byte === mac[REPORTMACSTRUCT_MACED_SIZE + i]);
    },
  });
  return {
    pki,
    enclave,
    key,
    root: pki.root.certificate.der,
    quote(form, change) {
      const result = enclave.quote(makeReport(key, change), form);
      if (!result.ok) throw new Error(`${result.error}: ${result.detail}`);
      return result.quote;
    },
    collateral: (more) => createCollateral(pki, { issueDate: new Date("2026-05-25T00:00:00Z"), ...more }),
  };
}
