/**
 * The execution engine of machine code: @swtdx/x86's core behind the processor's engine interface.
 *
 * A logical processor gets its core when it first runs machine code. The core works on the register file and the
 * arena directly; what it keeps besides (translations, decoded code) it drops when the processor says so.
 */
import { X86Core } from "@swtdx/x86";
import { Step, type EngineHost, type ExecutionEngine, type GuestContext } from "../interface/engine.js";
import { GuestEnvironment } from "./x86-environment.js";

/** Instructions in a row before the loop here is gone through. */
const SLICE = 1 << 24;
/** What fits beside others in CodeFrames. */
const MAX_LPS = 30;

export interface X86EngineOptions {
  /** Room for decoded instructions of each logical processor, in bytes; default 32 MiB. */
  readonly codeBytes?: number;
  /** Called before every instruction: the registers are complete and may be changed. Slow: for tools that trace. */
  readonly observe?: (guest: GuestContext) => void;
  /** Instructions that raise #UD because CPUID does not offer them, by the names of the opcode tables. */
  readonly absent?: ReadonlySet<string>;
}

/** What one logical processor has. */
interface Unit {
  readonly core: X86Core;
  readonly environment: GuestEnvironment;
}

export class X86Engine implements ExecutionEngine {
  readonly name = "x86";
  readonly handsOver = true;
  readonly #units = new Map<GuestContext, Unit>();
  readonly #hosts = new Map<GuestContext, EngineHost>();

  constructor(private readonly options: X86EngineOptions = {}) {}

  attach(guest: GuestContext, host: EngineHost): void {
    if (guest.lpIndex < MAX_LPS) this.#hosts.set(guest, host);
  }
  claims(guest: GuestContext): boolean {
    return this.#hosts.has(guest);
  }

  #unit(guest: GuestContext): Unit {
    const existing = this.#units.get(guest);
    if (existing) return existing;
    const host = this.#hosts.get(guest)!;
    const environment = new GuestEnvironment(guest, () => host.awaited(guest));
    const core = new X86Core({
      memory: host.arena.memory,
      regs: guest.regs,
      environment,
      codeFrames: host.code,
      reserve: (bytes, align) => host.arena.reserve(bytes, align),
      ...this.options,
    });
    guest.onTlbFlush((pageLow, pageHigh) => {
      if (pageHigh < 0) core.flushTlb();
      else core.flushPage(pageLow << 12, (pageHigh << 12) | (pageLow >>> 20));
    });
    const unit = { core, environment };
    this.#units.set(guest, unit);
    return unit;
  }

  run(guest: GuestContext, injected: boolean): "exit" | "handover" {
    if (guest.exited) return "exit";
    const { core, environment } = this.#unit(guest);
    const { observe } = this.options;
    environment.begin(core);
    if (injected && guest.deliver() === Step.EXIT) return "exit";
    for (;;) {
      if (guest.attention) {
        guest.updateMode();
        const step = guest.poll();
        if (step === Step.EXIT) return "exit";
        if (step === Step.EVENT) {
          if (guest.deliver() === Step.EXIT) return "exit";
          continue;
        }
      }
      observe?.(guest);
      core.run(observe ? 1 : Math.min(guest.budget(), SLICE));
      environment.sync(core);
      if (guest.exited) return "exit";
      if (environment.handover) {
        environment.handover = false;
        guest.updateMode();
        return "handover";
      }
    }
  }
}
