/**
 * 64-bit accesses to DRAM under the key that it was written with, against the same accesses to a plain typed array:
 * by the arena offset that a TLB holds, with a look-up of the frame for every access, and by `read` and `write`.
 * Then what encryption costs: a page read under another key.
 */
import { type Hpa, keyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";

const PAGES = 1024;
const WORDS = (PAGES * PAGE_SIZE) / 8;
const ROUNDS = 7;
const TD = keyId(1);

const memory = new MemoryController(new Arena({ residentBytes: 2 ** 23 }), {
  dramBytes: 2 ** 36,
  random: new SeededRandom(new Uint8Array(32)),
  tdOwnedRead: "ciphertext",
});
memory.activate({ mktmeKeyIds: 0, tdxKeyIds: 2 });
memory.programRandomKey(TD);
for (let frame = 0; frame < PAGES; frame++)
  memory.write((frame * PAGE_SIZE) as Hpa, TD, new Uint8Array(PAGE_SIZE));

// 64 bits as two numbers: a bigint would be an allocation.
const plain = new Uint32Array(WORDS * 2);
const frames = new Uint32Array(memory.arena.memory.buffer);
const tlb = Int32Array.from({ length: PAGES }, (_, frame) => memory.frameForWrite(frame as Pfn, TD) / 4);

function onPlain(): number {
  let sum = 0;
  for (let i = 0; i < WORDS * 2; i += 2) {
    sum = (sum + plain[i] + plain[i + 1]) | 0;
    plain[i] = sum;
  }
  return sum;
}
function onTlb(): number {
  let sum = 0;
  for (let i = 0; i < WORDS * 2; i += 2) {
    const at = tlb[i >>> 10] + (i & 1023);
    sum = (sum + frames[at] + frames[at + 1]) | 0;
    frames[at] = sum;
  }
  return sum;
}
function onFrames(): number {
  let sum = 0;
  for (let i = 0; i < WORDS * 2; i += 2) {
    const frame = (i >>> 10) as Pfn;
    const from = memory.frameForRead(frame, TD) / 4 + (i & 1023);
    sum = (sum + frames[from] + frames[from + 1]) | 0;
    frames[memory.frameForWrite(frame, TD) / 4 + (i & 1023)] = sum;
  }
  return sum;
}
const word = new Uint8Array(8);
const asNumbers = new Uint32Array(word.buffer);
function onRead(): number {
  let sum = 0;
  for (let i = 0; i < WORDS; i++) {
    memory.read((i * 8) as Hpa, TD, word);
    sum = (sum + asNumbers[0] + asNumbers[1]) | 0;
    asNumbers[0] = sum;
    memory.write((i * 8) as Hpa, TD, word);
  }
  return sum;
}
const page = new Uint8Array(PAGE_SIZE);
function onCipher(): number {
  for (let frame = 0; frame < 64; frame++) memory.read((frame * PAGE_SIZE) as Hpa, keyId(0), page);
  return page[0];
}

/** The least of several runs, in ns per unit. */
function time(work: () => number, units: number): number {
  let least = Infinity;
  for (let i = 0; i < ROUNDS; i++) {
    const start = performance.now();
    work();
    least = Math.min(least, performance.now() - start);
  }
  return (least * 1e6) / units;
}

const base = time(onPlain, WORDS);
const row = (name: string, ns: number) =>
  console.log(`${name.padEnd(44)}${ns.toFixed(2).padStart(10)} ns   ratio ${(ns / base).toFixed(2)}`);
row("typed array: read and write of 64 bits", base);
row("arena offset from a TLB", time(onTlb, WORDS));
row("frameForRead, frameForWrite", time(onFrames, WORDS));
row("read, write", time(onRead, WORDS));
console.log(`a page under another key, decrypted: ${(time(onCipher, 64) / 1000).toFixed(1)} µs`);
