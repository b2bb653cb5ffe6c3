/**
 * What the layers tell whoever watches: the CLI's progress and --trace, the lab, tests. One interface for all.
 * With no listener an event costs one branch: test `trace.on` before building the event.
 */

/** Register values, addresses and statuses are bigint or number as their interfaces have them. */
export type TraceEvent =
  | {
      type: "SEAMCALL";
      lp: number;
      leaf: string;
      input: Readonly<Record<string, bigint>>;
      status: bigint;
      output: Readonly<Record<string, bigint>>;
    }
  | {
      type: "TDCALL";
      lp: number;
      leaf: string;
      input: Readonly<Record<string, bigint>>;
      status: bigint;
      output: Readonly<Record<string, bigint>>;
    }
  | {
      type: "TDVMCALL";
      vcpu: number;
      subFunction: string;
      input: Readonly<Record<string, bigint>>;
      status: bigint;
    }
  | { type: "VMENTRY"; lp: number; rip: bigint }
  | { type: "VMEXIT"; lp: number; reason: number; name: string; qualification: bigint; rip: bigint }
  | { type: "VE"; lp: number; reason: number; name: string; gpa: number; gla: bigint }
  | { type: "EXCEPTION"; lp: number; vector: number; errorCode: number | null; rip: bigint }
  | { type: "MC"; lp: number; hpa: number }
  | { type: "SEPT"; op: string; gpa: number; level: number; state: string; hpa: number }
  | { type: "KEYID"; op: "programmed" | "cleared"; keyId: number }
  | {
      type: "MEASURE";
      register: "MRTD" | "RTMR0" | "RTMR1" | "RTMR2" | "RTMR3";
      digest: string;
      what: string;
    }
  | { type: "IOCTL"; fd: string; name: string; result: number }
  | { type: "KVM_EXIT"; vcpu: number; reason: string }
  | { type: "DEVICE"; device: string; what: string }
  | { type: "STAGE"; layer: string; what: string };

/** A stream of events. A layer takes one in its options; the default has nobody listening. */
export class Trace {
  #listeners: ((event: TraceEvent) => void)[] = [];
  /** Somebody listens. Test this before building an event. */
  on = false;

  emit(event: TraceEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** @returns a function that ends the subscription. */
  subscribe(listener: (event: TraceEvent) => void): () => void {
    this.#listeners.push(listener);
    this.on = true;
    return () => {
      this.#listeners = this.#listeners.filter((one) => one !== listener);
      this.on = this.#listeners.length > 0;
    };
  }
}
