/** `swtdx quote show|verify`. */
import type { Collateral } from "@swtdx/attestation";
import { EXIT, inFile, UsageError } from "../errors.js";
import { readInput, readText, toJson } from "../io/files.js";
import { colors, out, table } from "../io/terminal.js";
import { openInstallation, pkiOf } from "../state/installation.js";
import { judgeQuote } from "../state/verification.js";

export interface QuoteShowOptions {
  json?: boolean;
}

export async function quoteShow(file: string, options: QuoteShowOptions): Promise<void> {
  const { decodeQuote, describeQuote } = await import("@swtdx/attestation");
  const bytes = readInput(file, "a TD quote");
  const sections = inFile(file, () => describeQuote(decodeQuote(bytes)));
  if (options.json) return out(toJson(sections, 2));
  const c = colors("stdout");
  for (const { title, fields } of sections) {
    out(c.bold(title));
    const rows = fields.map(({ name, offset, value, note }) => [
      offset === null ? "" : c.dim(`0x${offset.toString(16).padStart(4, "0")}`),
      name,
      `${value}${note ? c.dim(`  ${note}`) : ""}`,
    ]);
    out(table(rows, "  "));
  }
}

export interface QuoteVerifyOptions {
  root?: string;
  collateral?: string;
  json?: boolean;
  state?: string;
}

export async function quoteVerify(file: string, options: QuoteVerifyOptions): Promise<number> {
  const quote = readInput(file, "a TD quote");
  const { decodeQuote } = await import("@swtdx/attestation");
  inFile(file, () => decodeQuote(quote));
  const now = new Date();
  const root = await readRoot(options);
  const collateral = await readCollateral(options, now);
  const { ok, own, dcapQvl } = await judgeQuote(quote, { root, collateral, now });
  if (options.json) {
    const { tcbStatus, advisoryIDs, checks } = own;
    out(toJson({ ok, tcbStatus, advisoryIDs, checks, dcapQvl }, 2));
  } else {
    const c = colors("stdout");
    const mark = (good: boolean): string => (good ? c.green("ok") : c.red("FAILED"));
    out(
      table([
        ...own.checks.map((check) => [check.name, mark(check.ok), check.detail]),
        ["dcap-qvl", mark(dcapQvl.ok), dcapQvl.ok ? `accepts it, ${dcapQvl.status}` : dcapQvl.error],
      ]),
    );
  }
  if (ok) return EXIT.POWEROFF;
  const failed = own.checks.find((check) => !check.ok);
  throw new UsageError(
    failed
      ? `${file}: refused: ${failed.name}: ${failed.detail}`
      : `${file}: refused by dcap-qvl: ${dcapQvl.ok ? "" : dcapQvl.error}`,
  );
}

/** The trusted root: a PEM or DER file, or the installation's own. */
async function readRoot(options: QuoteVerifyOptions): Promise<Uint8Array> {
  const { root, state } = options;
  if (root === undefined) return (await pkiOf(await openInstallation(state))).root.certificate.der;
  const { parseCertificate, parsePem } = await import("@swtdx/attestation");
  const bytes = readInput(root, "a root certificate, PEM");
  return inFile(root, () => {
    const text = new TextDecoder("latin1").decode(bytes);
    const ders = text.includes("-----BEGIN") ? parsePem(text) : [bytes];
    if (ders.length !== 1)
      throw new UsageError(`${root}: has ${ders.length} certificates, expected 1 (the root's)`);
    return parseCertificate(ders[0], "root certificate").der;
  });
}

/** Collateral from a file or URL (JSON); without either, what the installation's own platform has now. */
async function readCollateral(options: QuoteVerifyOptions, now: Date): Promise<Collateral> {
  const { collateral, state } = options;
  const { createCollateral, parseCollateral } = await import("@swtdx/attestation");
  if (collateral === undefined)
    return createCollateral(await pkiOf(await openInstallation(state)), {
      issueDate: new Date(now.getTime() - 86_400_000),
    });
  const text = /^https?:\/\//.test(collateral)
    ? await download(collateral)
    : readText(collateral, "collateral, JSON");
  return inFile(collateral, () => parseCollateral(text));
}

async function download(url: string): Promise<string> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(30_000) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.text();
  } catch (error) {
    const cause = (error as { cause?: Error }).cause;
    throw new UsageError(`${url}: cannot be fetched: ${cause?.message ?? (error as Error).message}`);
  }
}
