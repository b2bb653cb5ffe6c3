/**
 * The platform from power-on to a host with TDX enabled: DRAM, processors, firmware, Linux, KVM. Assembling the
 * layers is all that happens here.
 */
import type { GuestProgram, Trace } from "@swtdx/abi";
import type { SeededRandom } from "@swtdx/crypto";
import type { Syscalls } from "@swtdx/qemu";
import { UsageError } from "../errors.js";

export interface PlatformOptions {
  readonly random: SeededRandom;
  readonly trace: Trace;
  /** The machine's RAM in bytes: the host's DRAM is sized to hold it. */
  readonly guestMemory: number;
  /** TypeScript guest programs by name. */
  readonly programs: ReadonlyMap<string, GuestProgram>;
}

export interface Platform {
  /** What a VMM's process has: /dev/kvm, memory, time. */
  readonly syscalls: Syscalls;
  /** EVERIFYREPORT2: whether this platform made a REPORTMACSTRUCT. */
  verifyReport(reportMacStruct: Uint8Array): boolean;
  /** Instructions that guests have retired. */
  instructions(): number;
  /** The host's sysfs, path by path. */
  sysfs(): readonly { path: string; value: string }[];
}

/** Switches a host on and loads the TDX module. */
export async function powerOn(options: PlatformOptions): Promise<Platform> {
  void options;
  throw new UsageError(
    "this build has no host kernel yet: boot, measure and host need @swtdx/linux-host and @swtdx/kvm",
  );
}
