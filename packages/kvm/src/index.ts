/** @swtdx/kvm: /dev/kvm as its users see it, on a host of @swtdx/linux-host. `new KvmProcess(host)` is a process. */
import type { LinuxHost } from "@swtdx/linux-host";
import { type KvmParameters, KvmProcess } from "./process.js";

export { type KvmParameters, KvmProcess } from "./process.js";
export { TdxBug } from "./vmx/seamcall.js";

/** A process on the host that may use KVM. */
export const openKvm = (host: LinuxHost, parameters?: Partial<KvmParameters>): KvmProcess =>
  new KvmProcess(host, parameters);
