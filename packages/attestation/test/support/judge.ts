/** The independent judge: Phala's dcap-qvl, with the private root in Intel's place. */
import { QuoteVerifier } from "@phala/dcap-qvl";
import type { Collateral } from "../../src/index.js";

/** The judge's TCB status, or the error with which it refuses. */
export function judge(
  quote: Uint8Array,
  root: Uint8Array,
  collateral: Collateral,
  now: Date,
): { ok: true; status: string } | { ok: false; error: string } {
  try {
    const verifier = QuoteVerifier.newWithRootCa(Buffer.from(root));
    const report = verifier.verify(Buffer.from(quote), collateral, now.getTime() / 1000);
    return { ok: true, status: report.status };
  } catch (error) {
    return { ok: false, error: (error as Error).message };
  }
}
