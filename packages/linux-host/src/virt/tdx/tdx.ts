/**
 * TDX host support: initialization of the module in the kernel's order, and its functions as KVM calls them.
 * Source: Linux arch/x86/virt/vmx/tdx/tdx.c (tdx_enable, tdx_cpu_enable, tdh_*).
 */
import {
  Errno,
  formatStatus,
  type HpaAndKeyId,
  PAGE_SIZE,
  type Pfn,
  TDMR_INFO,
  TDX_FEATURES0,
} from "@swtdx/abi";
import type { LogicalProcessor, Processor } from "@swtdx/cpu";
import type { KernelLog } from "../../kernel/printk.js";
import type { PageAllocator } from "../../mm/page-allocator.js";
import { GuestKeyIds } from "./keyid.js";
import { leaf, scRetry, seamcall, seamcallRet, type TdxModuleArgs, tdxModuleArgs } from "./seamcall.js";
import { readSysInfo, type TdxSysInfo } from "./sysinfo.js";
import {
  buildTdxMemlist,
  constructTdmrs,
  type Tdmr,
  tdmrPamt,
  tdmrsFreePamtAll,
  type TdxMemblock,
} from "./tdmr.js";

const IA32_MKTME_KEYID_PARTITIONING = 0x87;
/** Entries of the pointer array that TDH.SYS.CONFIG takes: one page holds them. */
const TDMR_INFO_PER_PAGE = PAGE_SIZE / TDMR_INFO.size;

/** As the kernel's log and sysfs have it. */
export const formatVersion = ({ version }: TdxSysInfo): string =>
  `${version.major}.${version.minor}.${String(version.update).padStart(2, "0")}`;

export class TdxHost {
  sysInfo: TdxSysInfo | null = null;
  tdmrs: readonly Tdmr[] = [];
  /** The module's own KeyID. */
  globalKeyId = 0;
  readonly guestKeyIds: GuestKeyIds;
  readonly firstKeyId: number;
  readonly keyIds: number;

  private constructor(
    private readonly processor: Processor,
    private readonly pages: PageAllocator,
    private readonly log: KernelLog,
    partitioning: bigint,
  ) {
    this.firstKeyId = Number(partitioning & 0xffff_ffffn) + 1;
    this.keyIds = Number(partitioning >> 32n);
    // The first private KeyID is the module's.
    this.guestKeyIds = new GuestKeyIds(this.firstKeyId + 1, this.keyIds - 1);
  }

  /** tdx_init(): whether the BIOS gave private KeyIDs. */
  static probe(processor: Processor, pages: PageAllocator, log: KernelLog): TdxHost | null {
    const partitioning = processor.lps[0].rdmsr(IA32_MKTME_KEYID_PARTITIONING);
    if (partitioning.kind !== "ok" || partitioning.value >> 32n === 0n) return null;
    const host = new TdxHost(processor, pages, log, partitioning.value);
    log.printk(
      "info",
      `virt/tdx: BIOS enabled: private KeyID range [${host.firstKeyId}, ${host.firstKeyId + host.keyIds})`,
    );
    // One KeyID is the module's: none would be left for guests.
    if (host.keyIds < 2) {
      log.printk("err", "virt/tdx: initialization failed: too few private KeyIDs available.");
      return null;
    }
    log.printk("info", "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.");
    return host;
  }

  get enabled(): boolean {
    return this.sysInfo !== null;
  }

  /** tdx_cpu_enable() on all CPUs, then tdx_enable(). @returns 0 or -errno */
  enable(memory: readonly TdxMemblock[]): number {
    const failed = this.#cpuEnable() || this.#initModule(memory);
    if (failed !== 0) {
      this.log.printk("err", `virt/tdx: module initialization failed (${failed})`);
      return failed;
    }
    this.log.printk("info", "virt/tdx: module initialized");
    return 0;
  }

  #lp(): LogicalProcessor {
    return this.processor.lps[0];
  }

  #check(name: string, status: bigint): number {
    if (status === 0n) return 0;
    this.log.printk("err", `virt/tdx: SEAMCALL (${name}) failed: ${formatStatus(status)}`);
    return -Errno.EIO;
  }

  #cpuEnable(): number {
    const init = this.#check("TDH.SYS.INIT", scRetry(this.#lp(), leaf("TDH.SYS.INIT"), tdxModuleArgs()));
    if (init !== 0) return init;
    for (const lp of this.processor.lps) {
      const error = this.#check("TDH.SYS.LP.INIT", scRetry(lp, leaf("TDH.SYS.LP.INIT"), tdxModuleArgs()));
      if (error !== 0) return error;
    }
    return 0;
  }

  #initModule(memory: readonly TdxMemblock[]): number {
    const info = readSysInfo(this.#lp());
    if ("field" in info) return this.#check(`TDH.SYS.RD ${info.field}`, info.status);
    this.log.printk("info", `virt/tdx: Module version: ${formatVersion(info)}`);
    if ((info.features0 & TDX_FEATURES0.NO_RBP_MOD) === 0n) {
      this.log.printk("err", "virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module");
      return -Errno.EINVAL;
    }
    const memlist = buildTdxMemlist(memory);
    const pamtPages = {
      alloc: (count: number) => this.pages.allocContigPages(count, "PAMT", 1),
      free: (head: Pfn, count: number) => this.pages.freeContigRange(head, count),
    };
    const tdmrs = constructTdmrs(memlist, info.tdmr, pamtPages, (level, text) =>
      this.log.printk(level, `virt/tdx: ${text}`),
    );
    if (!tdmrs.ok) return tdmrs.errno;
    const error = this.#configure(tdmrs.value);
    if (error !== 0) {
      tdmrsFreePamtAll(tdmrs.value, pamtPages);
      return error;
    }
    const pamtBytes = tdmrs.value.reduce((sum, tdmr) => sum + tdmrPamt(tdmr).size, 0);
    this.log.printk("info", `virt/tdx: ${pamtBytes / 1024} KB allocated for PAMT`);
    this.tdmrs = tdmrs.value;
    this.sysInfo = info;
    return 0;
  }

  /** TDH.SYS.CONFIG, caches, TDH.SYS.KEY.CONFIG, TDH.SYS.TDMR.INIT. */
  #configure(tdmrs: readonly Tdmr[]): number {
    this.globalKeyId = this.firstKeyId;
    const config = this.#sysConfig(tdmrs);
    if (config !== 0) return config;
    for (const lp of this.processor.lps) lp.wbinvd();
    const key = this.#check(
      "TDH.SYS.KEY.CONFIG",
      scRetry(this.#lp(), leaf("TDH.SYS.KEY.CONFIG"), tdxModuleArgs()),
    );
    if (key !== 0) return key;
    for (const tdmr of tdmrs) {
      for (let next = tdmr.base; next < tdmr.base + tdmr.size;) {
        const args = tdxModuleArgs({ rcx: BigInt(tdmr.base) });
        const error = this.#check(
          "TDH.SYS.TDMR.INIT",
          seamcallRet(this.#lp(), leaf("TDH.SYS.TDMR.INIT"), args),
        );
        if (error !== 0) return error;
        next = Number(args.rdx);
      }
    }
    return 0;
  }

  #sysConfig(tdmrs: readonly Tdmr[]): number {
    const lp = this.#lp();
    const count = Math.ceil(tdmrs.length / TDMR_INFO_PER_PAGE);
    const head = this.pages.allocContigPages(1 + count, "TDMR_INFO");
    if (head === null) return -Errno.ENOMEM;
    const base = head * PAGE_SIZE;
    tdmrs.forEach((tdmr, i) => {
      const at = base + PAGE_SIZE + i * TDMR_INFO.size;
      lp.memWriteU64((base + 8 * i) as HpaAndKeyId, BigInt(at));
      lp.memWrite(
        at as HpaAndKeyId,
        TDMR_INFO.encode({
          TDMR_BASE: tdmr.base,
          TDMR_SIZE: tdmr.size,
          PAMT_1G_BASE: tdmr.pamt1gBase,
          PAMT_1G_SIZE: tdmr.pamt1gSize,
          PAMT_2M_BASE: tdmr.pamt2mBase,
          PAMT_2M_SIZE: tdmr.pamt2mSize,
          PAMT_4K_BASE: tdmr.pamt4kBase,
          PAMT_4K_SIZE: tdmr.pamt4kSize,
          RESERVED_AREAS: tdmr.reservedAreas.map(({ offset, size }) => ({ OFFSET: offset, SIZE: size })),
        }),
      );
    });
    const args = tdxModuleArgs({
      rcx: BigInt(base),
      rdx: BigInt(tdmrs.length),
      r8: BigInt(this.globalKeyId),
    });
    const status = seamcall(lp, leaf("TDH.SYS.CONFIG"), args);
    this.pages.freeContigRange(head, 1 + count);
    return this.#check("TDH.SYS.CONFIG", status);
  }

  /** A function of the module on a logical processor; outputs in `args`. */
  call(lp: LogicalProcessor, rax: bigint, args: TdxModuleArgs): bigint {
    return scRetry(lp, rax, args);
  }
}
