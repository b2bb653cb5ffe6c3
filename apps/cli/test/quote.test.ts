import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import {
  encodeCcEvent,
  encodeSpecIdEvent,
  EV,
  REPORTMACSTRUCT,
  TDINFO_STRUCT,
  TDREPORT_STRUCT,
  TEE_TCB_INFO,
  TEE_TYPE,
} from "@swtdx/abi";
import { createCollateral, DEFAULT_TEE_TCB_SVN, QuotingEnclave, toPem } from "@swtdx/attestation";
import { sha384 } from "@swtdx/crypto";
import { openInstallation, pkiOf, randomOf } from "../src/state/installation.js";
import { directory, spawnSwtdx, swtdx } from "./support/cli.js";

const file = (name: string): string => join(directory, name);
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** A quote of this installation's platform, as boot would write it. */
async function quoteOf(state: string): Promise<Uint8Array> {
  const installation = await openInstallation(state);
  const enclave = new QuotingEnclave({
    pki: await pkiOf(installation),
    random: (await randomOf(installation)).fork("qe"),
    verifyReport: () => true,
  });
  const tcb = TEE_TCB_INFO.encode({ TEE_TCB_SVN: Uint8Array.from(DEFAULT_TEE_TCB_SVN) });
  const td = TDINFO_STRUCT.encode({ ATTRIBUTES: 0x1000_0000n, MRTD: new Uint8Array(48).fill(0xd0) });
  const report = new Uint8Array(TDREPORT_STRUCT.size);
  report.set(
    REPORTMACSTRUCT.encode({
      REPORTTYPE: { TYPE: TEE_TYPE.TDX, SUBTYPE: 0, VERSION: 0, RESERVED: 0 },
      TEE_TCB_INFO_HASH: sha384(tcb),
      TEE_INFO_HASH: sha384(td),
    }),
  );
  report.set(tcb, 256);
  report.set(td, 512);
  const result = enclave.quote(report);
  if (!result.ok) throw new Error(result.detail);
  return result.quote;
}

const state = join(directory, "swtdx");
beforeAll(async () => {
  const quote = await quoteOf(state);
  writeFileSync(file("quote"), quote);
  const bad = quote.slice();
  bad[200] ^= 1;
  writeFileSync(file("bad"), bad);
  const pki = await pkiOf(await openInstallation(state));
  const collateral = createCollateral(pki, { issueDate: new Date(Date.now() - 1000), tcbStatus: "Revoked" });
  writeFileSync(file("revoked.json"), JSON.stringify(collateral));
});

test("the installation's state is private and makes its root once", async () => {
  const before = readFileSync(join(state, "installation.json"), "utf8");
  const pki = await pkiOf(await openInstallation(state));
  expect(readFileSync(join(state, "installation.json"), "utf8")).toBe(before);
  expect(readFileSync(join(state, "root.pem"), "utf8")).toBe(toPem("CERTIFICATE", pki.root.certificate.der));
});

describe("quote", () => {
  test("show", async () => {
    const { code, stdout, stderr } = await swtdx("quote", "show", file("quote"));
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/0x00b8 +MRTD +(d0){48}\n/);
    expect(stdout).toContain("SEPT_VE_DISABLE");
    expect(stdout).toContain("swtdx private root - not Intel hardware");
  });
  test("verify accepts what this installation quoted", async () => {
    const { code, stdout, stderr } = await spawnSwtdx("quote", "verify", file("quote"), "--json");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(JSON.parse(stdout)).toMatchObject({ ok: true, tcbStatus: "UpToDate", dcapQvl: { ok: true } });
  });
  test("verify with a root given as PEM", async () => {
    const { code } = await swtdx("quote", "verify", file("quote"), "--root", join(state, "root.pem"));
    expect(code).toBe(0);
  });
  test("verify refuses a changed quote", async () => {
    const { code, stdout, stderr } = await swtdx("quote", "verify", file("bad"));
    expect(code).toBe(2);
    expect(stdout).toMatch(/quote signature +FAILED/);
    expect(stdout).toMatch(/dcap-qvl +FAILED/);
    expect(stderr).toMatch(/^swtdx: .*bad: refused: quote signature: the attestation key did not sign/);
  });
  test("verify refuses a revoked TCB", async () => {
    const { code, stderr } = await swtdx(
      "quote",
      "verify",
      file("quote"),
      "--collateral",
      file("revoked.json"),
    );
    expect(code).toBe(2);
    expect(stderr).toMatch(/refused: TCB status: is Revoked, accepted are UpToDate/);
  });
  test("verify with another installation's state refuses", async () => {
    const { code, stderr } = await swtdx(
      "--state",
      join(directory, "other"),
      "quote",
      "verify",
      file("quote"),
    );
    expect(code).toBe(2);
    expect(stderr).toMatch(/which is not the trusted root/);
  });
  test("collateral that is none", async () => {
    const { code, stderr } = await swtdx("quote", "verify", file("quote"), "--collateral", file("quote"));
    expect(code).toBe(2);
    expect(stderr).toMatch(/quote: collateral: expected JSON\n$/);
  });
});

test("eventlog replay", async () => {
  const event = new TextEncoder().encode("a kernel");
  const digest = sha384(event);
  writeFileSync(
    file("log"),
    Buffer.concat([encodeSpecIdEvent(), encodeCcEvent({ mrIndex: 3, type: EV.IPL, digest, event })]),
  );
  const { code, stdout } = await swtdx("eventlog", "replay", file("log"), "--json");
  expect(code).toBe(0);
  const zero = "00".repeat(48);
  const rtmr2 = hex(sha384(Buffer.concat([new Uint8Array(48), digest])));
  expect(JSON.parse(stdout)).toEqual({ rtmr: [zero, zero, rtmr2, zero], events: 1 });
  const show = await swtdx("eventlog", "show", file("log"));
  expect(show.stdout).toMatch(/1 +RTMR\[2\] +EV_IPL .* "a kernel"/);
});
