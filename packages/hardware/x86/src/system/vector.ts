/** Vector instructions that are rare enough for TypeScript: MPSADBW, PHMINPOSUW, MASKMOVQ, MASKMOVDQU. SDM vol. 2. */
import type { X86Core } from "../core.js";
import { Access, ENGINE, FpuBlock, Misc, RECORD, Status, Vector } from "../layout.js";
import { fieldA, immediate } from "./memory.js";
import { enterMmx, requireMmx } from "./mmx.js";
import type { Operation } from "./operations.js";

/** Status if SSE may not run, else NEXT. */
export function requireSse(core: X86Core): number {
  const block = core.get32(ENGINE.FPU_BLOCK);
  if (block & FpuBlock.SSE_UD) return core.raise(Vector.UD);
  if (block & FpuBlock.SSE_NM) return core.raise(Vector.NM);
  return Status.NEXT;
}
/** Address of operand 1: a register's, or the host address of aligned memory; 0 with a fault prepared. */
function source(core: X86Core, pc: number, memory: boolean, aligned: boolean): number {
  if (!memory) return core.dv.getInt32(pc + RECORD.B, true);
  const host = core.fn.memory(pc, 0n, 16 | (aligned ? Access.ALIGNED : 0));
  if (host && aligned && host & 15) {
    core.raise(Vector.GP, 0);
    return 0;
  }
  return host;
}
type Compute = (core: X86Core, a: Uint8Array, b: Uint8Array, control: number) => Uint8Array | undefined;
/** destination = compute(destination, source, immediate); no result leaves the destination alone. */
const vector =
  (compute: Compute, aligned = true): Operation =>
  (core, pc, _bits, memory) => {
    const status = requireSse(core);
    if (status !== Status.NEXT) return status;
    const from = source(core, pc, memory, aligned);
    if (!from) return core.status;
    const to = core.regs.base + fieldA(core, pc);
    const result = compute(
      core,
      core.u8.slice(to, to + 16),
      core.u8.slice(from, from + 16),
      immediate(core, pc) & 0xff,
    );
    if (result) core.u8.set(result, to);
    return Status.NEXT;
  };

/** Stores the bytes whose mask has its top bit. */
function storeMasked(core: X86Core, pc: number, length: number): number {
  const mask = core.dv.getInt32(pc + RECORD.B, true);
  const data = core.regs.base + fieldA(core, pc);
  const misc = core.dv.getUint16(pc + RECORD.MISC, true);
  const width = misc >> Misc.ADDRESS_SHIFT;
  const offset = core.get64(56) & (width === 0 ? 0xffffn : width === 1 ? 0xffffffffn : 0xffffffffffffffffn);
  const segment = (misc >> Misc.SEGMENT_SHIFT) & 7;
  for (let i = 0; i < length; i++) {
    if (!(core.u8[mask + i] & 0x80)) continue;
    const host = core.fn.segment(segment, offset + BigInt(i), 1 | Access.WRITE, pc);
    if (!host) return core.status;
    core.u8[host] = core.u8[data + i]!;
    if (host === core.scratch) core.commit();
  }
  return Status.NEXT;
}
const maskmovdqu: Operation = (core, pc) => {
  const status = requireSse(core);
  return status === Status.NEXT ? storeMasked(core, pc, 16) : status;
};
const maskmovq: Operation = (core, pc) => {
  const status = requireMmx(core);
  if (status !== Status.NEXT) return status;
  const stored = storeMasked(core, pc, 8);
  if (stored === Status.NEXT) enterMmx(core);
  return stored;
};

export const vectorOperations: Record<string, Operation> = {
  mpsadbw: vector((_core, a, b, control) => {
    const out = new Uint16Array(8);
    const from = (control & 4) !== 0 ? 4 : 0;
    const block = (control & 3) * 4;
    for (let i = 0; i < 8; i++) {
      for (let k = 0; k < 4; k++) out[i] += Math.abs(a[from + i + k] - b[block + k]);
    }
    return new Uint8Array(out.buffer);
  }),
  phminposuw: vector((_core, _a, b) => {
    const w = new Uint16Array(b.slice().buffer);
    const least = Math.min(...w);
    const out = new Uint16Array(8);
    out[0] = least;
    out[1] = w.indexOf(least);
    return new Uint8Array(out.buffer);
  }),
  maskmovdqu,
  maskmovq,
};
