/** @swtdx/qemu: the machine: TDVF loading, CPUID model, ACPI, devices, quote requests. */
export { FirmwareError, IoctlError, MachineError, OptionError } from "./errors.js";
export {
  Machine,
  type MachineEvent,
  type MachineOptions,
  type MachineState,
  MAX_VCPUS,
  type RunOptions,
} from "./machine.js";
export { measureStatic, type StaticMeasurement } from "./measure.js";
export type { Mapping, Syscalls } from "./accel/syscalls.js";
export type { Outcome } from "./accel/vcpu-loop.js";
export { parseTdvf, type Tdvf, type TdvfSection } from "./firmware/tdvf.js";
export { buildTdHob } from "./firmware/td-hob.js";
export {
  e820Table,
  type E820Entry,
  type GpaRange,
  layoutMemory,
  type MemoryMap,
  splitTdRam,
  type TdRamRange,
} from "./memory/memory-map.js";
export { type CpuOption, parseCpuOption } from "./target/cpu-model.js";
export { featureNames } from "./target/cpu-features.js";
export {
  parseTdAttributes,
  TD_ATTRIBUTE_NAMES,
  TD_ATTRIBUTES_DEFAULT,
  TD_IDENTITY_SIZE,
} from "./target/tdx-guest.js";
export type { LaunchPages } from "./target/tdx-launch.js";
export { type QuoteGenerationService } from "./target/quote-generation.js";
export { type BlockBackend, MemoryDrive } from "./hw/virtio/virtio-blk.js";
export { ConsolePort } from "./hw/virtio/virtio-console.js";
export { VirtioVsock, VSOCK_HOST_CID } from "./hw/virtio/virtio-vsock.js";
export type { ByteStream } from "./net/byte-stream.js";
export type { NetBackend, NetCard } from "./net/net-backend.js";
export { type UdpService, USER_NETWORK, UserNetwork } from "./net/user-network.js";
export { type TrustDomain, type TrustDomainOptions } from "./target/trust-domain.js";
export { QmpSession } from "./qmp/qmp.js";
