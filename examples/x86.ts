/** Runs a few bytes of 64-bit machine code that nobody compiled for this machine, and shows the registers. */
import { CodeFrames, FlatEnvironment, REG, RegisterFile, SEGMENT_SIZE, X86Core } from "@swtdx/x86";

const memory = new WebAssembly.Memory({ initial: 256, maximum: 256 });
let next = 65536;
const reserve = (bytes: number, align: number) => {
  const at = Math.ceil(next / align) * align;
  next = at + bytes;
  return at;
};
const regs = new RegisterFile(memory.buffer, reserve(2048, 64));
const base = reserve(1 << 20, 4096);
const environment = new FlatEnvironment({ memory, base, size: 1 << 20 });
const codeFrames = new CodeFrames(memory.buffer.byteLength);
const core = new X86Core({ memory, regs, environment, codeFrames, reserve, codeBytes: 1 << 20 });

// Long mode with flat segments, as firmware would have left it; no paging.
core.set32(REG.CR0, 1);
core.set32(REG.EFER, 0x500);
for (let n = 0; n < 6; n++) core.set32(REG.SEGMENT + n * SEGMENT_SIZE + 12, n === 1 ? 0xa09b : 0xc093);

// mov ecx, 20; mov eax, 1; again: mul rcx; dec ecx; jnz again; hlt
const code = [0xb9, 20, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0x48, 0xf7, 0xe1, 0xff, 0xc9, 0x75, 0xf9, 0xf4];
core.u8.set(code, base + 0x1000);
core.set64(REG.RIP, 0x1000n);
core.run(1_000_000);

console.log(`20! = ${regs.gpr(0)} after ${core.get64(REG.INSTRUCTIONS)} instructions`);
if (regs.gpr(0) !== 2432902008176640000n || !environment.halted) process.exitCode = 1;
