/** Machines that run alike in Node and in a browser: what one run gives is plain data, to be compared. */
import { NUM_RTMRS, Trace } from "@swtdx/abi";
import {
  createCollateral,
  createPki,
  extendRtmr,
  Qgs,
  QuotingEnclave,
  verifyQuote,
} from "@swtdx/attestation";
import { SeededRandom } from "@swtdx/crypto";
import { Machine } from "@swtdx/qemu";
import { guestImages } from "../../src/assembly/guest.js";
import { powerOn } from "../../src/assembly/platform.js";
import { openProcess } from "../../src/assembly/vmm.js";

export interface Request {
  /** Without one the TypeScript firmware and guest run. */
  readonly bios?: Uint8Array;
  readonly kernel?: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append?: string;
  readonly plain?: boolean;
  readonly memoryBytes?: number;
}

export interface Report {
  readonly outcome: { exit: string; reason: string };
  readonly console: string;
  readonly instructions: number;
  readonly mrtd: string | null;
  readonly rtmr: readonly string[];
  /** Hexadecimal; null if the guest asked for none. */
  readonly quote: string | null;
  /** Of the project's verifier: what it does not accept. */
  readonly objections: readonly string[] | null;
}

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const bytesOf = (text: string): Uint8Array =>
  Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Runs a machine to its end, with everything in it from the same seed. */
export async function runMachine(request: Request): Promise<Report> {
  const random = new SeededRandom(new TextEncoder().encode("browser"));
  const trace = new Trace();
  const rtmrs = Array.from({ length: NUM_RTMRS }, (): Uint8Array => new Uint8Array(48));
  trace.subscribe(
    ({ register, digest }) => {
      const index = register === "MRTD" ? -1 : Number(register.slice(4));
      if (index >= 0) rtmrs[index] = extendRtmr(rtmrs[index], bytesOf(digest));
    },
    ["MEASURE"],
  );
  const built = guestImages();
  const memoryBytes = request.memoryBytes ?? 512 * 2 ** 20;
  const platform = powerOn({ random, trace, guestMemory: memoryBytes, programs: built.programs });
  const pki = createPki(random.fork("pki"));
  const enclave = new QuotingEnclave({
    pki,
    random: random.fork("qe"),
    verifyReport: (mac) => platform.verifyReport(mac),
  });
  let quote: Uint8Array | null = null;
  const qgs = new Qgs({
    pki,
    enclave: {
      qeId: enclave.qeId,
      isvSvn: enclave.isvSvn,
      quote(report) {
        const result = enclave.quote(report);
        if (result.ok) quote = result.quote;
        return result;
      },
    },
  });
  let text = "";
  const decoder = new TextDecoder();
  const { kernel, initrd, append, plain } = request;
  const machine = new Machine({
    syscalls: openProcess(platform),
    bios: request.bios ?? built.firmware,
    memoryBytes,
    trace,
    serial: (bytes) => (text += decoder.decode(bytes, { stream: true })),
    quoteGenerationService: (message) => qgs.handle(message),
    ...(plain !== undefined && { plain }),
    ...(request.bios === undefined ? { kernel: built.kernel } : kernel && { kernel }),
    ...(initrd && { initrd }),
    ...(append !== undefined && { append }),
  });
  try {
    const { exit, reason } = await machine.run();
    return {
      outcome: { exit, reason },
      console: text,
      instructions: platform.instructions(),
      mrtd: machine.td?.mrtd ?? null,
      rtmr: rtmrs.map(hex),
      quote: quote && hex(quote),
      objections: quote && objections(quote, pki),
    };
  } finally {
    machine.close();
  }
}

function objections(quote: Uint8Array, pki: ReturnType<typeof createPki>): string[] {
  const now = new Date("2026-06-01T00:00:00Z");
  const { checks } = verifyQuote(quote, {
    root: pki.root.certificate.der,
    collateral: createCollateral(pki, { issueDate: now }),
    now,
  });
  return checks.filter(({ ok }) => !ok).map(({ name, detail }) => `${name}: ${detail}`);
}
