/** Boots the whole chain (firmware, boot loader, kernel) in a simulated TD with the machine's real devices. */
import { type GuestProgram } from "@swtdx/abi";
import { Machine, type MachineOptions, type Outcome } from "@swtdx/qemu";
import { buildImage, GRUB_FILE_GUID, programs as grubPrograms } from "@swtdx/grub";
import { createGuest, type GuestOptions } from "@swtdx/guest";
import { buildFirmware, programs as firmwarePrograms } from "../../src/index.js";
import { SimulatedKvm, type SimulationOptions } from "./simulated-kvm.js";

export interface BootOptions {
  /** GRUB's configuration. */
  config?: string;
  guest?: GuestOptions;
  machine?: Partial<MachineOptions>;
  simulation?: Partial<SimulationOptions>;
  timeoutSeconds?: number;
  /** Sees the simulated KVM before the TD runs. */
  onStart?: (kvm: SimulatedKvm) => void;
}
export interface Boot {
  outcome: Outcome;
  console: string;
  kvm: SimulatedKvm;
  bios: Uint8Array;
  kernel: Uint8Array;
}

export const allPrograms = (guest: ReadonlyMap<string, GuestProgram>) =>
  new Map([...firmwarePrograms, ...grubPrograms, ...guest]);

export async function boot(options: BootOptions = {}): Promise<Boot> {
  const { image: kernel, programs } = createGuest(options.guest);
  const bios = buildFirmware({ applications: [{ guid: GRUB_FILE_GUID, image: buildImage(options.config) }] });
  const smp = options.machine?.smp ?? 1;
  const kvm = new SimulatedKvm({ programs: allPrograms(programs), smp, ...options.simulation });
  const decoder = new TextDecoder();
  let console = "";
  const machine = new Machine({
    syscalls: kvm,
    bios,
    biosName: "swtdx.fd",
    memoryBytes: 256 * 2 ** 20,
    kernel,
    append: "console=ttyS0",
    serial: (bytes) => {
      console += decoder.decode(bytes, { stream: true });
    },
    ...options.machine,
  });
  options.onStart?.(kvm);
  try {
    const outcome = await machine.run({ timeoutSeconds: options.timeoutSeconds ?? 50 });
    return { outcome, console, kvm, bios, kernel };
  } finally {
    machine.close();
  }
}
