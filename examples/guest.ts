/** @swtdx/guest: a kernel with an init of one's own. `swtdx boot` runs such images in a TD; this shows their parts. */
import { guest, parsePe } from "@swtdx/abi";
import { createGuest } from "@swtdx/guest";

const { image, programs } = createGuest({
  name: "example",
  *init(kernel) {
    yield* kernel.write("hello from init\n");
    // Share a page with the VMM, talk to it, take the page back.
    const { memory, tables, tdxGuest } = kernel.parts;
    const page = yield* memory.allocPages(1);
    yield* tables.setMemoryDecrypted(page, 1);
    yield* guest.store(BigInt(page), 8, 42n);
    yield* tables.setMemoryEncrypted(page, 1);
    // What was done is measured, and attested.
    yield* kernel.measure(3, new TextEncoder().encode("talked to the VMM"));
    const quote = yield* tdxGuest.getQuote(new Uint8Array(64));
    yield* kernel.write(`quote of ${quote.length} bytes\n`);
    yield* kernel.powerOff();
  },
});

const pe = parsePe(image);
if ("error" in pe) throw new Error(pe.error);
console.log(`kernel image: ${image.length} bytes, ${pe.sections.length} sections, an EFI application`);
console.log("programs that an execution engine runs for it:");
for (const name of programs.keys()) console.log(`  ${name}`);
