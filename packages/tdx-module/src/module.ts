/**
 * The TDX module: its own data (in the SEAM range on hardware, private to this object here) and the dispatch of
 * SEAMCALLs. All that belongs to a TD is in DRAM under its key.
 *
 * Source: intel/tdx-module src/vmm_dispatcher/tdx_vmm_dispatcher.c, src/common/data_structures/tdx_global_data.h.
 */
import { type Hpa, type KeyId, TDX_STATUS, type Trace, withOperand } from "@swtdx/abi";
import { Gpr, PconfigStatus, type SeamContext, type SeamFirmware, type SeamLoad } from "@swtdx/cpu";
import { SeamCall } from "./call.js";
import type { VpEnterHost } from "./entry/tdh-vp-enter.js";
import type { TdVmcsPlatform } from "./entry/td-vmcs-init.js";
import type { GuestSidePlatform } from "./entry/vp-context.js";
import { KeyOwnershipTable } from "./kot.js";
import { MrtdContext } from "./measurement.js";
import { createGuestMetadata } from "./metadata/access.js";
import type { Platform } from "./platform.js";
import type { SysInfoTable } from "./seamldr/sysinfo-table.js";
import { seamcallRow } from "./dispatch.js";
import { SysState } from "./sys-state.js";
import { pamtOwner, type TdmrEntry } from "./structures/pamt.js";

/** What the module keeps per logical processor. */
interface LocalData {
  initialized: boolean;
}

/** KEYID_CTRL.ENC_ALG of PCONFIG. */
const ENC_ALG = { AES_XTS_128: 1, AES_XTS_128_WITH_INTEGRITY: 2 } as const;

export class TdxModule implements SeamFirmware {
  state: SysState = SysState.SYSINIT_PENDING;
  #platform: Platform | null = null;
  #kot: KeyOwnershipTable | null = null;
  /** TDH.SYS.CONFIG's TDMRs, sorted by base. */
  readonly tdmrs: TdmrEntry[] = [];
  globalHkid = 0 as KeyId;
  /** Packages with the global key. */
  packageBitmap = 0n;
  readonly lastTdvpr: (number | undefined)[] = [];
  readonly #local = new Map<number, LocalData>();
  readonly #calls = new Map<number, SeamCall>();
  readonly #mrtd = new Map<number, MrtdContext>();
  #guestSide: GuestSidePlatform | null = null;
  #vpEnterHost: VpEnterHost | null = null;

  constructor(
    readonly load: SeamLoad,
    readonly sysInfo: SysInfoTable,
    readonly trace: Trace,
  ) {}

  // ---- Platform, as TDH.SYS.INIT found it

  get platform(): Platform {
    return this.#platform!;
  }
  get kot(): KeyOwnershipTable {
    return this.#kot!;
  }
  get keyIdShift(): number {
    return this.platform.keyIdShift;
  }
  /** Physical addresses from here on have KeyID bits. */
  keyIdUnit = 2 ** 52;

  /** TDH.SYS.INIT is done. */
  initialize(lp: SeamContext, platform: Platform): void {
    this.#platform = platform;
    this.keyIdUnit = 2 ** platform.keyIdShift;
    this.#kot = new KeyOwnershipTable(platform.firstPrivateHkid, platform.privateHkids);
    this.#guestSide = {
      trace: this.trace,
      metadata: createGuestMetadata(this),
      crFixed: platform.crFixed,
      xcr0Supported: platform.xcr0Supported,
      xssSupported: platform.xssSupported,
      tsxCtrl: (platform.archCapabilities & (1n << 7n)) !== 0n,
      perfCapabilities: platform.perfCapabilities,
      seamverifyreportAvailable: (lp.seamopsCapabilities() & (1n << 6n)) !== 0n,
      keyIdShift: platform.keyIdShift,
      isSharedHpa: (pa, length) => this.isSharedHpa(pa, length),
    };
    const { tscAdjust } = platform;
    this.#vpEnterHost = { guestSide: this.#guestSide, tscAdjust, lastTdvpr: this.lastTdvpr };
    this.state = SysState.SYSINIT_DONE;
  }

  get vmcsPlatform(): TdVmcsPlatform {
    const { vmcsValues, crFixed, ddpdSupported, keyIdShift, vmcsRevisionId } = this.platform;
    return { tdVmcsValues: vmcsValues, crFixed, ddpdSupported, keyIdShift, vmcsRevisionId };
  }
  get vpEnterHost(): VpEnterHost {
    return this.#vpEnterHost!;
  }
  get guestSide(): GuestSidePlatform {
    return this.#guestSide!;
  }

  local(index: number): LocalData {
    let local = this.#local.get(index);
    if (!local) this.#local.set(index, (local = { initialized: false }));
    return local;
  }
  get initializedLps(): number {
    let count = 0;
    for (const { initialized } of this.#local.values()) if (initialized) count++;
    return count;
  }

  /** Whether `length` bytes at a physical address with KeyID bits may be shared memory. */
  isSharedHpa(pa: number, length: number): boolean {
    const unit = 2 ** this.keyIdShift;
    const address = pa % unit;
    const { base, size } = this.load.seamRange;
    if (address < base + size && base < address + length) return false;
    return pa < 2 ** 52 && Math.floor(pa / unit) < this.kot.first;
  }

  pamtOwner(lp: SeamContext, entry: Hpa): Hpa {
    return pamtOwner(lp, entry, this.globalHkid);
  }

  /** A random key for an HKID on this package. */
  programKey(lp: SeamContext, keyId: KeyId): bigint {
    const encAlg = this.sysInfo.tdxWithoutIntegrity
      ? ENC_ALG.AES_XTS_128
      : ENC_ALG.AES_XTS_128_WITH_INTEGRITY;
    switch (lp.pconfig({ keyId, command: 1, encAlg })) {
      case PconfigStatus.SUCCESS:
        return TDX_STATUS.TDX_SUCCESS;
      case PconfigStatus.DEVICE_BUSY:
        return withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "KET");
      case PconfigStatus.ENTROPY_ERROR:
        return TDX_STATUS.TDX_KEY_GENERATION_FAILED;
      default:
        return lp.shutdown(`TDX module: PCONFIG refuses KeyID ${keyId}`);
    }
  }

  /** 32 random bytes, or null without entropy. */
  random256(lp: SeamContext): Uint8Array | null {
    const out = new Uint8Array(32);
    const view = new DataView(out.buffer);
    for (let at = 0; at < 32; at += 8) {
      const value = lp.rdrand();
      if (value === null) return null;
      view.setBigUint64(at, value, true);
    }
    return out;
  }

  /** The measurement of a TD that is being built, by its TDR. */
  mrtd(tdr: Hpa): MrtdContext {
    let context = this.#mrtd.get(tdr);
    if (!context) this.#mrtd.set(tdr, (context = new MrtdContext()));
    return context;
  }
  endMrtd(tdr: Hpa): void {
    this.#mrtd.delete(tdr);
  }

  // ---- SEAMCALL

  seamcall(lp: SeamContext): void {
    let call = this.#calls.get(lp.index);
    if (!call) this.#calls.set(lp.index, (call = new SeamCall(lp, this)));
    lp.regs.setGpr(Gpr.RAX, this.#dispatch(call));
  }

  #dispatch(call: SeamCall): bigint {
    const at = Gpr.RAX * 8;
    const low = call.regs.get32(at);
    // RAX[15:0] leaf, [23:16] version; bit 63 is the P-SEAMLDR's.
    const leaf = low & 0xffff;
    const version = (low >>> 16) & 0xff;
    const row = seamcallRow(leaf);
    if (
      low >>> 24 !== 0 ||
      (call.regs.get32(at + 4) & 0x7fff_ffff) !== 0 ||
      (version > 0 && (row?.version ?? 0) === 0)
    )
      return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RAX");
    if (this.state === SysState.SYS_SHUTDOWN && row?.name !== "TDH.SYS.LP.SHUTDOWN")
      return TDX_STATUS.TDX_SYS_SHUTDOWN;
    if (this.state !== SysState.SYS_READY && !row?.beforeReady) return TDX_STATUS.TDX_SYS_NOT_READY;
    if (!row || version > row.version) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RAX");
    call.leaf = leaf;
    this.trace.seamcalls[leaf]++;
    const input = this.trace.on.SEAMCALL ? capture(call, row.inputs) : null;
    const status = row.handler(call, version);
    call.release();
    if (input !== null)
      this.trace.emit({
        type: "SEAMCALL",
        lp: call.lp.index,
        leaf: row.name,
        input,
        status,
        output: capture(call, row.outputs),
      });
    return status;
  }
}

const capture = (call: SeamCall, names: readonly (keyof typeof Gpr)[]): Record<string, bigint> =>
  Object.fromEntries(names.map((name) => [name, call.regs.gpr(Gpr[name])]));
