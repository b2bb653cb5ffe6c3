/**
 * Building a TD and running it, measured in time of the CPU: PAGE.ADD with its 16 MR.EXTENDs, AUG with ACCEPT, TDG.VP.VMCALL round trips.
 * `node --conditions=@swtdx/source --import tsx packages/tdx-module/bench/build-td.ts`
 */
import { guest, PAGE_SIZE } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { leaf, rawSeamcall } from "@swtdx/linux-host";
import { RESET_PAGE, resetPage, Td, TdHost } from "../test/support/td-host.js";

const PAGES = 1000;
const CALLS = 10_000;
const TABLES = 0x1_0000;

const at = new TdHost({ lps: 1 });
at.programs.set("@swtdx/bench:Guest", function* () {
  const pdpt = BigInt(TABLES + PAGE_SIZE);
  const table = new Uint8Array(2 * PAGE_SIZE);
  const view = new DataView(table.buffer);
  view.setBigUint64(0, pdpt | 3n, true);
  view.setBigUint64(PAGE_SIZE, 0x83n, true);
  view.setBigUint64(PAGE_SIZE + 24, 0xc000_0083n, true);
  yield* guest.storeBytes(BigInt(TABLES), table);
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | 0x20n);
  yield* guest.writeCr(3, BigInt(TABLES));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | 0x8000_0000n);
  yield* guest.ljmp64();
  for (;;) yield* guest.tdcall({ rax: 0n, rcx: 0x1c00n, r10: 0n, r11: 12n, r12: 0n });
});

const measure = (what: string, count: number, run: () => void): void => {
  const start = process.cpuUsage();
  run();
  const { user, system } = process.cpuUsage(start);
  const ms = (user + system) / 1000;
  console.log(`${what}: ${ms.toFixed(1)} ms, ${((ms * 1000) / count).toFixed(2)} µs each`);
};

const td = new Td(at).create().init();
const vcpu = td.addVcpu();
td.addPage(RESET_PAGE, resetPage("@swtdx/bench:Guest"));
td.addPage(TABLES);
td.addPage(TABLES + PAGE_SIZE);
const source = BigInt(at.page());
at.write(Number(source), new Uint8Array(PAGE_SIZE).fill(7));
const [ADD, EXTEND, ENTER] = [leaf("TDH.MEM.PAGE.ADD"), leaf("TDH.MR.EXTEND"), leaf("TDH.VP.ENTER")];
for (let round = 0; round < 5; round++) {
  const first = 0x100_0000 * (round + 1);
  for (let i = 0; i < PAGES; i += 512) td.addSept(first + i * PAGE_SIZE);
  td.addSept(first + PAGES * PAGE_SIZE);
  const pages = Array.from({ length: PAGES }, () => BigInt(at.page()));
  const { lp } = at;
  const { regs } = lp;
  measure(`${PAGES} × (PAGE.ADD + 16 MR.EXTEND)`, PAGES, () => {
    for (let i = 0; i < PAGES; i++) {
      const gpa = first + i * PAGE_SIZE;
      regs.setGpr(Gpr.RCX, BigInt(gpa));
      regs.setGpr(Gpr.RDX, td.handle);
      regs.setGpr(Gpr.R8, pages[i]);
      regs.setGpr(Gpr.R9, source);
      if (rawSeamcall(lp, ADD) !== 0n) throw new Error("TDH.MEM.PAGE.ADD");
      for (let chunk = 0; chunk < PAGE_SIZE; chunk += 256) {
        regs.setGpr(Gpr.RCX, BigInt(gpa + chunk));
        regs.setGpr(Gpr.RDX, td.handle);
        if (rawSeamcall(lp, EXTEND) !== 0n) throw new Error("TDH.MR.EXTEND");
      }
    }
  });
}
measure("TDH.MR.FINALIZE", 1, () => td.finalize());
if (td.enter(vcpu).status !== 77n) throw new Error("the guest does not run");
for (let round = 0; round < 4; round++)
  measure(`${CALLS} × VMCALL round trip`, CALLS, () => {
    const { lp } = at;
    for (let i = 0; i < CALLS; i++) {
      lp.regs.setGpr(Gpr.RCX, BigInt(vcpu.tdvpr));
      lp.regs.setGpr(Gpr.R10, 0n);
      if (rawSeamcall(lp, ENTER) !== 77n) throw new Error("TDH.VP.ENTER");
    }
  });
