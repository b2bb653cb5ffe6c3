/**
 * The attestation driver: TDREPORT, RTMR extension and quotes. Linux: drivers/virt/coco/tdx-guest.
 */
import {
  GET_QUOTE_HEADER,
  GET_QUOTE_HEADER_SIZE,
  GET_QUOTE_STATUS,
  GET_QUOTE_VERSION,
  guest,
  type Guest,
  PAGE_SIZE,
  REPORTDATA_SIZE,
  TDREPORT_STRUCT,
  viewOf,
  tdcall,
} from "@swtdx/abi";
import { tdvmcall } from "../arch/tdcall.js";
import type { MemoryManager } from "../mm/memory.js";
import type { Swiotlb } from "./swiotlb.js";

/** Bytes of the quote buffer, header included. */
const QUOTE_BUFFER_PAGES = 4;
/** PAUSEs before the driver gives up waiting for a quote. */
const MAX_POLLS = 1_000_000;

/** Why there is no report or quote. */
export class AttestationError extends Error {
  override readonly name = "AttestationError";
}

export class TdxGuestDriver {
  private constructor(
    private readonly page: number,
    private readonly swiotlb: Swiotlb,
    private readonly sharedMask: bigint,
  ) {}

  static *probe(memory: MemoryManager, swiotlb: Swiotlb, sharedMask: bigint): Guest<TdxGuestDriver> {
    return new TdxGuestDriver(yield* memory.allocPages(1), swiotlb, sharedMask);
  }

  /** TDX_CMD_GET_REPORT0: a TDREPORT over 64 bytes of report data. @throws AttestationError */
  *getReport(reportData: Uint8Array): Guest<Uint8Array> {
    const padded = new Uint8Array(REPORTDATA_SIZE);
    padded.set(reportData.subarray(0, REPORTDATA_SIZE));
    const data = BigInt(this.page + TDREPORT_STRUCT.size);
    yield* guest.storeBytes(data, padded);
    const { rax } = yield* tdcall("TDG.MR.REPORT", { rcx: BigInt(this.page), rdx: data, r8: 0n });
    if (rax !== 0n) throw new AttestationError(`TDG.MR.REPORT: 0x${rax.toString(16)}`);
    return yield* guest.loadBytes(BigInt(this.page), TDREPORT_STRUCT.size);
  }

  /** Extends RTMR[index] with a digest of 48 bytes. @throws AttestationError */
  *extendRtmr(index: number, digest: Uint8Array): Guest<void> {
    yield* guest.storeBytes(BigInt(this.page), digest);
    const { rax } = yield* tdcall("TDG.MR.RTMR.EXTEND", { rcx: BigInt(this.page), rdx: BigInt(index) });
    if (rax !== 0n) throw new AttestationError(`TDG.MR.RTMR.EXTEND: 0x${rax.toString(16)}`);
  }

  /** A quote over 64 bytes of report data, through the VMM. @throws AttestationError */
  *getQuote(reportData: Uint8Array): Guest<Uint8Array> {
    const report = yield* this.getReport(reportData);
    const buffer = yield* this.swiotlb.map(QUOTE_BUFFER_PAGES);
    const size = QUOTE_BUFFER_PAGES * PAGE_SIZE;
    yield* guest.storeBytes(
      BigInt(buffer),
      GET_QUOTE_HEADER.encode({
        VERSION: GET_QUOTE_VERSION,
        STATUS: GET_QUOTE_STATUS.IN_FLIGHT,
        IN_LEN: report.length,
      }),
    );
    yield* guest.storeBytes(BigInt(buffer + GET_QUOTE_HEADER_SIZE), report);
    const regs = { r12: BigInt(buffer) | this.sharedMask, r13: BigInt(size) };
    const { r10 } = yield* tdvmcall("GetQuote", regs);
    if (r10 !== 0n) {
      this.swiotlb.unmap(buffer, QUOTE_BUFFER_PAGES);
      throw new AttestationError(`GetQuote: 0x${r10.toString(16)}`);
    }
    // A buffer that the VMM may still write to stays taken.
    const header = yield* this.#waitForQuote(buffer);
    const fits = header.OUT_LEN <= size - GET_QUOTE_HEADER_SIZE;
    const length = fits && header.STATUS === GET_QUOTE_STATUS.SUCCESS ? header.OUT_LEN : 0;
    const quote = yield* guest.loadBytes(BigInt(buffer + GET_QUOTE_HEADER_SIZE), length);
    this.swiotlb.unmap(buffer, QUOTE_BUFFER_PAGES);
    if (header.STATUS !== GET_QUOTE_STATUS.SUCCESS)
      throw new AttestationError(`quote status 0x${header.STATUS.toString(16)}`);
    if (!fits) throw new AttestationError(`a quote of ${header.OUT_LEN} bytes`);
    return quote;
  }

  *#waitForQuote(buffer: number): Guest<ReturnType<(typeof GET_QUOTE_HEADER)["decode"]>> {
    for (let polls = 0; polls < MAX_POLLS; polls++) {
      const header = GET_QUOTE_HEADER.read(
        viewOf(yield* guest.loadBytes(BigInt(buffer), GET_QUOTE_HEADER_SIZE)),
      );
      if (header.STATUS !== GET_QUOTE_STATUS.IN_FLIGHT) return header;
      yield* guest.pause();
    }
    throw new AttestationError("no quote came");
  }
}
