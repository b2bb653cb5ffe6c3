/**
 * GetQuote: a TD asks the VMM for a quote of its TDREPORT through a shared buffer; the VMM passes the report to a
 * quote generation service (QGS) and fills the buffer when the answer is there. GHCI specification 1.5, 3.3; QEMU,
 * target/i386/kvm/tdx.c (tdx_handle_get_quote) and tdx-quote-generator.c.
 */
import {
  QGS_MSG_GET_QUOTE_REQ,
  QGS_MSG_GET_QUOTE_RESP,
  QGS_MSG_LIB_MAJOR_VER,
  QGS_MSG_LIB_MINOR_VER,
  QGS_MSG_TYPE,
  struct,
  u32,
  u64,
  viewOf,
} from "@swtdx/abi";
import type { DmaMemory } from "../memory/guest-memory.js";

/** Header of the buffer that the guest shares. */
export const TDX_GET_QUOTE_HEADER = struct("tdx_get_quote_header", 24, {
  structure_version: u64(0),
  error_code: u64(8),
  /** Bytes of data in and out; the data begins at offset 24. */
  in_len: u32(16),
  out_len: u32(20),
});
export const TDX_GET_QUOTE_STRUCTURE_VERSION = 1n;
export const TDX_GET_QUOTE_MAX_BUF_LEN = 128 * 1024;
export const TDX_MAX_GET_QUOTE_REQUEST = 16;
/** Status codes in the buffer. */
export const GET_QUOTE_STATUS = {
  SUCCESS: 0n,
  IN_FLIGHT: 0xffffffffffffffffn,
  ERROR: 0x8000000000000000n,
  QGS_UNAVAILABLE: 0x8000000000000001n,
} as const;
/** Status codes of TDG.VP.VMCALL. */
export const TDG_VP_VMCALL = {
  SUCCESS: 0n,
  RETRY: 1n,
  INVALID_OPERAND: 0x8000000000000000n,
  ALIGN_ERROR: 0x8000000000000002n,
} as const;

const QGS_VERSION = {
  major_version: QGS_MSG_LIB_MAJOR_VER,
  minor_version: QGS_MSG_LIB_MINOR_VER,
} as const;

/**
 * A quote generation service: takes one QGS message (without the length that frames it on a socket) and answers with
 * one. A rejection means that the service cannot be reached.
 */
export type QuoteGenerationService = (message: Uint8Array) => Uint8Array | Promise<Uint8Array>;

/** The request for a quote of `report`. */
export function encodeQuoteRequest(report: Uint8Array): Uint8Array {
  const message = new Uint8Array(QGS_MSG_GET_QUOTE_REQ.size + report.length);
  QGS_MSG_GET_QUOTE_REQ.write(viewOf(message), {
    ...QGS_VERSION,
    type: QGS_MSG_TYPE.GET_QUOTE_REQ,
    size: message.length,
    report_size: report.length,
  });
  message.set(report, QGS_MSG_GET_QUOTE_REQ.size);
  return message;
}

/** The quote in a response, or null when it is none, or says that there was an error. */
export function decodeQuoteResponse(message: Uint8Array): Uint8Array | null {
  if (message.length < QGS_MSG_GET_QUOTE_RESP.size) return null;
  const head = QGS_MSG_GET_QUOTE_RESP.decode(message);
  if (head.major_version !== QGS_VERSION.major_version || head.minor_version !== QGS_VERSION.minor_version)
    return null;
  if (head.type !== QGS_MSG_TYPE.GET_QUOTE_RESP || head.size !== message.length || head.error_code !== 0)
    return null;
  if (head.selected_id_size !== 0 || head.quote_size !== message.length - QGS_MSG_GET_QUOTE_RESP.size)
    return null;
  return message.slice(QGS_MSG_GET_QUOTE_RESP.size);
}

export interface QuoteGenerationOptions {
  readonly memory: DmaMemory;
  readonly service: QuoteGenerationService | null;
  /** A request is complete: notifies the guest, if it asked for that. */
  completed(): void;
}

/** Milliseconds of wall time after which a service that does not answer has failed (QEMU: TRANSACTION_TIMEOUT). */
const TRANSACTION_TIMEOUT = 30_000;

export class QuoteGeneration {
  readonly #pending = new Set<Promise<void>>();
  readonly #answers: (() => void)[] = [];

  constructor(private readonly options: QuoteGenerationOptions) {}

  /** Requests that are with the service, or answered and not delivered yet. */
  get inFlight(): number {
    return this.#pending.size + this.#answers.length;
  }

  /** TDG.VP.VMCALL<GetQuote>. @returns its status. */
  getQuote(gpa: bigint, size: bigint): bigint {
    const { memory, service } = this.options;
    if (size === 0n) return TDG_VP_VMCALL.INVALID_OPERAND;
    if (gpa % 4096n !== 0n || size % 4096n !== 0n) return TDG_VP_VMCALL.ALIGN_ERROR;
    if (gpa > BigInt(Number.MAX_SAFE_INTEGER)) return TDG_VP_VMCALL.INVALID_OPERAND;
    const at = Number(gpa);
    const bytes = new Uint8Array(TDX_GET_QUOTE_HEADER.size);
    if (!memory.read(at, bytes)) return TDG_VP_VMCALL.INVALID_OPERAND;
    const header = TDX_GET_QUOTE_HEADER.decode(bytes);
    if (header.structure_version !== TDX_GET_QUOTE_STRUCTURE_VERSION) return TDG_VP_VMCALL.INVALID_OPERAND;
    if (size > BigInt(TDX_GET_QUOTE_MAX_BUF_LEN)) return TDG_VP_VMCALL.INVALID_OPERAND;
    const room = Number(size) - TDX_GET_QUOTE_HEADER.size;
    if (header.in_len > room) return TDG_VP_VMCALL.INVALID_OPERAND;

    const finish = (error_code: bigint, out_len = header.out_len): boolean =>
      memory.write(at, TDX_GET_QUOTE_HEADER.encode({ ...header, error_code, out_len }));
    if (service === null)
      return finish(GET_QUOTE_STATUS.QGS_UNAVAILABLE) ? TDG_VP_VMCALL.SUCCESS : TDG_VP_VMCALL.INVALID_OPERAND;
    if (this.inFlight >= TDX_MAX_GET_QUOTE_REQUEST) return TDG_VP_VMCALL.RETRY;
    const report = new Uint8Array(header.in_len);
    if (!memory.read(at + TDX_GET_QUOTE_HEADER.size, report)) return TDG_VP_VMCALL.INVALID_OPERAND;
    if (!finish(GET_QUOTE_STATUS.IN_FLIGHT)) return TDG_VP_VMCALL.INVALID_OPERAND;

    const answered = (response: Uint8Array | "unreachable" | "late"): void => {
      this.#answers.push(() => {
        const quote = typeof response === "string" ? null : decodeQuoteResponse(response);
        if (response === "unreachable") finish(GET_QUOTE_STATUS.QGS_UNAVAILABLE);
        else if (
          quote === null ||
          quote.length > room ||
          !memory.write(at + TDX_GET_QUOTE_HEADER.size, quote)
        )
          finish(GET_QUOTE_STATUS.ERROR);
        else finish(GET_QUOTE_STATUS.SUCCESS, quote.length);
        this.options.completed();
      });
    };
    this.#ask(service, encodeQuoteRequest(report), answered);
    return TDG_VP_VMCALL.SUCCESS;
  }

  #ask(
    service: QuoteGenerationService,
    request: Uint8Array,
    answered: (response: Uint8Array | "unreachable" | "late") => void,
  ): void {
    let response: Uint8Array | Promise<Uint8Array>;
    try {
      response = service(request);
    } catch {
      answered("unreachable");
      return;
    }
    if (response instanceof Uint8Array) {
      answered(response);
      return;
    }
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<"late">((resolve) => {
      timer = setTimeout(() => resolve("late"), TRANSACTION_TIMEOUT);
    });
    const pending = Promise.race([response.catch(() => "unreachable" as const), late]).then((result) => {
      clearTimeout(timer);
      this.#pending.delete(pending);
      answered(result);
    });
    this.#pending.add(pending);
  }

  /**
   * Resolves when the service has answered all requests, null when there are none. The machine stands still in the
   * meantime, so that a run does not depend on how fast a service is.
   */
  settled(): Promise<unknown> | null {
    return this.#pending.size === 0 ? null : Promise.all(this.#pending);
  }

  /** Delivers the answers to their buffers; the machine's loop calls it between slices. */
  poll(): void {
    if (this.#answers.length > 0) for (const deliver of this.#answers.splice(0)) deliver();
  }
}
