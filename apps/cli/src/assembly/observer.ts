/** What a run's trace tells: counts for the summary, RTMRs as the module extended them, stages for the progress. */
import { NUM_RTMRS, seamcallName, tdcallName, type Trace, type TraceEvent } from "@swtdx/abi";
import { extendRtmr } from "@swtdx/attestation";
import { hex, toJson } from "../io/files.js";

export class Observer {
  mrtd: string | null = null;
  readonly rtmrs: Uint8Array[] = Array.from({ length: NUM_RTMRS }, () => new Uint8Array(48));

  /**
   * @param stage gets what a layer says it begins
   * @param write gets every event as a line of JSON
   */
  constructor(
    private readonly trace: Trace,
    stage: (text: string) => void,
    write: ((line: string) => void) | null,
  ) {
    trace.subscribe(({ layer, what }) => stage(`${layer}: ${what}`), ["STAGE"]);
    trace.subscribe((event) => this.#measured(event), ["MEASURE"]);
    if (write) trace.subscribe((event) => write(toJson(event)));
  }

  #measured({ register, digest }: Extract<TraceEvent, { type: "MEASURE" }>): void {
    if (register === "MRTD") this.mrtd = digest;
    else {
      const index = Number(register.slice(4));
      this.rtmrs[index] = extendRtmr(this.rtmrs[index], new Uint8Array(Buffer.from(digest, "hex")));
    }
  }

  /** Calls of the module's functions, those that were called. */
  get seamcalls(): Record<string, number> {
    return byName(this.trace.seamcalls, seamcallName);
  }
  get tdcalls(): Record<string, number> {
    return byName(this.trace.tdcalls, tdcallName);
  }

  get rtmrTexts(): string[] {
    return this.rtmrs.map(hex);
  }
}

function byName(counts: Uint32Array, nameOf: (leaf: number) => string | null): Record<string, number> {
  const out: Record<string, number> = {};
  counts.forEach((count, leaf) => {
    if (count > 0) out[nameOf(leaf) ?? String(leaf)] = count;
  });
  return out;
}
