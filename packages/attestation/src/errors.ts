/** Errors of this package: bad input at its edges. Verdicts about a well-formed quote are values, see verify/. */

/** Something that was read is not what its format says. The message names the field and what would be right. */
export class FormatError extends Error {
  override name = "FormatError";
  /**
   * @param field the field's name in its specification, such as "QUOTE_HEADER.VERSION"
   * @param problem what was found and what is expected
   * @param offset where it stands, in bytes from the start of the input, when that is known
   */
  constructor(
    readonly field: string,
    readonly problem: string,
    readonly offset?: number,
  ) {
    super(`${field}${offset === undefined ? "" : ` at byte ${offset}`}: ${problem}`);
  }
}

/** A quote's bytes are malformed. */
export class QuoteError extends FormatError {
  override name = "QuoteError";
}

/** A certificate, CRL or PEM text is malformed. */
export class CertificateError extends FormatError {
  override name = "CertificateError";
}

/** TCB info, QE identity or another piece of collateral is malformed. */
export class CollateralError extends FormatError {
  override name = "CollateralError";
}

/** An event log is malformed. */
export class EventLogError extends FormatError {
  override name = "EventLogError";
}
