/** How the command ends when something is wrong. The exit codes are the command line's contract. */

export const EXIT = {
  POWEROFF: 0,
  OUR_BUG: 1,
  BAD_INPUT: 2,
  RESET: 3,
  FATAL: 4,
  TIMEOUT: 5,
} as const;

/** Bad usage or input: one line that names file, field and expectation; exit 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Typed errors of the layers that mean bad input, by name: importing their classes would load every layer. */
const INPUT_ERRORS = new Set([
  "UsageError",
  "FormatError",
  "QuoteError",
  "CertificateError",
  "CollateralError",
  "EventLogError",
  "FirmwareError",
  "FirmwareBuildError",
  "OptionError",
  "MachineError",
]);

export const isInputError = (error: unknown): error is Error =>
  error instanceof Error && INPUT_ERRORS.has(error.name);

/** Runs `read`; what it finds wrong is said with the file's name in front. @throws UsageError */
export function inFile<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (isInputError(error)) throw new UsageError(`${file}: ${error.message}`);
    throw error;
  }
}

/** One line, without control characters that a file's contents could smuggle into a terminal. */
export const oneLine = (text: string): string =>
  // eslint-disable-next-line no-control-regex -- removing them is the point
  text.replace(/\s*\n\s*/g, " ").replace(/[\x00-\x1f\x7f-\x9f]/g, "");
