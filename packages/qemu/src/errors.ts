/** What a machine refuses: bad files and bad options, each in one line that says what would be right. */

/** Base of the errors that bad input to a machine causes; `message` is one line, meant for the user. */
export class MachineError extends Error {
  override name = "MachineError";
}

/** A firmware image that cannot be loaded. */
export class FirmwareError extends MachineError {
  override name = "FirmwareError";
  constructor(
    /** Name of the image as the user gave it. */
    readonly file: string,
    /** The field that is wrong, as the TDVF design guide names it, or "file". */
    readonly field: string,
    /** What the field holds and what it should. */
    readonly expectation: string,
  ) {
    super(`${file}: ${field}: ${expectation}`);
  }
}

/** An option that cannot be had: its name (as on the command line, without dashes), and what would be right. */
export class OptionError extends MachineError {
  override name = "OptionError";
  constructor(
    readonly option: string,
    readonly expectation: string,
  ) {
    super(`${option}: ${expectation}`);
  }
}

/** A call of the kernel's interface that failed where only a bug or an unfit host can make it fail. */
export class IoctlError extends MachineError {
  override name = "IoctlError";
  constructor(
    /** Name of the request, for example "KVM_TDX_INIT_VM". */
    readonly request: string,
    /** Error number, positive. */
    readonly errno: number,
    /** Completion status of the SEAMCALL that failed, if one did. */
    readonly hwError?: bigint,
  ) {
    const status = hwError ? `, SEAMCALL status 0x${hwError.toString(16).padStart(16, "0")}` : "";
    super(`${request}: errno ${errno}${status}`);
  }
}

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;
