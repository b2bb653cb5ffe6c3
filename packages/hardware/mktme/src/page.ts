/** What the controller keeps of a resident frame: who wrote its lines, and which of them are poisoned. */
import { type Hpa, PAGE_SIZE } from "@swtdx/abi";
import type { MemoryKey } from "./key.js";
import { LINE_SIZE } from "./xts.js";

export const LINES_PER_PAGE = PAGE_SIZE / LINE_SIZE;

/** A line as the DIMM holds it: what a probe or interposer copies and puts back. */
export interface DimmLine {
  data: Uint8Array;
  /** 28 bits; 0 in logical mode, which has none. */
  mac: number;
  tdOwner: boolean;
  poison: boolean;
}

/** Who wrote a line: a key (the frame holds plaintext) or somebody at the DIMM (the frame holds what is stored). */
export type LineOwner = MemoryKey | DimmLine;
export const isDimmLine = (owner: LineOwner): owner is DimmLine => "data" in owner;
/** Which line of its page holds an address. */
export const lineIndex = (address: Hpa): number => Math.floor((address % PAGE_SIZE) / LINE_SIZE);

/** Offset of a page that is all zeros and has no frame. */
export const NO_FRAME = -1;
/** A page of DRAM. */
export interface Page {
  /** Byte offset of its frame in the arena, or NO_FRAME. */
  offset: number;
  /** Owner of all lines; null when they differ or one is poisoned: see `lines`. */
  key: MemoryKey | null;
  lines: LineOwner[] | null;
  /** Poisoned lines. */
  poison: Set<number> | null;
}
