/** What a run's trace tells: counts for the summary, RTMRs as the module extended them, stages for the progress. */
import { NUM_RTMRS, type Trace, type TraceEvent } from "@swtdx/abi";
import { extendRtmr } from "@swtdx/attestation";
import { toJson } from "../io/files.js";
import { hex } from "../io/files.js";

export class Observer {
  readonly seamcalls: Record<string, number> = {};
  readonly tdcalls: Record<string, number> = {};
  mrtd: string | null = null;
  readonly rtmrs: Uint8Array[] = Array.from({ length: NUM_RTMRS }, () => new Uint8Array(48));
  #seen = 0;

  /**
   * @param stage gets what a layer says it begins, and a sign of life now and then
   * @param write gets every event as a line of JSON
   */
  constructor(
    trace: Trace,
    private readonly stage: { begin(text: string): void; alive(): void } | null,
    private readonly write: ((line: string) => void) | null,
  ) {
    trace.subscribe((event) => this.#event(event));
  }

  #event(event: TraceEvent): void {
    switch (event.type) {
      case "SEAMCALL":
        this.seamcalls[event.leaf] = (this.seamcalls[event.leaf] ?? 0) + 1;
        break;
      case "TDCALL":
        this.tdcalls[event.leaf] = (this.tdcalls[event.leaf] ?? 0) + 1;
        break;
      case "MEASURE":
        if (event.register === "MRTD") this.mrtd = event.digest;
        else {
          const index = Number(event.register.slice(4));
          this.rtmrs[index] = extendRtmr(this.rtmrs[index], new Uint8Array(Buffer.from(event.digest, "hex")));
        }
        break;
      case "STAGE":
        this.stage?.begin(`${event.layer}: ${event.what}`);
        break;
      default:
    }
    if (++this.#seen % 4096 === 0) this.stage?.alive();
    this.write?.(toJson(event));
  }

  get rtmrTexts(): string[] {
    return this.rtmrs.map(hex);
  }
}
