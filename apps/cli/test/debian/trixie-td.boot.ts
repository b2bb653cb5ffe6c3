/** A TD of trixie: OVMF.fd starts Linux 6.12 itself. Twice, since equal seeds give equal runs. */
import { beforeAll, describe, expect, test } from "vitest";
import { type Boot, boot } from "./support.js";
import { arguments_, type Case, checkTrustDomain } from "./td.js";

const trixie: Case = { suite: "trixie", bios: "trixie/OVMF.fd", reportData: "c0ffee" };

describe("trixie in a TD", () => {
  let first: Boot;
  let second: Boot;
  beforeAll(async () => {
    const args = [...arguments_(trixie), "--seed", "0123"];
    [first, second] = await Promise.all(
      ["first", "second"].map((name) => boot(name, args, { traced: true })),
    );
  });

  checkTrustDomain(trixie, () => first);

  test("equal seeds: equal instructions, consoles and traces", () => {
    expect(second.summary.guest).toEqual(first.summary.guest);
    expect(second.summary.virtualSeconds).toBe(first.summary.virtualSeconds);
    // The quoting enclave's signature is new each time, and the console tells the quote's hash.
    expect(second.lines).toEqual(first.lines);
    expect(second.trace).toBe(first.trace);
  });
});
