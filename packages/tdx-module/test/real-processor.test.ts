import { guest, TDX_STATUS, type GuestFrame, type GuestProgram } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { sha384 } from "@swtdx/crypto";
import { describe, expect, test } from "vitest";
import { SeptState } from "../src/structures/sept.js";
import { TDCS } from "../src/structures/tdcs.js";
import { TDVPS } from "../src/structures/tdvps.js";
import { ExitReason } from "../src/tables/exit-reasons.js";
import { RealPlatform } from "./support/real-seam.js";

const VE = 20;
const VP_INFO = 1n;
const VEINFO_GET = 3n;
const RTMR_EXTEND = 2n;
const MR_REPORT = 4n;
const ACCEPT = 6n;
const VMCALL = 0n;
const TDVMCALL_EXIT = 77n;

/** Ends the program's turn: TDG.VP.VMCALL that exposes R10 and R11. */
const vmcall = (r11: bigint) => guest.tdcall({ rax: VMCALL, rcx: 0xc00n, r10: 0n, r11 });

describe("a TD on a real processor", () => {
  const platform = new RealPlatform();
  const lp = platform.processor.lps[0];

  test("TDG.VP.VMCALL to the VMM and back", () => {
    const seen: bigint[] = [];
    const td = platform.td(function* () {
      const info = yield* guest.tdcall({ rax: VP_INFO });
      seen.push(info.rax, info.rcx, info.rdx);
      const answer = yield* vmcall(0x1234n);
      seen.push(answer.rax, answer.r10, answer.r11);
      yield* vmcall(0x5678n);
    });
    expect(td.enter({ RBX: 7n, R15: 8n })).toBe(TDVMCALL_EXIT);
    expect([lp.regs.gpr(Gpr.RCX), lp.regs.gpr(Gpr.R10), lp.regs.gpr(Gpr.R11)]).toEqual([0xc00n, 0n, 0x1234n]);
    expect(td.enter({ R10: 0n, R11: 99n })).toBe(TDVMCALL_EXIT);
    expect(lp.regs.gpr(Gpr.R11)).toBe(0x5678n);
    expect(seen).toEqual([TDX_STATUS.TDX_SUCCESS, 48n, 1n << 28n, TDX_STATUS.TDX_SUCCESS, 0n, 99n]);
  });

  test("CPUID comes from the TDCS; unknown leaves and forbidden MSRs are #VEs", () => {
    const reasons: bigint[] = [];
    const out: unknown[] = [];
    const td = platform.td(function* () {
      yield* guest.lidt(
        new Map([
          [
            VE,
            function* (frame: GuestFrame) {
              const info = yield* guest.tdcall({ rax: VEINFO_GET });
              reasons.push(info.rcx & 0xffffffffn);
              frame.result = frame.op?.op === "cpuid" ? { eax: 1, ebx: 2, ecx: 3, edx: 4 } : 5n;
            },
          ],
        ]),
      );
      out.push(yield* guest.cpuid(0x21), yield* guest.cpuid(0x4000_0000), yield* guest.rdmsr(0x2ff));
      yield* guest.hlt();
      yield* guest.out(0x3f8, 1, 65);
      yield* vmcall(1n);
    });
    td.setCpuid(0x21, 0, [0, 0x65746e49, 0x20202020, 0x5844546c]);
    td.setCpuid(0, 0, [0x23, 0x756e6547, 0x6c65746e, 0x49656e69]);
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(out).toEqual([
      { eax: 0, ebx: 0x65746e49, ecx: 0x20202020, edx: 0x5844546c },
      { eax: 1, ebx: 2, ecx: 3, edx: 4 },
      5n,
    ]);
    expect(reasons).toEqual(
      [ExitReason.CPUID, ExitReason.MSR_READ, ExitReason.HLT, ExitReason.IO_INSTRUCTION].map(BigInt),
    );
  });

  test("a pending page: #VE, accept, and the access again", () => {
    const gpa = 0x40_0000n;
    const faults: bigint[][] = [];
    const out: bigint[] = [];
    const td = platform.td(
      function* () {
        yield* guest.lidt(
          new Map([
            [
              VE,
              function* () {
                const info = yield* guest.tdcall({ rax: VEINFO_GET });
                const accepted = yield* guest.tdcall({ rax: ACCEPT, rcx: gpa });
                faults.push([info.rcx & 0xffffffffn, info.r8, info.r9, accepted.rax]);
              },
            ],
          ]),
        );
        yield* guest.store(gpa + 8n, 8, 0xabcdn);
        out.push(yield* guest.load(gpa + 8n, 8), yield* guest.load(gpa, 8));
        out.push((yield* guest.tdcall({ rax: ACCEPT, rcx: gpa })).rax);
        yield* vmcall(1n);
      },
      { attributes: 0n, tdCtls: 0n },
    );
    platform.seam(() => td.td.map(Number(gpa), SeptState.PENDING));
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(faults).toEqual([[48n, gpa + 8n, gpa + 8n, TDX_STATUS.TDX_SUCCESS]]);
    expect(out).toEqual([0xabcdn, 0n, TDX_STATUS.TDX_PAGE_ALREADY_ACCEPTED]);
    platform.seam(() => expect(td.td.septState(Number(gpa))).toEqual(SeptState.MAPPED));
  });

  test("a missing page is an EPT violation for the VMM, and a mapped one lets the guest go on", () => {
    const gpa = 0x50_0000n;
    let value: bigint | null = null;
    const td = platform.td(function* () {
      value = yield* guest.load(gpa + 0x18n, 8);
      yield* vmcall(2n);
    });
    expect(td.enter()).toBe(48n);
    expect(lp.regs.gpr(Gpr.R8)).toBe(gpa);
    expect(value).toBeNull();
    platform.seam(() =>
      td.write(
        Number(gpa),
        Uint8Array.from({ length: 32 }, (_, i) => i),
        SeptState.MAPPED,
      ),
    );
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(value).toBe(0x1f1e1d1c1b1a1918n);
  });

  test("an interrupt for the host ends the run without a trace in the guest", () => {
    let done = false;
    const td = platform.td(function* () {
      const before = yield* guest.getRegs();
      yield* guest.pause();
      const after = yield* guest.getRegs();
      done = before.rbx === after.rbx;
      yield* vmcall(3n);
    });
    lp.pendExternalInterrupt(0xf3);
    const status = td.enter();
    expect(status & 0xffffffffn).toBe(1n);
    // Acknowledged at the VM exit, as the VM-exit interruption information says.
    expect(lp.regs.gpr(Gpr.R9)).toBe(0x8000_00f3n);
    expect(lp.takeInterrupt()).toBeNull();
    expect(done).toBe(false);
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(done).toBe(true);
  });

  test("a triple fault ends the vCPU", () => {
    const td = platform.td(function* () {
      yield* guest.ud2();
    });
    const status = td.enter();
    expect(status & 0xffffffffn).toBe(BigInt(ExitReason.TRIPLE_FAULT));
    expect(status >> 32n).toBe(TDX_STATUS.TDX_NON_RECOVERABLE_VCPU >> 32n);
    expect(td.enter()).toBe(TDX_STATUS.TDX_VCPU_STATE_INCORRECT);
  });

  test("control registers: what a guest may change, and an exception for what not", () => {
    const out: unknown[] = [];
    const program: GuestProgram = function* () {
      yield* guest.lidt(
        new Map([
          ...(
            [
              [13, "#GP"],
              [VE, "#VE"],
            ] as const
          ).map(
            ([vector, name]) =>
              [
                vector,
                function* (frame: GuestFrame) {
                  yield* guest.pause();
                  out.push(name);
                  frame.result = null;
                },
              ] as const,
          ),
        ]),
      );
      const cr4 = yield* guest.readCr(4);
      out.push(cr4 & 0x2000n);
      yield* guest.writeCr(4, cr4 | 0x80n);
      out.push((yield* guest.readCr(4)) & 0x80n);
      yield* guest.writeCr(4, cr4 | 0x2000n);
      const cr0 = yield* guest.readCr(0);
      yield* guest.writeCr(0, cr0 & ~0x20n);
      yield* vmcall(0n);
    };
    const td = platform.td(program);
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(out).toEqual([0n, 0x80n, "#VE", "#GP"]);
  });

  test("state is the TD's alone: registers of neither side reach the other", () => {
    const guestRegs: bigint[] = [];
    const td = platform.td(function* () {
      const regs = yield* guest.getRegs();
      guestRegs.push(regs.rbx, regs.r12);
      yield* guest.tdcall({ rax: VMCALL, rcx: 0n, rbx: 0xdeadn, r12: 0xbeefn });
    });
    expect(td.enter({ RBX: 0x11n, R12: 0x22n, RBP: 0x33n })).toBe(TDVMCALL_EXIT);
    expect(guestRegs).toEqual([48n, 0n]);
    expect(lp.regs.gpr(Gpr.RBX)).toBe(0n);
    expect(lp.regs.gpr(Gpr.R12)).toBe(0n);
    expect(lp.regs.gpr(Gpr.RBP)).toBe(0x33n);
    platform.seam(() => expect(td.td.tdcs.get(TDCS.OP_STATE_LOCK)).toBe(0));
  });

  test("TDG.MR.REPORT: a report that this processor verifies, with the extended RTMR", () => {
    const gpa = 0x60_0000;
    const out: { report?: Uint8Array; statuses: bigint[] } = { statuses: [] };
    const td = platform.td(function* () {
      yield* guest.storeBytes(BigInt(gpa), new Uint8Array(64).fill(0x5a));
      yield* guest.storeBytes(BigInt(gpa + 64), new Uint8Array(48).fill(0xa5));
      const extended = yield* guest.tdcall({ rax: RTMR_EXTEND, rcx: BigInt(gpa + 64), rdx: 2n });
      const reported = yield* guest.tdcall({
        rax: MR_REPORT,
        rcx: BigInt(gpa + 1024),
        rdx: BigInt(gpa),
        r8: 0n,
      });
      out.statuses.push(extended.rax, reported.rax);
      out.report = yield* guest.loadBytes(BigInt(gpa + 1024), 1024);
      yield* vmcall(0n);
    });
    platform.seam(() => td.td.map(gpa, SeptState.MAPPED));
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(out.statuses).toEqual([TDX_STATUS.TDX_SUCCESS, TDX_STATUS.TDX_SUCCESS]);
    const report = out.report!;
    expect(report[0]).toBe(0x81);
    expect(report.subarray(128, 192)).toEqual(new Uint8Array(64).fill(0x5a));
    const rtmr2 = new Uint8Array(96);
    rtmr2.fill(0xa5, 48);
    expect(report.subarray(512 + 304, 512 + 352)).toEqual(sha384(rtmr2));
    const mac = report.slice(0, 256);
    expect(lp.everifyreport2(mac)).toBe(0);
    mac[130] ^= 1;
    expect(lp.everifyreport2(mac)).not.toBe(0);
  });

  test("an NMI that the VMM asked for is delivered, once", () => {
    let nmis = 0;
    const td = platform.td(function* () {
      yield* guest.lidt(
        new Map([
          [
            2,
            function* () {
              yield* guest.pause();
              nmis++;
            },
          ],
        ]),
      );
      yield* vmcall(1n);
      yield* guest.pause();
      yield* vmcall(2n);
    });
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    platform.seam(() => td.td.tdvps.set(TDVPS.PEND_NMI, 1));
    expect(td.enter()).toBe(TDVMCALL_EXIT);
    expect(lp.regs.gpr(Gpr.R11)).toBe(2n);
    expect(nmis).toBe(1);
    platform.seam(() => expect(td.td.tdvps.get(TDVPS.PEND_NMI)).toBe(0));
  });

  test("a #VE before the last one was read becomes a double fault", () => {
    const vectors: number[] = [];
    const handler = (vector: number) =>
      function* (frame: GuestFrame) {
        yield* guest.pause();
        vectors.push(vector);
        frame.result = null;
      };
    const td = platform.td(function* () {
      yield* guest.lidt(new Map([VE, 8].map((vector) => [vector, handler(vector)] as const)));
      yield* guest.hlt();
      yield* guest.hlt();
      yield* vmcall(2n);
    });
    td.enter();
    expect(vectors).toEqual([VE, 8]);
  });
});
