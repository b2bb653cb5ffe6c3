/**
 * What a machine has more when it is a TD: its firmware's metadata, its parameters, its launch, and the
 * TDG.VP.VMCALL sub-functions that KVM leaves to user space. QEMU, target/i386/kvm/tdx.c.
 */
import type { KvmTdxCapabilities, Trace } from "@swtdx/abi";
import { RUN } from "../accel/exits.js";
import type { Kvm, KvmVcpu } from "../accel/kvm.js";
import { parseTdvf, type Tdvf } from "../firmware/tdvf.js";
import type { DmaMemory } from "../memory/guest-memory.js";
import { type MemoryMap, splitTdRam, type TdRamRange } from "../memory/memory-map.js";
import type { CpuModel } from "./cpu-model.js";
import { QuoteGeneration, type QuoteGenerationService, TDG_VP_VMCALL } from "./quote-generation.js";
import { TD_ATTRIBUTES_DEFAULT, tdIdentity } from "./tdx-guest.js";
import { finalizeTd, initTd, type LaunchPages, launchTd } from "./tdx-launch.js";

export interface TrustDomainOptions {
  /** TD ATTRIBUTES, default SEPT_VE_DISABLE. */
  readonly tdAttributes?: bigint;
  /** 48 bytes each, default zeros. */
  readonly mrconfigid?: Uint8Array;
  readonly mrowner?: Uint8Array;
  readonly mrownerconfig?: Uint8Array;
  /** Frequency of the virtual TSC in kHz; default the host's. */
  readonly tscKhz?: number;
  readonly quoteGenerationService?: QuoteGenerationService;
  /** The platform's trace: MRTD is read from it. */
  readonly trace?: Trace;
}

/** KVM_EXIT_TDX: numbers of TDG.VP.VMCALL sub-functions. */
const TDVMCALL = {
  GET_TD_VM_CALL_INFO: 0x10000,
  GET_QUOTE: 0x10002,
  SETUP_EVENT_NOTIFY_INTERRUPT: 0x10004,
} as const;
/** GetTdVmCallInfo leaf 1, R11: SetupEventNotifyInterrupt is there. */
const INFO_SETUP_EVENT_NOTIFY = 1n << 1n;

export class TrustDomain {
  readonly tdvf: Tdvf;
  attributes = 0n;
  xfam = 0n;
  pages: LaunchPages = { added: 0, measured: 0 };
  /** MRTD in hex; null when the platform's trace was not given. */
  mrtd: string | null = null;
  readonly #ram: readonly TdRamRange[];
  readonly #identities: Record<"mrconfigid" | "mrowner" | "mrownerconfig", Uint8Array>;
  #capabilities: KvmTdxCapabilities | null = null;
  #quotes: QuoteGeneration | null = null;
  #notify: { vector: number; apicId: number } | null = null;

  /** Checks everything that needs no kernel. @throws FirmwareError | OptionError */
  constructor(
    private readonly options: TrustDomainOptions,
    bios: Uint8Array,
    biosName: string,
    map: MemoryMap,
  ) {
    this.#identities = {
      mrconfigid: tdIdentity("mrconfigid", options.mrconfigid),
      mrowner: tdIdentity("mrowner", options.mrowner),
      mrownerconfig: tdIdentity("mrownerconfig", options.mrownerconfig),
    };
    this.tdvf = parseTdvf(bios, biosName);
    this.#ram = splitTdRam(map, this.tdvf);
  }

  /** KVM_TDX_CAPABILITIES. */
  capabilities(kvm: Kvm): KvmTdxCapabilities {
    return (this.#capabilities ??= kvm.tdxCapabilities());
  }

  /** KVM_TDX_INIT_VM, before the first vCPU. @throws OptionError | MachineError | IoctlError */
  init(kvm: Kvm, model: CpuModel): void {
    this.attributes = (this.options.tdAttributes ?? TD_ATTRIBUTES_DEFAULT) | model.attributes;
    this.xfam = model.xfam;
    initTd(kvm, this.capabilities(kvm), {
      attributes: this.attributes,
      xfam: this.xfam,
      ...this.#identities,
      tscKhz: this.options.tscKhz ?? 0,
      cpuid: model.initVmCpuid(),
    });
  }

  /** Adds the firmware and finalizes the TD. All vCPUs exist. @throws FirmwareError | IoctlError */
  launch(kvm: Kvm, memory: DmaMemory): void {
    this.pages = launchTd(kvm, this.tdvf, this.#ram);
    const end = this.options.trace?.subscribe(
      ({ register, digest }) => {
        if (register === "MRTD") this.mrtd = digest;
      },
      ["MEASURE"],
    );
    try {
      finalizeTd(kvm);
    } finally {
      end?.();
    }
    this.#quotes = new QuoteGeneration({
      memory,
      service: this.options.quoteGenerationService ?? null,
      completed: () => this.#injectNotify(kvm),
    });
  }

  /** KVM_EXIT_TDX: sets `ret` and the data in kvm_run; what is not known leaves SUBFUNC_UNSUPPORTED there. */
  vmcall({ view, index }: KvmVcpu, number: number): void {
    const ret = (status: bigint) => view.setBigUint64(RUN.tdxRet, status, true);
    const data = (i: number) => view.getBigUint64(RUN.tdxData + 8 * i, true);
    const setData = (i: number, value: bigint) => view.setBigUint64(RUN.tdxData + 8 * i, value, true);
    switch (number) {
      case TDVMCALL.GET_QUOTE:
        return ret(this.#quotes!.getQuote(data(0), data(1)));
      case TDVMCALL.GET_TD_VM_CALL_INFO: {
        if (data(0) !== 1n) return;
        const capabilities = this.#capabilities!;
        const user = capabilities.user_tdvmcallinfo_1_r11 & INFO_SETUP_EVENT_NOTIFY;
        setData(1, capabilities.kernel_tdvmcallinfo_1_r11 | user);
        setData(2, capabilities.kernel_tdvmcallinfo_1_r12);
        setData(3, 0n);
        setData(4, 0n);
        return ret(TDG_VP_VMCALL.SUCCESS);
      }
      case TDVMCALL.SETUP_EVENT_NOTIFY_INTERRUPT: {
        const vector = data(0);
        if (vector < 32n || vector > 255n) return ret(TDG_VP_VMCALL.INVALID_OPERAND);
        this.#notify = { vector: Number(vector), apicId: index };
        return ret(TDG_VP_VMCALL.SUCCESS);
      }
      default:
    }
  }

  #injectNotify(kvm: Kvm): void {
    if (this.#notify === null) return;
    const { vector, apicId } = this.#notify;
    const high = apicId - (apicId & 0xff);
    kvm.signalMsi({ address: 0xfee00000 + (apicId & 0xff) * 0x1000 + high * 2 ** 32, data: vector });
  }

  /** Quotes: see QuoteGeneration. */
  settled(): Promise<unknown> | null {
    return this.#quotes?.settled() ?? null;
  }
  poll(): void {
    this.#quotes?.poll();
  }
}
