/** Events reach those who asked for their type, and nobody builds one that none has asked for. */
import { describe, expect, it } from "vitest";
import { Trace, type TraceEvent } from "../src/index.js";

const stage: TraceEvent = { type: "STAGE", layer: "abi", what: "test" };
const key: TraceEvent = { type: "KEYID", op: "cleared", keyId: 1 };

describe("a trace", () => {
  it("has nobody listening at first, and nobody again at the end", () => {
    const trace = new Trace();
    expect(Object.values(trace.on)).not.toContain(true);
    const ends = [trace.subscribe(() => undefined), trace.subscribe(() => undefined, ["STAGE"])];
    expect(Object.values(trace.on)).not.toContain(false);
    ends[0]();
    expect(Object.entries(trace.on).filter(([, on]) => on)).toEqual([["STAGE", true]]);
    ends[1]();
    expect(Object.values(trace.on)).not.toContain(true);
  });

  it("gives each listener the types that it wants, in order", () => {
    const trace = new Trace();
    const all: TraceEvent[] = [];
    const stages: string[] = [];
    trace.subscribe((event) => all.push(event));
    trace.subscribe(({ what }) => stages.push(what), ["STAGE"]);
    for (const event of [key, stage, key]) trace.emit(event);
    expect(all).toEqual([key, stage, key]);
    expect(stages).toEqual(["test"]);
  });
});
