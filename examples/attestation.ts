/** A platform under a private root quotes a TD's report; a relying party verifies the quote, then a TCB recovery. */
import { REPORTMACSTRUCT, TDINFO_STRUCT, TDREPORT_STRUCT, TEE_TCB_INFO, TEE_TYPE } from "@swtdx/abi";
import {
  createCollateral,
  createPki,
  DEFAULT_TEE_TCB_SVN,
  describeQuote,
  QuotingEnclave,
  verifyQuote,
} from "@swtdx/attestation";
import { SeededRandom, sha384 } from "@swtdx/crypto";

const random = new SeededRandom(new TextEncoder().encode("an example"));
const pki = createPki(random.fork("pki"));

// The report a TD gets from TDG.MR.REPORT, here made by hand; the platform's CPU would verify its MAC.
const tcb = TEE_TCB_INFO.encode({ TEE_TCB_SVN: Uint8Array.from(DEFAULT_TEE_TCB_SVN) });
const td = TDINFO_STRUCT.encode({
  ATTRIBUTES: 0x1000_0000n,
  XFAM: 0x3n,
  MRTD: new Uint8Array(48).fill(0xd0),
});
const mac = REPORTMACSTRUCT.encode({
  REPORTTYPE: { TYPE: TEE_TYPE.TDX, SUBTYPE: 0, VERSION: 0, RESERVED: 0 },
  TEE_TCB_INFO_HASH: sha384(tcb),
  TEE_INFO_HASH: sha384(td),
  REPORTDATA: new TextEncoder().encode("a nonce"),
});
const report = new Uint8Array(TDREPORT_STRUCT.size);
report.set(mac, 0);
report.set(tcb, 256);
report.set(td, 512);

const enclave = new QuotingEnclave({ pki, random: random.fork("qe"), verifyReport: () => true });
const result = enclave.quote(report);
if (!result.ok) throw new Error(result.detail);

for (const { title, fields } of describeQuote(result.quote).slice(0, 2)) {
  console.log(title);
  for (const { name, value, note } of fields)
    console.log(`  ${name.padEnd(16)} ${value.slice(0, 48)} ${note}`);
}

const now = new Date("2026-06-01T00:00:00Z");
for (const tcbStatus of ["UpToDate", "OutOfDate"] as const) {
  const collateral = createCollateral(pki, { issueDate: now, tcbStatus });
  const verdict = verifyQuote(result.quote, { root: pki.root.certificate.der, collateral, now });
  console.log(`collateral says ${tcbStatus}: ${verdict.ok ? "accepted" : "refused"}`);
  for (const check of verdict.checks) if (!check.ok) console.log(`  ${check.name}: ${check.detail}`);
}
