/** The MRTD of a firmware image, by building its TD as a machine does, without running it. */
import type { Trace } from "@swtdx/abi";
import { MachineError } from "./errors.js";
import { Machine, type MachineOptions } from "./machine.js";
import type { LaunchPages } from "./target/tdx-launch.js";

export interface StaticMeasurement {
  /** Hex, 48 bytes. */
  readonly mrtd: string;
  readonly pages: LaunchPages;
}

/**
 * Builds the TD and destroys it again. The host's trace is needed: after KVM_TDX_FINALIZE_VM the host itself cannot
 * read a production TD's MRTD, so it is taken from the module's measurement event.
 * @throws FirmwareError | OptionError | MachineError
 */
export function measureStatic(options: MachineOptions & { readonly trace: Trace }): StaticMeasurement {
  const machine = new Machine(options);
  try {
    const { td } = machine;
    if (td === null) throw new MachineError("an ordinary VM has no MRTD");
    if (td.mrtd === null) throw new MachineError("the platform's trace has no measurement of MRTD");
    return { mrtd: td.mrtd, pages: td.pages };
  } finally {
    machine.close();
  }
}
