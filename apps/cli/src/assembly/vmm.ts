/** What a VMM's process asks of the kernel, from KVM. */
import type { Syscalls } from "@swtdx/qemu";
import { UsageError } from "../errors.js";
import type { Platform } from "./platform.js";

/** The system calls of a process on this host. */
export function openProcess(platform: Platform): Syscalls {
  void platform;
  throw new UsageError("this build has no KVM: boot and measure need @swtdx/kvm");
}
