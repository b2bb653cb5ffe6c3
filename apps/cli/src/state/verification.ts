/** Verifying a quote with both verifiers: this project's, which reports every check, and Phala's dcap-qvl. */
import type { Collateral, Policy, Verdict } from "@swtdx/attestation";

export interface Judgement {
  /** Both accept. */
  readonly ok: boolean;
  readonly own: Verdict;
  readonly dcapQvl: { ok: true; status: string } | { ok: false; error: string };
}

export async function judgeQuote(
  quote: Uint8Array,
  options: { root: Uint8Array; collateral: Collateral; now: Date; policy?: Policy },
): Promise<Judgement> {
  const [{ verifyQuote }, { QuoteVerifier }] = await Promise.all([
    import("@swtdx/attestation"),
    import("@phala/dcap-qvl"),
  ]);
  const own = verifyQuote(quote, options);
  let dcapQvl: Judgement["dcapQvl"];
  try {
    const { status } = QuoteVerifier.newWithRootCa(Buffer.from(options.root)).verify(
      quote,
      options.collateral,
      Math.floor(options.now.getTime() / 1000),
    );
    dcapQvl = { ok: true, status };
  } catch (error) {
    dcapQvl = { ok: false, error: (error as Error).message };
  }
  return { ok: own.ok && dcapQvl.ok, own, dcapQvl };
}
