/**
 * A plain environment for tests and tools: identity-mapped memory, or 4-level paging if CR0.PG is set; no devices;
 * CPUID, MSRs and ports through overridable methods. No VMX.
 */
import { CR0, CR4, EFER } from "./bits.js";
import type { X86Core } from "./core.js";
import { Hook, Poll, Translation, type PolicyInstruction, type X86Environment } from "./environment.js";
import { Access, Vector } from "./layout.js";
import { REG } from "./register-file.js";

export interface FlatOptions {
  readonly memory: WebAssembly.Memory;
  /** Byte offset in memory of physical address 0, and bytes of physical memory. */
  readonly base: number;
  readonly size: number;
  /** First physical address, for machines that do not start at 0. */
  readonly origin?: number;
}

/** MSRs that live in the register file. */
const MSR_FIELDS: Record<number, number> = {
  0xc0000080: REG.EFER,
  0xc0000081: REG.STAR,
  0xc0000082: REG.LSTAR,
  0xc0000083: REG.CSTAR,
  0xc0000084: REG.FMASK,
  0xc0000100: REG.SEGMENT + 4 * 24,
  0xc0000101: REG.SEGMENT + 5 * 24,
  0xc0000102: REG.KERNEL_GS_BASE,
  0xc0000103: REG.TSC_AUX,
  0x174: REG.SYSENTER_CS,
  0x175: REG.SYSENTER_ESP,
  0x176: REG.SYSENTER_EIP,
  0x277: REG.PAT,
};
const P = 1;
const RW = 2;
const US = 4;
const ACCESSED = 32;
const DIRTY = 64;
const PS = 128;

export class FlatEnvironment implements X86Environment {
  private readonly dv: DataView;
  /** External interrupts waiting, in order. */
  readonly interrupts: number[] = [];
  /** Set when the processor has shut down. */
  down = false;
  halted = false;

  constructor(readonly options: FlatOptions) {
    this.dv = new DataView(options.memory.buffer);
  }

  /** Byte offset in memory of a physical address, or -1. */
  hostOf(physical: number): number {
    const at = physical - (this.options.origin ?? 0);
    return at >= 0 && at < this.options.size ? this.options.base + at : -1;
  }

  translate(core: X86Core, low: number, high: number, access: number, user: boolean): number {
    const cr0 = core.get32(REG.CR0);
    let physical = (low >>> 0) + (high >>> 0) * 0x100000000;
    let writable = true;
    if (cr0 & CR0.PG) {
      const entry = this.walk(core, low, high, access, user);
      if (entry < 0) return Translation.FAULT;
      physical = entry;
      writable = this.walkWritable;
    }
    const host = this.hostOf(physical - (physical % 4096));
    if (host < 0) {
      core.fill.physical = physical - (physical % 4096);
      return Translation.DEVICE;
    }
    core.fill.frame = host;
    core.fill.writable = writable;
    return Translation.OK;
  }
  private walkWritable = false;

  /** Four-level or PAE-less two-level walks are told apart by the mode. Physical address, or -1 with #PF prepared. */
  private walk(core: X86Core, low: number, high: number, access: number, user: boolean): number {
    const write = (access & Access.WRITE) !== 0;
    const execute = (access & Access.EXECUTE) !== 0;
    const cr0 = core.get32(REG.CR0);
    const cr4 = core.get32(REG.CR4);
    const nx = (core.get32(REG.EFER) & EFER.NXE) !== 0;
    const fault = (present: number) => {
      const code = present | (write ? 2 : 0) | (user ? 4 : 0) | (execute && (nx || cr4 & CR4.SMEP) ? 16 : 0);
      core.raisePageFault(low, high, code);
      return -1;
    };
    let table = core.get32(REG.CR3) & ~0xfff;
    const wide = (core.get32(REG.EFER) & EFER.LMA) !== 0;
    let rights = RW | US;
    let noExecute = false;
    const levels = wide ? 4 : 2;
    for (let level = levels; level >= 1; level--) {
      const shift = wide ? 12 + 9 * (level - 1) : 12 + 10 * (level - 1);
      const index = wide
        ? (shift >= 32 ? high >>> (shift - 32) : (low >>> shift) | (high << (32 - shift))) & 511
        : (low >>> shift) & 1023;
      const at = this.hostOf((table >>> 0) + index * (wide ? 8 : 4));
      if (at < 0) return fault(0);
      const entry = this.dv.getUint32(at, true);
      const entryHigh = wide ? this.dv.getUint32(at + 4, true) : 0;
      if (!(entry & P)) return fault(0);
      rights &= entry;
      if (nx && entryHigh >>> 31) noExecute = true;
      const leaf = level === 1 || (entry & PS && (level === 2 || (wide && level === 3)));
      if (!leaf) {
        table = entry & ~0xfff;
        continue;
      }
      const wp = user || (cr0 & CR0.WP) !== 0;
      if (user && !(rights & US)) return fault(1);
      if (write && wp && !(rights & RW)) return fault(1);
      if (execute && noExecute) return fault(1);
      if (!user && rights & US) {
        if (execute && cr4 & CR4.SMEP) return fault(1);
        if (!execute && cr4 & CR4.SMAP && !(core.get32(REG.RFLAGS) & (1 << 18))) return fault(1);
      }
      const wanted = entry | ACCESSED | (write ? DIRTY : 0);
      if (wanted !== entry) this.dv.setUint32(at, wanted, true);
      this.walkWritable = (wanted & DIRTY) !== 0 && (!wp || (rights & RW) !== 0);
      const size = 2 ** shift;
      const base = (entry & ~0xfff) >>> 0;
      return base - (base % size) + (entryHigh & 0xfffff) * 0x100000000 + ((low >>> 0) % size);
    }
    return fault(0);
  }

  deviceRead(core: X86Core, _physical: number, size: number, at: number): void {
    core.u8.fill(0xff, core.scratch + at, core.scratch + at + size);
  }
  deviceWrite(): void {}

  instruction(core: X86Core, name: PolicyInstruction): number {
    switch (name) {
      case "hlt":
        this.halted = true;
        return Hook.DONE_STOP;
      case "cpuid":
        for (const n of [0, 1, 2, 3]) core.set64(n * 8, 0n);
        return Hook.DONE;
      case "rdmsr":
      case "wrmsr": {
        const field = MSR_FIELDS[core.get32(8) >>> 0];
        if (field === undefined) {
          core.raise(Vector.GP, 0);
          return Hook.FAULT;
        }
        if (name === "rdmsr") {
          const value = core.get64(field);
          core.set64(0, value & 0xffffffffn);
          core.set64(16, value >> 32n);
        } else core.set64(field, (core.get64(0) & 0xffffffffn) | ((core.get64(16) & 0xffffffffn) << 32n));
        return Hook.DONE;
      }
      case "rdtsc":
      case "rdtscp": {
        const now = BigInt(core.instructions);
        core.set64(0, now & 0xffffffffn);
        core.set64(16, now >> 32n);
        if (name === "rdtscp") core.set64(8, core.get64(REG.TSC_AUX) & 0xffffffffn);
        return Hook.DONE;
      }
      case "rdpid":
        core.value = core.get64(REG.TSC_AUX);
        return Hook.DONE;
      case "invlpg":
        core.flushPage(Number(core.operand & 0xffffffffn) | 0, Number(core.operand >> 32n) | 0);
        return Hook.DONE;
      case "xsetbv":
        core.set64(REG.XCR0, (core.get64(0) & 0xffffffffn) | ((core.get64(16) & 0xffffffffn) << 32n));
        return Hook.DONE;
      case "pause":
      case "wbinvd":
      case "wbnoinvd":
      case "invd":
      case "clflush":
      case "monitor":
        return Hook.DONE;
      default:
        core.raise(Vector.UD);
        return Hook.FAULT;
    }
  }
  readControl(core: X86Core, register: number): number {
    core.value = core.get64(REG.CR0 + (register === 8 ? 32 : register === 0 ? 0 : (register - 1) * 8));
    return Hook.DONE;
  }
  writeControl(core: X86Core, register: number): number {
    const field = { 0: REG.CR0, 2: REG.CR2, 3: REG.CR3, 4: REG.CR4, 8: REG.CR8 }[register]!;
    core.set64(field, core.value);
    if (register === 0) {
      const efer = core.get32(REG.EFER);
      const paging = (core.get32(REG.CR0) & CR0.PG) !== 0;
      core.set32(REG.EFER, paging && efer & EFER.LME ? efer | EFER.LMA : efer & ~EFER.LMA);
    }
    if (register !== 2 && register !== 8) core.flushTlb();
    return Hook.DONE;
  }
  accessDebug(): number {
    return Hook.DONE;
  }
  portIn(core: X86Core, _port: number, size: number): number {
    core.value = (1n << BigInt(size * 8)) - 1n;
    return Hook.DONE;
  }
  portOut(_core: X86Core, _port: number, _size: number): number {
    return Hook.DONE;
  }
  descriptorTable(): number {
    return Hook.DONE;
  }
  intercept(_core: X86Core): boolean {
    return false;
  }
  poll(_core: X86Core, open: boolean): number {
    if (this.down || this.halted) return Poll.STOP;
    return open && this.interrupts.length > 0 ? this.interrupts.shift()! : Poll.NONE;
  }
  interruptReturn(): void {}
  shutdown(): void {
    this.down = true;
  }
}
