/**
 * What the layers tell whoever watches: the CLI's progress and --trace, the lab, tests. One interface for all.
 * An event that nobody listens to costs one branch: test `trace.on.TYPE` before building it.
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

export type TraceType = TraceEvent["type"];
type TraceEventOf<T extends TraceType> = Extract<TraceEvent, { type: T }>;

const NOBODY: Readonly<Record<TraceType, boolean>> = {
  SEAMCALL: false,
  TDCALL: false,
  TDVMCALL: false,
  VMENTRY: false,
  VMEXIT: false,
  VE: false,
  EXCEPTION: false,
  MC: false,
  SEPT: false,
  KEYID: false,
  MEASURE: false,
  IOCTL: false,
  KVM_EXIT: false,
  DEVICE: false,
  STAGE: false,
};
/** Leaf numbers that are counted. */
const LEAVES = 128;

interface Subscription {
  readonly types: ReadonlySet<TraceType>;
  readonly listener: (event: TraceEvent) => void;
}

/** A stream of events. A layer takes one in its options; the default has nobody listening. */
export class Trace {
  #subscriptions: Subscription[] = [];
  /** Whether somebody listens to events of a type. Test this before building one. */
  readonly on: Record<TraceType, boolean> = { ...NOBODY };
  /** How often each function of the TDX module was called, by leaf number; counted whether somebody listens or not. */
  readonly seamcalls = new Uint32Array(LEAVES);
  readonly tdcalls = new Uint32Array(LEAVES);

  emit(event: TraceEvent): void {
    for (const { types, listener } of this.#subscriptions) if (types.has(event.type)) listener(event);
  }

  /**
   * @param types events that the listener gets; default all. Others are not even built.
   * @returns a function that ends the subscription.
   */
  subscribe<T extends TraceType = TraceType>(
    listener: (event: TraceEventOf<T>) => void,
    types: readonly T[] = Object.keys(NOBODY) as T[],
  ): () => void {
    const subscription = { types: new Set<TraceType>(types), listener: listener as Subscription["listener"] };
    this.#subscriptions.push(subscription);
    this.#update();
    return () => {
      this.#subscriptions = this.#subscriptions.filter((one) => one !== subscription);
      this.#update();
    };
  }

  #update(): void {
    for (const type of Object.keys(NOBODY) as TraceType[])
      this.on[type] = this.#subscriptions.some(({ types }) => types.has(type));
  }
}
