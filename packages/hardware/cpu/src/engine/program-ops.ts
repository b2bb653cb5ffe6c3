/**
 * The operations of TypeScript guest programs as instructions: operands into registers, the instruction, results
 * out of registers. One row per operation. Registers are those that the named encoding uses.
 */
import type { GprName, GuestOp } from "@swtdx/abi";
import { GPR_NAMES } from "@swtdx/abi";
import { Gpr, REG, RegisterFile, SEG, SegmentRegister } from "@swtdx/x86";
import { Access, Step, type GuestContext } from "../interface/engine.js";

type OpOf<K extends GuestOp["op"]> = Extract<GuestOp, { op: K }>;

/** How an operation is executed. `K` ties operand types to the row. */
interface OpRow<K extends GuestOp["op"]> {
  /** Length of the instruction in bytes. */
  length(op: OpOf<K>): number;
  /** Executes it: operands are placed first, so that an exit finds them. */
  execute(g: GuestContext, op: OpOf<K>, state: OpState): Step;
  /** The result, from registers: after DONE, or when the VMM completed the instruction. */
  result(g: GuestContext, op: OpOf<K>, state: OpState): unknown;
}
/** Progress of an operation that restarts where it stopped. */
export interface OpState {
  /** Bytes copied by loadBytes / storeBytes. */
  done: number;
  buffer: Uint8Array | null;
}

const LOW32 = 0xffffffffn;
const low = (value: bigint): number => Number(value & LOW32);
const high = (value: bigint): number => Number((value >> 32n) & LOW32);
const nothing = (): undefined => undefined;
const fixed = (length: number) => (): number => length;

/** All general-purpose registers by name. */
export function snapshot(regs: RegisterFile): Record<GprName, bigint> {
  const out = {} as Record<GprName, bigint>;
  for (let i = 0; i < 16; i++) out[GPR_NAMES[i]] = regs.gpr(i);
  return out;
}
export function place(regs: RegisterFile, values: Partial<Record<GprName, bigint>>): void {
  for (let i = 0; i < 16; i++) {
    const value = values[GPR_NAMES[i]];
    if (value !== undefined) regs.setGpr(i, BigInt.asUintN(64, value));
  }
}
const partial = (regs: RegisterFile, value: bigint, size: number): bigint =>
  size === 4 || size === 8 ? value : (regs.gpr(Gpr.RAX) & ~((1n << BigInt(size * 8)) - 1n)) | value;
const edxEax = (g: GuestContext): bigint =>
  ((g.regs.gpr(Gpr.RDX) & LOW32) << 32n) | (g.regs.gpr(Gpr.RAX) & LOW32);
const carry = (g: GuestContext): boolean => (g.regs.get32(REG.RFLAGS) & 1) !== 0;

export const OPS: { readonly [K in GuestOp["op"]]: OpRow<K> } = {
  cpuid: {
    length: fixed(2),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RAX, BigInt(op.leaf >>> 0));
      g.regs.setGpr(Gpr.RCX, BigInt(op.subleaf >>> 0));
      return g.cpuid(2);
    },
    result: (g) => ({
      eax: low(g.regs.gpr(Gpr.RAX)),
      ebx: low(g.regs.gpr(Gpr.RBX)),
      ecx: low(g.regs.gpr(Gpr.RCX)),
      edx: low(g.regs.gpr(Gpr.RDX)),
    }),
  },
  rdmsr: {
    length: fixed(2),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RCX, BigInt(op.index >>> 0));
      return g.rdmsr(2);
    },
    result: edxEax,
  },
  wrmsr: {
    length: fixed(2),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RCX, BigInt(op.index >>> 0));
      g.regs.setGpr(Gpr.RAX, op.value & LOW32);
      g.regs.setGpr(Gpr.RDX, (op.value >> 32n) & LOW32);
      return g.wrmsr(2);
    },
    result: nothing,
  },
  // IN AL/AX/EAX, DX
  in: {
    length: (op) => (op.size === 2 ? 2 : 1),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RDX, BigInt(op.port));
      const step = g.in(op.port, op.size, op.size === 2 ? 2 : 1, false);
      if (step === Step.DONE) g.regs.setGpr(Gpr.RAX, partial(g.regs, BigInt(g.low), op.size));
      return step;
    },
    result: (g, op) => Number(g.regs.gpr(Gpr.RAX) & ((1n << BigInt(op.size * 8)) - 1n)),
  },
  out: {
    length: (op) => (op.size === 2 ? 2 : 1),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RDX, BigInt(op.port));
      g.regs.setGpr(Gpr.RAX, partial(g.regs, BigInt(op.value >>> 0), op.size));
      return g.out(op.port, op.size, op.value, op.size === 2 ? 2 : 1, false);
    },
    result: nothing,
  },
  // MOV rAX, [RCX]
  load: {
    length: (op) => (op.size === 8 || op.size === 2 ? 3 : 2),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RCX, BigInt.asUintN(64, op.gla));
      const step = g.load(low(op.gla), high(op.gla), op.size, Access.READ);
      if (step === Step.DONE)
        g.regs.setGpr(Gpr.RAX, partial(g.regs, (BigInt(g.high) << 32n) | BigInt(g.low), op.size));
      return step;
    },
    result: (g, op) => g.regs.gpr(Gpr.RAX) & ((1n << BigInt(op.size * 8)) - 1n),
  },
  // MOV [RCX], rAX
  store: {
    length: (op) => (op.size === 8 || op.size === 2 ? 3 : 2),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RCX, BigInt.asUintN(64, op.gla));
      g.regs.setGpr(Gpr.RAX, BigInt.asUintN(64, op.value));
      return g.store(low(op.gla), high(op.gla), op.size, low(op.value), high(op.value));
    },
    result: nothing,
  },
  // REP MOVSB from RSI
  loadBytes: {
    length: fixed(2),
    execute: (g, op, state) => {
      state.buffer ??= new Uint8Array(op.length);
      const step = g.loadBytes(op.gla + BigInt(state.done), state.buffer.subarray(state.done));
      state.done += g.done;
      g.regs.setGpr(Gpr.RSI, BigInt.asUintN(64, op.gla + BigInt(state.done)));
      g.regs.setGpr(Gpr.RCX, BigInt(op.length - state.done));
      return step;
    },
    result: (_g, op, state) => state.buffer ?? new Uint8Array(op.length),
  },
  // REP MOVSB to RDI
  storeBytes: {
    length: fixed(2),
    execute: (g, op, state) => {
      const step = g.storeBytes(op.gla + BigInt(state.done), op.bytes.subarray(state.done));
      state.done += g.done;
      g.regs.setGpr(Gpr.RDI, BigInt.asUintN(64, op.gla + BigInt(state.done)));
      g.regs.setGpr(Gpr.RCX, BigInt(op.bytes.length - state.done));
      return step;
    },
    result: nothing,
  },
  tdcall: {
    length: fixed(4),
    execute: (g, op) => {
      place(g.regs, op.regs);
      return g.tdcall(4);
    },
    result: (g) => snapshot(g.regs),
  },
  vmcall: {
    length: fixed(3),
    execute: (g, op) => {
      place(g.regs, op.regs);
      return g.vmcall(3);
    },
    result: (g) => snapshot(g.regs),
  },
  // MOV RAX, CRn
  readCr: {
    length: (op) => (op.cr === 8 ? 4 : 3),
    execute: (g, op) => g.movFromCr(op.cr, Gpr.RAX, op.cr === 8 ? 4 : 3),
    result: (g) => g.regs.gpr(Gpr.RAX),
  },
  writeCr: {
    length: (op) => (op.cr === 8 ? 4 : 3),
    execute: (g, op) => {
      g.regs.setGpr(Gpr.RAX, BigInt.asUintN(64, op.value));
      return g.movToCr(op.cr, Gpr.RAX, op.cr === 8 ? 4 : 3);
    },
    result: nothing,
  },
  // JMP ptr16:32 to a 64-bit segment
  ljmp64: {
    length: fixed(7),
    execute: (g) => {
      if (!g.longMode) return g.raise(13, 0);
      const cs = RegisterFile.segment(SegmentRegister.CS);
      g.regs.set(cs + SEG.BASE, 0n);
      g.regs.set32(cs + SEG.LIMIT, 0xffffffff);
      g.regs.set32(cs + SEG.AR, 0xa09b);
      g.updateMode();
      return Step.DONE;
    },
    result: nothing,
  },
  lidt: { length: fixed(3), execute: () => Step.DONE, result: nothing },
  cli: {
    length: fixed(1),
    execute: (g) => {
      g.regs.set32(REG.RFLAGS, g.regs.get32(REG.RFLAGS) & ~0x200);
      return Step.DONE;
    },
    result: nothing,
  },
  sti: {
    length: fixed(1),
    execute: (g) => {
      g.regs.set32(REG.RFLAGS, g.regs.get32(REG.RFLAGS) | 0x200);
      return Step.DONE;
    },
    result: nothing,
  },
  hlt: { length: fixed(1), execute: (g) => g.hlt(1), result: nothing },
  pause: { length: fixed(2), execute: (g) => g.pause(2), result: nothing },
  invlpg: { length: fixed(3), execute: (g, op) => g.invlpg(op.gla, 3), result: nothing },
  rdtsc: { length: fixed(2), execute: (g) => g.rdtsc(2), result: edxEax },
  rdrand: {
    length: fixed(4),
    execute: (g) => g.rdrand(Gpr.RAX, 8, 4),
    result: (g) => (carry(g) ? g.regs.gpr(Gpr.RAX) : null),
  },
  rdseed: {
    length: fixed(4),
    execute: (g) => g.rdseed(Gpr.RAX, 8, 4),
    result: (g) => (carry(g) ? g.regs.gpr(Gpr.RAX) : null),
  },
  wbinvd: { length: fixed(2), execute: (g) => g.wbinvd(2), result: nothing },
  ud2: { length: fixed(2), execute: (g) => g.raise(6), result: nothing },
  // No instruction: a look at the registers.
  getRegs: { length: fixed(0), execute: () => Step.DONE, result: (g) => snapshot(g.regs) },
  // CALL RAX, JMP RAX: the engine does the transfer.
  call: { length: fixed(2), execute: () => Step.DONE, result: (g) => snapshot(g.regs) },
  jump: { length: fixed(2), execute: () => Step.DONE, result: nothing },
};
