/** SEAM: loading, calls, protection, and a small firmware that enters a TD with private and shared EPT. */
import {
  encodeProgramImage,
  guest,
  hpa,
  keyId,
  TEE_TCB_INFO,
  REPORTMACSTRUCT,
  type GuestHandler,
  type GuestProgram,
  type HpaAndKeyId,
} from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { describe, expect, it } from "vitest";
import {
  ENTRY,
  ExitReason,
  Gpr,
  PconfigStatus,
  PROC,
  PROC2,
  PROC3,
  SeamOpsStatus,
  VMCS,
  VMCS_REVISION,
  type SeamContext,
  type SeamFirmware,
  type SeamFirmwareFactory,
} from "../src/index.js";
import {
  createPlatform,
  EptBuilder,
  enterVmx,
  ok,
  pa,
  read64,
  write64,
  writeGuestAndHost,
  type Platform,
} from "./support/platform.js";

const SEAM_BASE = 0x200_0000;
const MODULE_ENTRY = SEAM_BASE + 0x10000;
const HKID = keyId(33);
const TD_RAM = 0x100_0000;
const SHARED_PAGE = 0x90_0000;
const KEY_UNIT = 2 ** 46;
const ATTR = 0x1234n;

/** TME_ACTIVATE with 6 KeyID bits, 1 of them TDX's; SEAMRR of 32 MiB; VMX. */
function bios(p: Platform): void {
  for (const lp of p.processor.lps) {
    if (lp.index === 0) {
      ok(lp.wrmsr(0x982, (1n << 48n) | (1n << 36n) | (6n << 32n) | 3n));
      ok(lp.wrmsr(0x1400, BigInt(SEAM_BASE) | 8n));
      ok(lp.wrmsr(0x1401, (0xf_ffff_fe00_0000n & ~0n) | 0xc00n));
    }
    enterVmx(lp, 0x1000 + lp.index * 0x1000);
  }
}

/** A loader that installs "module" when called; its leaf 1 also records measurements. */
const loader: SeamFirmwareFactory = () => ({
  seamcall(lp) {
    const image = encodeProgramImage("module");
    lp.write(hpa(MODULE_ENTRY), keyId(0), image);
    const extend = lp.readSeamExtend();
    lp.writeSeamExtend({
      ...extend,
      valid: 0x301ffn,
      mrSeam: sha384(image),
      attributes: ATTR,
      seamReady: true,
    });
    lp.setModuleEntry(hpa(MODULE_ENTRY));
    lp.seamdbInsert();
    lp.regs.setGpr(Gpr.RAX, 0n);
  },
});

function platform(module: (lp: SeamContext) => void, lps = 1): Platform {
  const p = createPlatform(lps, true);
  bios(p);
  p.processor.registerSeamFirmware("loader", loader);
  const firmware: SeamFirmware = { seamcall: module };
  p.processor.registerSeamFirmware("module", () => firmware);
  ok(p.lp.enteraccs(encodeProgramImage("loader")));
  p.lp.regs.setGpr(Gpr.RAX, 1n << 63n);
  expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: false });
  return p;
}
const call = (p: Platform, rax = 0n): bigint => {
  p.lp.regs.setGpr(Gpr.RAX, rax);
  expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: false });
  return p.lp.regs.gpr(Gpr.RAX);
};

describe("SEAMCALL", () => {
  it("is #UD outside VMX, #GP without SEAMRR, VMfailInvalid without a loader or module", () => {
    const p = createPlatform();
    expect(p.lp.seamcall()).toEqual({ kind: "fault", vector: 6, errorCode: null });
    enterVmx(p.lp);
    expect(p.lp.seamcall()).toEqual({ kind: "fault", vector: 13, errorCode: 0 });
    const q = createPlatform();
    bios(q);
    expect(q.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    q.lp.regs.setGpr(Gpr.RAX, 1n << 63n);
    expect(q.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    expect(q.lp.enteraccs(new Uint8Array(64)).kind).toBe("error");
  });

  it("passes registers both ways, keeps the caller's other state and its VMCS", () => {
    const p = platform((lp) => {
      lp.regs.setGpr(Gpr.RAX, lp.regs.gpr(Gpr.RCX) + 1n);
      // The transfer VMCS is current: the caller's state.
      expect(lp.vmread(VMCS.GUEST_RFLAGS) & 2n).toBe(2n);
      lp.regs.setGpr(Gpr.RSP, 0x999n);
    });
    write64(p.lp, 0x5000, BigInt(VMCS_REVISION));
    ok(p.lp.vmptrld(pa(0x5000)));
    p.lp.regs.setGpr(Gpr.RCX, 41n);
    p.lp.regs.setGpr(Gpr.RSP, 0x7000n);
    expect(call(p)).toBe(42n);
    expect(p.lp.regs.gpr(Gpr.RSP)).toBe(0x7000n);
    expect(p.lp.vmptrst()).toEqual({ kind: "ok", value: 0x5000 });
  });

  it("hides the SEAM range and private KeyIDs from the host", () => {
    const p = platform((lp) => lp.writeU64(hpa(SEAM_BASE), keyId(0), 0x5eca7n));
    call(p);
    expect(read64(p.lp, SEAM_BASE)).toBe(0xffff_ffff_ffff_ffffn);
    write64(p.lp, SEAM_BASE, 1n);
    let inside = 0n;
    const q = platform((lp) => {
      lp.writeU64(hpa(SEAM_BASE), keyId(0), 0x5eca7n);
      inside = lp.readU64(hpa(SEAM_BASE), keyId(0));
    });
    call(q);
    expect(inside).toBe(0x5eca7n);
    expect(q.lp.memReadU64((0x5000 + HKID * KEY_UNIT) as HpaAndKeyId)).toEqual({
      kind: "fault",
      vector: 14,
      errorCode: 9,
      address: 0x5000 + HKID * KEY_UNIT,
    });
    expect(q.lp.memWriteU64((0x5000 + HKID * KEY_UNIT) as HpaAndKeyId, 0n).kind).toBe("fault");
    ok(q.lp.memWriteU64((0x5000 + 5 * KEY_UNIT) as HpaAndKeyId, 0n));
    expect(q.lp.rdmsr(0x87)).toEqual({ kind: "ok", value: (32n << 32n) | 31n });
  });

  it("lets only SEAM program private KeyIDs", () => {
    const statuses: number[] = [];
    const p = platform((lp) => {
      statuses.push(lp.pconfig({ keyId: HKID, command: 1, encAlg: 1 }));
      statuses.push(lp.pconfig({ keyId: keyId(5), command: 1, encAlg: 1 }));
      statuses.push(lp.pconfig({ keyId: HKID, command: 1, encAlg: 4 }));
    });
    call(p);
    expect(statuses).toEqual([
      PconfigStatus.SUCCESS,
      PconfigStatus.INVALID_KEYID,
      PconfigStatus.INVALID_ENC_ALG,
    ]);
    expect(p.lp.pconfig({ keyId: HKID, command: 1, encAlg: 1 })).toEqual({
      kind: "ok",
      value: PconfigStatus.INVALID_KEYID,
    });
    expect(p.lp.pconfig({ keyId: keyId(5), command: 1, encAlg: 1 })).toEqual({ kind: "ok", value: 0 });
  });

  it("shuts the logical processor down when SEAM consumes poison, and only that one", () => {
    const p = platform((lp) => {
      lp.regs.setGpr(Gpr.RAX, 0n);
      if (lp.regs.gpr(Gpr.RCX) === 1n) lp.readU64(hpa(TD_RAM), HKID);
    }, 2);
    write64(p.lp, TD_RAM, 1n);
    p.lp.regs.setGpr(Gpr.RCX, 1n);
    expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    p.lp.regs.setGpr(Gpr.RAX, 0n);
    p.lp.regs.setGpr(Gpr.RCX, 0n);
    expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    expect(p.processor.lps[1].seamcall()).toEqual({ kind: "ok", cf: false });
    expect(p.events.some((event) => event.type === "MC" && event.hpa === TD_RAM)).toBe(true);
    expect(p.lp.rdmsr(0x406)).toEqual({ kind: "ok", value: BigInt(TD_RAM) });
  });

  it("keeps what is the loader's from the module", () => {
    const p = platform((lp) => lp.setModuleEntry(null));
    expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: true });
  });

  it("sees interrupts pending for the host", () => {
    const seen: unknown[] = [];
    const p = platform((lp) => {
      seen.push(lp.interruptPending, lp.rdmsr(0x9a));
    });
    call(p);
    p.lp.pendExternalInterrupt(0x30);
    call(p);
    expect(seen).toEqual([false, { kind: "ok", value: 0n }, true, { kind: "ok", value: 1n }]);
    expect(p.lp.rdmsr(0x9a).kind).toBe("fault");
  });
});

describe("reports", () => {
  const request = {
    reportType: { type: 0x81, subtype: 0, version: 0 },
    reportData: new Uint8Array(64).fill(7),
    teeInfoHash: new Uint8Array(48).fill(9),
  };
  it("carry the loaded module's measurement and a MAC that only this processor makes", () => {
    let report: { reportMacStruct: Uint8Array; teeTcbInfo: Uint8Array } | null = null;
    let status = -1;
    const p = platform((lp) => {
      report = lp.seamreport(request);
      status = lp.seamverifyreport(report.reportMacStruct);
      const { index, nonce } = lp.seamdbGetref();
      expect(lp.seamdbReport(request, index, nonce)).toEqual(report);
      expect(lp.seamdbReport(request, 5n, nonce)).toEqual({ status: SeamOpsStatus.DATABASE_ERROR });
    });
    call(p);
    const { reportMacStruct, teeTcbInfo } = report!;
    expect(status).toBe(0);
    const mac = REPORTMACSTRUCT.decode(reportMacStruct);
    expect(mac.REPORTDATA).toEqual(request.reportData);
    expect(mac.TEE_INFO_HASH).toEqual(request.teeInfoHash);
    expect(mac.TEE_TCB_INFO_HASH).toEqual(sha384(teeTcbInfo));
    expect(TEE_TCB_INFO.decode(teeTcbInfo).MRSEAM).toEqual(sha384(encodeProgramImage("module")));
    expect(TEE_TCB_INFO.decode(teeTcbInfo).ATTRIBUTES).toBe(ATTR);
    // The quoting enclave's side, on another logical processor of the package.
    expect(p.lp.everifyreport2(reportMacStruct)).toBe(0);
    for (const at of [0, 16, 32, 80, 128, 224, 255]) {
      const forged = reportMacStruct.slice();
      forged[at] ^= 1;
      expect(p.lp.everifyreport2(forged)).not.toBe(0);
    }
    expect(p.lp.everifyreport2(new Uint8Array(10))).toBe(SeamOpsStatus.INPUT_ERROR);
  });
});

const TD_VMCS = 0x60_0000;

describe("a TD-like guest", () => {
  /** Firmware that builds private memory, enters the guest, and hands every exit to `onExit` until it says stop. */
  function td(program: GuestProgram, onExit: (lp: SeamContext, reason: number) => boolean): Platform {
    const VMCS_PA = TD_VMCS;
    const SEPT = 0x70_0000;
    const SHARED_EPT = 0x80_0000;
    const p = platform((lp) => {
      lp.pconfig({ keyId: HKID, command: 1, encAlg: 1 });
      lp.zero(hpa(VMCS_PA), HKID, 4096);
      lp.zero(hpa(SEPT), HKID, 0x10_0000);
      lp.zero(hpa(TD_RAM), HKID, 0x10_0000);
      const sept = new EptBuilder(
        (at, value) => lp.writeU64(hpa(at), HKID, value),
        (at) => lp.readU64(hpa(at), HKID),
        SEPT,
      );
      for (let gpa = 0; gpa < 0x10_0000; gpa += 4096) sept.map(gpa, BigInt(TD_RAM + gpa));
      // Not present: one page whose violation is a #VE, one that exits.
      sept.entry(0x20_0000);
      lp.writeU64(hpa(sept.entry(0x20_1000)), HKID, 1n << 63n);
      lp.write(hpa(TD_RAM + 0x1000), HKID, encodeProgramImage("td"));
      lp.writeU32(hpa(VMCS_PA), HKID, VMCS_REVISION);
      const vmcs = (VMCS_PA + HKID * KEY_UNIT) as HpaAndKeyId;
      expect(lp.vmclear(vmcs)).toBe(null);
      expect(lp.vmptrld(vmcs)).toBe(null);
      const shared = new EptBuilder(
        (at, value) => write64(p.lp, at, value),
        (at) => read64(p.lp, at),
        SHARED_EPT,
      );
      shared.map(2 ** 47 + 0x3000, BigInt(SHARED_PAGE));
      writeGuestAndHost(p.lp, (field, value) => lp.vmwrite(field, value), {
        rip: 0x1000n,
        eptp: sept.pointer,
        proc: PROC.ACTIVATE_TERTIARY,
        proc2: PROC2.EPT_VIOLATION_VE,
      });
      lp.vmwrite(VMCS.TERTIARY_VM_EXEC_CONTROL, BigInt(PROC3.VIRTUALIZE_SPEC_CTRL));
      lp.vmwrite(VMCS.TD_HKID, BigInt(HKID));
      lp.vmwrite(VMCS.SHARED_EPT_POINTER, BigInt(shared.base));
      lp.vmwrite(VMCS.VE_INFORMATION_ADDRESS, BigInt(TD_RAM + 0xf000) + BigInt(HKID * KEY_UNIT));
      expect(Number(lp.vmread(VMCS.VM_ENTRY_CONTROLS)) & ENTRY.LOAD_EFER).not.toBe(0);
      let outcome = lp.vmlaunch();
      for (;;) {
        if (outcome.kind !== "exit") throw new Error(`${JSON.stringify(outcome)} ${p.lp.entryFailure}`);
        if (!onExit(lp, outcome.reason)) break;
        outcome = lp.vmresume();
      }
      lp.regs.setGpr(Gpr.RAX, 0n);
    });
    p.programs.set("td", program);
    return p;
  }
  const advance = (lp: SeamContext): void =>
    lp.vmwrite(VMCS.GUEST_RIP, lp.vmread(VMCS.GUEST_RIP) + lp.vmread(VMCS.VM_EXIT_INSTRUCTION_LEN));

  it("does TDCALL, private and shared memory, #VE and exits", () => {
    const seen: string[] = [];
    const reasons: number[] = [];
    const p = td(
      function* () {
        const handler: GuestHandler = function* (frame) {
          // VE_INFO in its private page; software clears the busy word.
          const gpa = yield* guest.load(0xf018n, 8);
          seen.push(`#VE ${frame.op?.op} ${gpa.toString(16)}`);
          yield* guest.store(0xf004n, 4, 0n);
          frame.result = 0x77n;
        };
        yield* guest.lidt(new Map([[20, handler]]));
        const { rax, rcx } = yield* guest.tdcall({ rax: 1n, rcx: 5n });
        seen.push(`tdcall ${rax} ${rcx}`);
        yield* guest.store(0x2000n, 8, 0x5ec_0e7n);
        // Shared half: KeyID 0, what the host reads.
        const cr = yield* guest.readCr(4);
        seen.push(`cr4 ${cr.toString(16)}`);
        seen.push(`ve ${yield* guest.load(0x20_0000n, 8)}`);
        yield* guest.load(0x20_1000n, 8);
      },
      (lp, reason) => {
        reasons.push(reason);
        if (reason !== ExitReason.TDCALL) return false;
        lp.regs.setGpr(Gpr.RAX, lp.regs.gpr(Gpr.RAX) + 100n);
        advance(lp);
        return true;
      },
    );
    call(p);
    expect(reasons).toEqual([ExitReason.TDCALL, ExitReason.EPT_VIOLATION]);
    expect(seen).toEqual(["tdcall 101 5", "cr4 2000", "#VE load 200000", `ve ${0x77n}`]);
    // The host sees ciphertext, not what the TD wrote.
    expect(read64(p.lp, TD_RAM + 0x2000)).not.toBe(0x5ec_0e7n);
    expect(p.events.some((event) => event.type === "VE")).toBe(true);
  });

  it("translates GPAs with the shared bit by the shared EPT, KeyID 0", () => {
    const faults: bigint[] = [];
    const p = td(
      function* () {
        // 64-bit paging: 1 GiB pages of private [0, 1G) and, at 1G, GPA 2^47 (shared).
        yield* guest.store(0x8000n, 8, 0x9003n);
        yield* guest.store(0x9000n, 8, 0x83n);
        yield* guest.store(0x9008n, 8, (1n << 47n) | 0x83n);
        yield* guest.writeCr(3, 0x8000n);
        yield* guest.writeCr(4, 0x2020n);
        yield* guest.tdcall({ rax: 7n });
        yield* guest.writeCr(0, 0x80000031n);
        yield* guest.ljmp64();
        yield* guest.store(0x4000_3000n, 8, 0xc0ffeen);
        const handler: GuestHandler = function* (frame) {
          faults.push(yield* guest.load(0xf010n, 8), yield* guest.load(0xf018n, 8));
          frame.result = 0n;
        };
        yield* guest.lidt(new Map([[20, handler]]));
        yield* guest.load(0x4000_5000n, 1);
        yield* guest.hlt();
      },
      (lp, reason) => {
        if (reason === ExitReason.TDCALL) {
          // A TD may not write EFER: the module sets LME.
          lp.vmwrite(VMCS.GUEST_IA32_EFER, 0x100n);
          advance(lp);
          return true;
        }
        expect(reason).toBe(ExitReason.HLT);
        return false;
      },
    );
    call(p);
    expect(read64(p.lp, SHARED_PAGE)).toBe(0xc0ffeen);
    expect(faults).toEqual([0x4000_5000n, (1n << 47n) | 0x5000n]);
  });

  it("is a machine check exit when private memory was overwritten by the host", () => {
    const reasons: number[] = [];
    let host: Platform | null = null;
    const p = td(
      function* () {
        yield* guest.tdcall({ rax: 1n });
        yield* guest.load(0x3000n, 8);
      },
      (lp, reason) => {
        reasons.push(reason);
        if (reason !== ExitReason.TDCALL) {
          expect(lp.vmread(VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000312n);
          return false;
        }
        lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 18n);
        write64(host!.lp, TD_RAM + 0x3000, 1n);
        advance(lp);
        return true;
      },
    );
    host = p;
    call(p);
    expect(reasons).toEqual([ExitReason.TDCALL, ExitReason.EXCEPTION_OR_NMI]);
    expect(p.events.some((event) => event.type === "MC")).toBe(true);
  });

  it("ends the processor when the VMCS's region is overwritten while the guest runs", () => {
    let host: Platform | null = null;
    const p = td(
      function* () {
        // Somebody with KeyID 0, on another bus master's behalf.
        write64(host!.lp, TD_VMCS + 0x40, 0x1234n);
        yield* guest.tdcall({ rax: 1n });
      },
      () => {
        throw new Error("the exit has no VMCS to be in");
      },
    );
    host = p;
    p.lp.regs.setGpr(Gpr.RAX, 0n);
    expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    expect(p.lp.seamcall()).toEqual({ kind: "ok", cf: true });
    // Nothing of the guest went where the host reads.
    const page = new Uint8Array(4096);
    ok(p.lp.memRead(pa(TD_VMCS), page));
    expect(page.slice(0x48).every((byte) => byte === 0)).toBe(true);
  });
});

describe("keyholes", () => {
  it("show a page under its key until somebody else owns it", () => {
    const PAGE = hpa(0x60_0000);
    const p = platform((lp) => {
      lp.pconfig({ keyId: HKID, command: 1, encAlg: 1 });
      lp.zero(PAGE, HKID, 4096);
      const at = lp.keyhole(PAGE, HKID);
      const { keyholes } = lp;
      lp.arena.u32[at / 4 + 2] = 0x600d;
      expect(lp.readU64(hpa(PAGE + 8), HKID)).toBe(0x600dn);
      lp.writeU32(hpa(PAGE + 12), HKID, 7);
      expect(lp.arena.u64[at / 8 + 1]).toBe(0x7_0000_600dn);
      expect(lp.keyholes).toBe(keyholes);
      // The host writes there: the page is no longer this key's alone.
      write64(p.lp, PAGE, 1n);
      expect(lp.keyholes).not.toBe(keyholes);
      expect(lp.keyhole(PAGE, HKID)).toBe(-1);
      lp.zero(PAGE, HKID, 4096);
      expect(lp.keyhole(PAGE, HKID)).toBeGreaterThan(0);
      lp.regs.setGpr(Gpr.RAX, 0n);
    });
    call(p);
  });
});
