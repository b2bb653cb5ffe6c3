/** One line of DRAM under two KeyIDs, with none, and as a probe on the DIMM sees it. */
import { hpa, keyId } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController, MemoryStatus } from "@swtdx/mktme";

const memory = new MemoryController(new Arena({ residentBytes: 16 << 20 }), {
  dramBytes: 64 << 20,
  integrity: "cryptographic",
  random: new SeededRandom(new TextEncoder().encode("example")),
});
// 31 KeyIDs for everybody, 32 for Trust Domains.
memory.activate({ mktmeKeyIds: 31, tdxKeyIds: 32 });
const [host, vm, td, otherTd] = [0, 5, 33, 34].map((id) => keyId(id));
for (const id of [vm, td, otherTd]) memory.programRandomKey(id);

const hex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
const LINE = 64;
/** The secret is in a line for each reader: a line that failed its check stays poisoned. */
const readers = [
  ["the TD, KeyID 33", td],
  ["another TD, KeyID 34", otherTd],
  ["a VM, KeyID 5", vm],
  ["the host, KeyID 0", host],
] as const;
const show = (who: string, id: typeof host, line: number): void => {
  const bytes = new Uint8Array(16);
  const status = memory.read(hpa(0x1000 + line * LINE), id, bytes);
  console.log(`${who.padEnd(24)} ${status === MemoryStatus.OK ? hex(bytes) : "machine check: poison"}`);
};

const secret = new TextEncoder().encode("a TD's secret...".padEnd(LINE));
readers.forEach((_, line) => memory.write(hpa(0x1000 + line * LINE), td, secret));
readers.forEach(([who, id], line) => show(who, id, line));
console.log(`${"a probe on the DIMM".padEnd(24)} ${hex(memory.probe(hpa(0x1000), 16))}`);

// Bytes that somebody put onto the DIMM do not fit their MAC: the TD will not read them.
const line = memory.dimmReadLine(hpa(0x1000));
memory.dimmWriteLine(hpa(0x1000), { ...line, data: line.data.map((byte) => byte ^ 1) });
show("the TD, after tampering", td, 0);
