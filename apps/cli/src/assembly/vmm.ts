/** What a VMM's process asks of the kernel: KVM's entry points. */
import { type KvmParameters, openKvm } from "@swtdx/kvm";
import type { Syscalls } from "@swtdx/qemu";
import type { Platform } from "./platform.js";

/** A process on the platform's host, whose KVM has these parameters. */
export const openProcess = (platform: Platform, parameters: Partial<KvmParameters> = {}): Syscalls =>
  openKvm(platform.host, parameters);
