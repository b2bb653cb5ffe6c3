/**
 * The init of the default guest: looks around, shares a page and takes it back, measures itself, attests itself,
 * powers off. Its output is what `swtdx boot` shows.
 */
import { guest, type Guest, TDREPORT_STRUCT, viewOf } from "@swtdx/abi";
import { AttestationError } from "../drivers/tdx-guest.js";
import type { Init, Kernel } from "./kernel.js";

/** Of the event that stands for what init runs: "init". */
const INIT_EVENT_TAG_ID = 0x74696e69;

/** TCG_PCClientTaggedEvent: a tag's number, the length of its data in bytes, the data. */
function encodeTaggedEvent(text: string): Uint8Array {
  const data = new TextEncoder().encode(text);
  const out = new Uint8Array(8 + data.length);
  viewOf(out).setUint32(0, INIT_EVENT_TAG_ID, true);
  viewOf(out).setUint32(4, data.length, true);
  out.set(data, 8);
  return out;
}

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Report data from the command line (`report_data=HEX`), zero-padded to 64 bytes. */
function reportData(kernel: Kernel): Uint8Array {
  const text = kernel.parameter("report_data") ?? "";
  const out = new Uint8Array(64);
  for (let i = 0; i < 64 && 2 * i + 1 < text.length; i++)
    out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

function* lookAround(kernel: Kernel): Guest<void> {
  const { ebx, edx, ecx } = yield* guest.cpuid(0);
  const words = new DataView(new ArrayBuffer(12));
  [ebx, edx, ecx].forEach((word, i) => words.setUint32(4 * i, word, true));
  const vendor = new TextDecoder().decode(words.buffer);
  const { eax: hypervisor } = yield* guest.cpuid(0x4000_0000);
  yield* kernel.write(`init: CPU ${vendor}, hypervisor leaf 0x${(hypervisor >>> 0).toString(16)} (by #VE)\n`);
}

/** Shares a page with the VMM, writes to it, takes it back: the VMM's copy is gone, the page is zero. */
function* shareAndTakeBack(kernel: Kernel): Guest<void> {
  const { memory, tables } = kernel.parts;
  const page = yield* memory.allocPages(1);
  yield* tables.setMemoryDecrypted(page, 1);
  yield* guest.store(BigInt(page), 8, 0x1234n);
  const shared = yield* guest.load(BigInt(page), 8);
  yield* tables.setMemoryEncrypted(page, 1);
  const back = yield* guest.load(BigInt(page), 8);
  memory.freePages(page, 1);
  yield* kernel.write(
    `init: page shared (0x${shared.toString(16)}), private again (0x${back.toString(16)})\n`,
  );
}

function* attest(kernel: Kernel): Guest<void> {
  const { tdxGuest } = kernel.parts;
  yield* kernel.measure(3, encodeTaggedEvent("swtdx init"));
  const data = reportData(kernel);
  const report = TDREPORT_STRUCT.decode(yield* tdxGuest.getReport(data));
  yield* kernel.write(`init: MRTD  ${hex(report.TDINFO_STRUCT.MRTD)}\n`);
  yield* kernel.write(`init: RTMR3 ${hex(report.TDINFO_STRUCT.RTMR[3])}\n`);
  const quote = yield* tdxGuest.getQuote(data);
  yield* kernel.write(`init: quote of ${quote.length} bytes\n`);
}

/** @param beforePowerOff what else to do when all is done */
export function* defaultInit(kernel: Kernel, beforePowerOff?: Init): Guest<void> {
  yield* kernel.write("init: hello from a Trust Domain\n");
  yield* lookAround(kernel);
  yield* shareAndTakeBack(kernel);
  try {
    yield* attest(kernel);
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    yield* kernel.write(`init: no quote: ${error.message}\n`);
  }
  if (beforePowerOff) yield* beforePowerOff(kernel);
  yield* kernel.printk("reboot: Power down");
  yield* kernel.powerOff();
}
