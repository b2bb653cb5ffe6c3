/** A small machine for tests: memory, one core, a flat environment. */
import {
  CodeFrames,
  FlatEnvironment,
  type FlatOptions,
  REG,
  RegisterFile,
  SEGMENT_SIZE,
  X86Core,
} from "../src/index.js";
import { AR } from "../src/bits.js";

export interface TestMachine {
  readonly core: X86Core;
  readonly environment: FlatEnvironment;
  /** Byte offset in memory of physical address 0. */
  readonly base: number;
}

/** @param physical bytes of physical memory @param make builds the environment @param absent not offered by CPUID */
export function machine(
  physical = 1 << 20,
  make: (options: FlatOptions) => FlatEnvironment = (o) => new FlatEnvironment(o),
  absent?: ReadonlySet<string>,
): TestMachine {
  const codeBytes = 4 << 20;
  const pages = Math.ceil((physical + codeBytes + (2 << 20)) / 65536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  let next = 65536;
  const reserve = (bytes: number, align: number) => {
    const at = Math.ceil(next / align) * align;
    next = at + bytes;
    return at;
  };
  const regs = new RegisterFile(memory.buffer, reserve(2048, 64));
  const base = reserve(physical, 4096);
  const environment = make({ memory, base, size: physical });
  const codeFrames = new CodeFrames(memory.buffer.byteLength);
  const core = new X86Core({ memory, regs, environment, codeFrames, reserve, codeBytes, absent });
  return { core, environment, base };
}

/** Flat segments: 64-bit, 32-bit protected or real mode. */
export function setMode(core: X86Core, bits: 16 | 32 | 64): void {
  const segment = (n: number, ar: number, limit: number) => {
    core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 12, ar);
    core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 8, limit);
    core.set64(REG.SEGMENT + n * SEGMENT_SIZE, 0n);
    core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 16, bits === 16 ? 0 : n === 1 ? 8 : 16);
  };
  core.set32(REG.CR0, bits === 16 ? 0x10 : 0x31);
  core.set32(REG.CR4, 0x40600);
  core.set32(REG.EFER, bits === 64 ? 0x501 : 0);
  core.set64(REG.XCR0, 3n);
  const code = bits === 64 ? AR.L : bits === 32 ? AR.DB : 0;
  const limit = bits === 16 ? 0xffff : -1;
  for (let n = 0; n < 6; n++) {
    segment(n, n === 1 ? 0x9b | code | AR.G : 0x93 | (bits === 16 ? 0 : AR.DB) | AR.G, limit);
  }
  segment(6, AR.UNUSABLE, 0);
  segment(7, 0x8b, 0x67);
  core.set32(REG.MXCSR, 0x1f80);
  core.set32(REG.FCW, 0x37f);
  core.set32(REG.FTW, 0xffff);
  core.set32(REG.RFLAGS, 2);
}
