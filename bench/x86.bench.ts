/**
 * Speed of the x86 interpreter: millions of guest instructions a second on several kernels, and relative to a loop of
 * plain WebAssembly in the same process, so that machines can be compared.
 */
import { CodeFrames, FlatEnvironment, REG, RegisterFile, SEGMENT_SIZE, X86Core } from "@swtdx/x86";

const KERNELS = { sieve: 0, copy: 0x51, mix: 0x7c, fib: 0xa9, float: 0xd3, integer: 0x11d };
/**
 * The kernels' machine code: a sieve, a copy loop, an arithmetic mix with unpredictable branches, recursion; the same
 * chain of eight operations, comparison and branch in double precision and in integers.
 */
const CODE =
  "vRQAAAC/AAAQALkAAAEAuAEAAACIB0j/x//Jdfe7AgAAAEiNNBtIgf4AAAEAcxPGhgAAEAAASAHeSIH+AAABAHLt/8OB+ywBAABy1v/NdbX0vcgAAAC+AAAQAL8AABIAuQAgAABIiwZIiQdIg8YISIPHCP/Jde7/zXXb9LnAxi0AuDkwAABpwG1OxkEFOTAAAInCweoQ98IBAAAAdAQx0+sCAdP/yXXe9L8bAAAA6AEAAAD0g/8CchdX/8/o8////19Qg+8C6On///9aSAHQw4n4w7gBAAAA8g8qwLgDAAAA8g8qyPIPENjyD17ZucDGLQBmDyjQ8g9c0/IPWdPyD1nR8g9Y0/IPWdNmDyjaZg8u2HIE8g9e2f/Jddb0uAEAAAC7AwAAALo5MAAAucDGLQCJxinWD6/yD6/zAdYPr/KJ8jnCcgLR6v/JdeX0";
/** A loop of multiply, add, shift, xor and count, n times. */
const LOOP =
  "AGFzbQEAAAABBgFgAX8BfwIBAAMCAQAHBQEBcgAACiwBKgEBfwNAIAFB7ZyZjgRsIABqIAFBB3ZzIQEgAEEBayEAIAANAAsgAQ8ACw==";

const bytes = (text: string) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const memory = new WebAssembly.Memory({ initial: 1024, maximum: 1024 });
let next = 65536;
const reserve = (size: number, align: number) => {
  const at = Math.ceil(next / align) * align;
  next = at + size;
  return at;
};
const regs = new RegisterFile(memory.buffer, reserve(2048, 64));
const base = reserve(8 << 20, 4096);
const environment = new FlatEnvironment({ memory, base, size: 8 << 20 });
const started = performance.now();
const core = new X86Core({
  memory,
  regs,
  environment,
  codeFrames: new CodeFrames(memory.buffer.byteLength),
  reserve,
  codeBytes: 4 << 20,
});
console.log(
  `start-up ${(performance.now() - started).toFixed(0)} ms, module ${core.built.bytes.length} bytes, ` +
    `${core.built.keys.length} handlers, ${core.built.hotCount} of them in the dispatch loop`,
);
core.set32(REG.CR0, 1);
core.set32(REG.CR4, 0x600);
core.set32(REG.EFER, 0x500);
core.set32(REG.MXCSR, 0x1f80);
for (let n = 0; n < 6; n++) {
  core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 12, n === 1 ? 0xa09b : 0xc093);
  core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 8, -1);
}
core.u8.set(bytes(CODE), base + 0x1000);

const loop = new WebAssembly.Instance(new WebAssembly.Module(bytes(LOOP))).exports.r as (n: number) => number;
loop(1e7);
const t = performance.now();
loop(3e8);
const native = (3e8 * 5) / (performance.now() - t) / 1000;
console.log(`plain WebAssembly: ${native.toFixed(0)} million operations/s`);

const medians: Record<string, number> = {};
for (const [name, offset] of Object.entries(KERNELS)) {
  const rates: number[] = [];
  for (let round = 0; round < 7; round++) {
    environment.halted = false;
    core.set32(REG.RFLAGS, 2);
    core.set64(REG.RIP, BigInt(0x1000 + offset));
    core.set64(32, 0x80000n);
    const before = core.get64(REG.INSTRUCTIONS);
    const from = performance.now();
    while (!environment.halted) core.run(1 << 20);
    rates.push(Number(core.get64(REG.INSTRUCTIONS) - before) / (performance.now() - from) / 1000);
  }
  const median = rates.sort((a, b) => a - b)[rates.length >> 1] ?? 0;
  medians[name] = median;
  console.log(
    `${name.padEnd(7)} ${median.toFixed(0).padStart(5)} MIPS, ${((100 * median) / native).toFixed(1)} % of plain`,
  );
}
console.log(`floating point ${((100 * medians["float"]) / medians["integer"]).toFixed(0)} % of integer`);
