import { describe, expect, test } from "vitest";
import {
  type CheckName,
  type CollateralOptions,
  type Policy,
  QUOTE_FORMS,
  type TcbStatus,
  TCB_STATUS,
  type Verdict,
  verifyQuote,
} from "../src/index.js";
import { judge } from "./support/judge.js";
import { makePlatform, makeReport, NOW } from "./support/platform.js";

const platform = makePlatform();
const { root } = platform;
const failed = (verdict: Verdict): CheckName[] =>
  verdict.checks.filter(({ ok }) => !ok).map(({ name }) => name);

function both(options: {
  quote?: Uint8Array;
  root?: Uint8Array;
  now?: Date;
  policy?: Policy;
  collateral?: Partial<CollateralOptions>;
}) {
  const quote = options.quote ?? platform.quote();
  const collateral = platform.collateral(options.collateral);
  const trusted = options.root ?? root;
  const now = options.now ?? NOW;
  return {
    own: verifyQuote(quote, { root: trusted, collateral, now, policy: options.policy ?? {} }),
    other: judge(quote, trusted, collateral, now),
  };
}

describe("a good quote", () => {
  test.each(QUOTE_FORMS)("%s is accepted by dcap-qvl and by verifyQuote", (form) => {
    const { own, other } = both({ quote: platform.quote(form) });
    expect(other).toEqual({ ok: true, status: "UpToDate" });
    expect(failed(own)).toEqual([]);
    expect(own).toMatchObject({ ok: true, tcbStatus: "UpToDate", advisoryIDs: [] });
  });

  test("equal seeds give equal quotes, other seeds other ones", () => {
    const again = makePlatform();
    expect(again.quote()).toEqual(platform.quote());
    expect(again.collateral()).toEqual(platform.collateral());
    expect(makePlatform("other").quote()).not.toEqual(platform.quote());
  });
});

describe("a bad quote or collateral is refused", () => {
  test.each(TCB_STATUS)("TCB status %s is found by both", (tcbStatus: TcbStatus) => {
    const { own, other } = both({ collateral: { tcbStatus } });
    expect(own.tcbStatus).toBe(tcbStatus);
    // dcap-qvl refuses Revoked itself and leaves the others to its caller.
    expect(other.ok ? other.status : "Revoked").toBe(tcbStatus);
    const good = tcbStatus === "UpToDate" || tcbStatus === "SWHardeningNeeded";
    expect(failed(own)).toEqual(good ? [] : ["TCB status"]);
    expect(own.advisoryIDs.length > 0).toBe(tcbStatus !== "UpToDate");
    const tolerant = both({ collateral: { tcbStatus }, policy: { acceptedTcbStatuses: [tcbStatus] } });
    expect(tolerant.own.ok).toBe(true);
  });

  test("status of the TDX module and of the quoting enclave count", () => {
    expect(both({ collateral: { tdxModuleStatus: "OutOfDate" } }).own.tcbStatus).toBe("OutOfDate");
    expect(
      both({ collateral: { tdxModuleStatus: "OutOfDate", tcbStatus: "ConfigurationNeeded" } }).own.tcbStatus,
    ).toBe("OutOfDateConfigurationNeeded");
    const qe = both({ collateral: { qeTcbStatus: "Revoked" } });
    expect(qe.own.tcbStatus).toBe("Revoked");
    expect(qe.other.ok).toBe(false);
  });

  test.each([
    ["expired collateral", { nextUpdate: new Date("2026-05-31T00:00:00Z") }, "TCB info"],
    ["collateral of the future", { issueDate: new Date("2026-06-02T00:00:00Z") }, "TCB info"],
    ["a revoked PCK", { revoked: ["pck"] }, "PCK CRL"],
    ["a revoked platform CA", { revoked: ["platformCa"] }, "PCK certificate chain"],
    ["a revoked TCB signing certificate", { revoked: ["tcbSigning"] }, "TCB info"],
    ["another FMSPC", { fmspc: Uint8Array.of(1, 2, 3, 4, 5, 6) }, "platform"],
    [
      "a TCB no level reaches",
      {
        editTcbInfo: (info) => {
          info.tcbLevels.length = 1;
          info.tcbLevels[0].tcb.pcesvn = 99;
        },
      },
      "TCB level",
    ],
    ["another QE signer", { editQeIdentity: (id) => void (id.mrsigner = "00".repeat(32)) }, "QE report"],
    ["another QE product", { editQeIdentity: (id) => void (id.isvprodid = 1) }, "QE report"],
    ["QE attributes", { editQeIdentity: (id) => void (id.attributes = "13".padEnd(32, "0")) }, "QE report"],
  ] satisfies [string, Partial<CollateralOptions>, CheckName][])("%s", (_, collateral, name) => {
    const { own, other } = both({ collateral });
    expect(other.ok).toBe(false);
    expect(own.ok).toBe(false);
    expect(failed(own)).toContain(name);
  });

  test("certificates that are not valid yet or any more", () => {
    for (const now of [new Date("2023-12-31T00:00:00Z"), new Date("2031-06-01T00:00:00Z")]) {
      const { own, other } = both({ now });
      expect(other.ok).toBe(false);
      expect(failed(own)).toContain("PCK certificate chain");
    }
  });

  test("another root", () => {
    const { own, other } = both({ root: makePlatform("other").root });
    expect(other.ok).toBe(false);
    expect(failed(own)).toContain("PCK certificate chain");
    expect(failed(own)).toContain("TCB info");
  });

  test.each([
    ["DEBUG", 0x1000_0001n, {}],
    ["no SEPT_VE_DISABLE", 0n, {}],
    ["MIGRATABLE", 0x3000_0000n, {}],
    ["a reserved bit", 0x1_1000_0000n, {}],
  ])("a TD with %s", (_, ATTRIBUTES) => {
    const { own, other } = both({ quote: platform.quote("v4", { td: { ATTRIBUTES } }) });
    expect(other.ok).toBe(false);
    expect(failed(own)).toEqual(["TD attributes"]);
  });

  test("a service TD", () => {
    const SERVTD_HASH = new Uint8Array(48).fill(1);
    const { own, other } = both({ quote: platform.quote("v5-td15", { td: { SERVTD_HASH } }) });
    expect(other.ok).toBe(false);
    expect(failed(own)).toEqual(["TD measurements"]);
  });

  test("a TDX module that TCB info does not know (dcap-qvl does not look)", () => {
    const MRSIGNERSEAM = new Uint8Array(48).fill(1);
    expect(failed(both({ quote: platform.quote("v4", { tcb: { MRSIGNERSEAM } }) }).own)).toContain(
      "TDX module",
    );
    const TEE_TCB_SVN = Uint8Array.of(5, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    expect(failed(both({ quote: platform.quote("v4", { tcb: { TEE_TCB_SVN } }) }).own)).toContain(
      "TDX module",
    );
  });

  test("a policy's expectations", () => {
    const mrtd = new Uint8Array(48).fill(0xd0);
    expect(both({ policy: { mrtd } }).own.ok).toBe(true);
    const verdict = both({ policy: { mrtd: new Uint8Array(48) } }).own;
    expect(failed(verdict)).toEqual(["TD measurements"]);
    expect(verdict.checks.at(-1)!.detail).toMatch(/^MRTD is d0d0.*, expected 0000/);
  });
});

describe("the quoting enclave refuses", () => {
  const refusal = (report: Uint8Array): string => {
    const result = platform.enclave.quote(report);
    return result.ok ? "quoted" : result.error;
  };
  const good = makeReport(platform.key);
  const changed = (at: number): Uint8Array => {
    const out = good.slice();
    out[at] ^= 1;
    return out;
  };
  test("what this platform did not report", () => {
    expect(refusal(good)).toBe("quoted");
    expect(refusal(good.subarray(1))).toBe("REPORT_SIZE");
    expect(refusal(changed(0))).toBe("REPORT_TYPE");
    expect(refusal(changed(130))).toBe("REPORT_MAC");
    expect(refusal(makeReport(new Uint8Array(32)))).toBe("REPORT_MAC");
    expect(refusal(changed(300))).toBe("TEE_TCB_INFO_HASH");
    expect(refusal(changed(530))).toBe("TEE_INFO_HASH");
  });
});
