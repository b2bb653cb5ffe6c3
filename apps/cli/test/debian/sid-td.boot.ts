/** A TD with two vCPUs: OVMF starts sid's Linux 7.2, which tells its measurements itself. */
import { beforeAll, describe, expect, test } from "vitest";
import { type Boot, boot } from "./support.js";
import { arguments_, type Case, checkTrustDomain } from "./td.js";

const sid: Case = { suite: "sid", bios: "trixie/OVMF.fd", reportData: "ab".repeat(64) };

describe("sid in a TD with two vCPUs", () => {
  let booted: Boot;
  beforeAll(async () => {
    booted = await boot("sid", [...arguments_(sid), "--smp", "2"]);
  });

  checkTrustDomain(sid, () => booted);

  test("both vCPUs are online", () => {
    expect(booted.lines.some((line) => /^init: Linux 7\..*, CPUs online: 0-1$/.test(line))).toBe(true);
  });

  test("Linux's measurements are the TD's", () => {
    const { mrtd, rtmr } = booted.summary.td!;
    for (const [name, value] of [
      ["mrtd:sha384", mrtd],
      ...rtmr.map((value, i) => [`rtmr${i}:sha384`, value] as const),
    ])
      expect(booted.lines).toContain(`init: ${name} ${value}`);
  });
});
