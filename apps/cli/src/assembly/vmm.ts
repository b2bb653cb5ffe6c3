/** What a VMM's process asks of the kernel: KVM's entry points. */
import { openKvm } from "@swtdx/kvm";
import type { Syscalls } from "@swtdx/qemu";
import type { Platform } from "./platform.js";

/** A process on the platform's host. */
export const openProcess = (platform: Platform): Syscalls => openKvm(platform.host);
