/**
 * A real processor and memory controller for tests of the module's guest side: SEAM root mode is entered through a
 * firmware that does what the test says, and TDs run TypeScript guest programs.
 */
import { encodeProgramImage, type GuestProgram, type Hpa, type HpaAndKeyId, type KeyId } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import {
  Gpr,
  Processor,
  ProgramEngine,
  SeamFirmwareError,
  VMCS_REVISION,
  type LogicalProcessor,
  type SeamContext,
  VMCS,
} from "@swtdx/cpu";
import { Arena, MemoryController } from "@swtdx/mktme";
import { SeptState } from "../../src/structures/sept.js";
import { TDCS } from "../../src/structures/tdcs.js";
import { getCpuidLookupEntry, type CpuidQuad } from "../../src/tables/cpuid.js";
import { tdVmcsValues } from "../../src/tables/td-vmcs.js";
import { GLOBAL_HKID, KEY_SHIFT, TD_HKID, TestTd, VpEnterRun, type TestTdOptions } from "./fake-seam.js";

const IA32_FEATURE_CONTROL = 0x3a;
const IA32_TME_ACTIVATE = 0x982;
const SEAMRR_BASE = 0x1400;
const SEAMRR_MASK = 0x1401;
const VMXON_REGION = 0x8000;
/** Where the guest has its page tables and its program. */
export const GUEST_TABLES = 0x1_0000;
export const GUEST_PROGRAM = 0x2_0000;

const ok = (outcome: { kind: string }): void => {
  if (outcome.kind !== "ok") throw new Error(JSON.stringify(outcome));
};

export class RealPlatform {
  readonly processor: Processor;
  readonly #programs = new Map<string, GuestProgram>();
  #firmware: (lp: SeamContext) => void = () => undefined;

  constructor(lps = 1) {
    const random = new SeededRandom(Uint8Array.of(1, 2, 3));
    const arena = new Arena({ residentBytes: 2 ** 27 });
    this.processor = new Processor({
      arena,
      memory: new MemoryController(arena, { dramBytes: 2 ** 30, random }),
      random,
      lps,
      engines: [new ProgramEngine({ programs: this.#programs })],
    });
    this.processor.registerSeamFirmware("@swtdx/test:Seam", () => ({
      seamcall: (lp) => this.#firmware(lp),
    }));
    const first = this.processor.lps[0];
    // 64 KeyIDs, 62 of them private; AES-XTS-128.
    ok(first.wrmsr(IA32_TME_ACTIVATE, (1n << 48n) | (5n << 36n) | (6n << 32n) | 2n));
    ok(first.wrmsr(SEAMRR_BASE, 0x3000_0008n));
    ok(first.wrmsr(SEAMRR_MASK, 0xf_ffff_fe00_0c00n));
    ok(first.enteraccs(encodeProgramImage("@swtdx/test:Seam")));
    for (const lp of this.processor.lps) {
      const region = (VMXON_REGION + lp.index * 0x1000) as HpaAndKeyId;
      ok(lp.wrmsr(IA32_FEATURE_CONTROL, 5n));
      ok(lp.memWriteU64(region, BigInt(VMCS_REVISION)));
      ok(lp.vmxon(region));
    }
    this.seam((lp) => {
      for (const keyId of [GLOBAL_HKID, TD_HKID])
        lp.pconfig({ keyId: keyId as KeyId, command: 1, encAlg: 1 });
    });
  }

  /** Runs `work` in SEAM root mode of a logical processor. */
  seam<T>(work: (lp: SeamContext) => T, lp: LogicalProcessor = this.processor.lps[0]): T {
    let result: { value: T } | null = null;
    let failure: unknown = null;
    this.#firmware = (context) => {
      try {
        result = { value: work(context) };
      } catch (error) {
        if (!(error instanceof SeamFirmwareError)) throw error;
        failure = error;
      }
    };
    lp.regs.setGpr(Gpr.RAX, 1n << 63n);
    const outcome = lp.seamcall();
    if (failure) throw failure as Error;
    if (outcome.kind !== "ok" || outcome.cf || !result)
      throw new Error(`SEAMCALL: ${JSON.stringify(outcome)} ${String(Reflect.get(lp, "shutdownReason"))}`);
    return (result as { value: T }).value;
  }

  /** What the TD VMCS and the guest side depend on, as TDH.SYS.INIT finds it. */
  #platform(lp: SeamContext) {
    const msr = (index: number): bigint => {
      const outcome = lp.rdmsr(index);
      return outcome.kind === "ok" ? outcome.value : 0n;
    };
    const values = tdVmcsValues(msr, true);
    if ("msr" in values) throw new Error(`MSR 0x${values.msr.toString(16)}`);
    return {
      tdVmcsValues: values,
      crFixed: {
        cr0Fixed0: msr(0x486),
        cr0Fixed1: msr(0x487),
        cr4Fixed0: msr(0x488),
        cr4Fixed1: msr(0x489),
      },
      vmcsRevisionId: VMCS_REVISION,
      ddpdSupported: false,
    };
  }

  /** A TD in 64-bit mode whose first GiB is mapped one to one, at the entry of `program`. */
  td(program: GuestProgram, options: TestTdOptions = {}): RealTd {
    const name = `@swtdx/test:Guest${this.#programs.size}`;
    this.#programs.set(name, program);
    return this.seam((ctx) => {
      const td = new TestTd({ ...options, seam: { ctx, platform: this.#platform(ctx) } }).longMode(
        BigInt(GUEST_PROGRAM),
      );
      ctx.vmwrite(VMCS.GUEST_CR0, ctx.vmread(VMCS.GUEST_CR0) | 0x8000_0001n);
      ctx.vmwrite(VMCS.GUEST_CR4, ctx.vmread(VMCS.GUEST_CR4) | 0x20n);
      ctx.vmwrite(VMCS.GUEST_CR3, BigInt(GUEST_TABLES));
      ctx.vmwrite(VMCS.VM_ENTRY_CONTROLS, ctx.vmread(VMCS.VM_ENTRY_CONTROLS) | 0x200n);
      const real = new RealTd(this, td);
      real.write(GUEST_TABLES, u64(GUEST_TABLES + 0x1003), SeptState.MAPPED);
      real.write(GUEST_TABLES + 0x1000, u64(0x83, 2 ** 30 + 0x83, 2 ** 31 + 0x83), SeptState.MAPPED);
      real.write(GUEST_PROGRAM, encodeProgramImage(name), SeptState.MAPPED);
      return real;
    });
  }
}

const u64 = (...values: number[]): Uint8Array => new Uint8Array(BigUint64Array.from(values, BigInt).buffer);

export class RealTd {
  readonly enterRun: VpEnterRun;

  constructor(
    readonly platform: RealPlatform,
    readonly td: TestTd,
  ) {
    this.enterRun = new VpEnterRun(td, BigInt(td.tdvps.tdvprPa));
  }

  /** Maps a page of the guest and fills it; in SEAM root mode. */
  write(gpa: number, bytes: Uint8Array, state: SeptState): void {
    const hpa = this.td.map(gpa, state);
    this.td.ctx.write(hpa as Hpa, TD_HKID as KeyId, bytes);
  }
  setCpuid(leaf: number, subleaf: number, values: CpuidQuad): void {
    this.platform.seam(() => {
      const index = getCpuidLookupEntry(leaf, subleaf);
      this.td.setCpuid(index, values);
      this.td.tdcs.setAt(TDCS.CPUID_VALID, index, 1);
    });
  }

  /** TDH.VP.ENTER. @returns RAX; the other registers are in the logical processor's */
  enter(registers: Partial<Record<keyof typeof Gpr, bigint>> = {}): bigint {
    const { platform } = this;
    const lp = platform.processor.lps[0];
    for (const [name, value] of Object.entries(registers))
      lp.regs.setGpr(Gpr[name as keyof typeof Gpr], value);
    return platform.seam(() => this.enterRun.run());
  }
}
export { KEY_SHIFT };
