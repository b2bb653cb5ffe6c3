/**
 * Oracle: MRTD of a TD built from sections as KVM builds it, calculated directly from the description of
 * TDH.MEM.PAGE.ADD, TDH.MR.EXTEND and TDH.MR.FINALIZE in the TDX module's specification. Uses nothing of the
 * packages.
 */
import { createHash } from "node:crypto";

export interface MeasuredSection {
  readonly gpa: number;
  /** Bytes in memory, a multiple of 4096. */
  readonly memorySize: number;
  /** Contents; what is missing up to memorySize is zero. */
  readonly data: Uint8Array;
  /** MR.EXTEND the contents. */
  readonly extend: boolean;
}

const record = (name: string, gpa: number): Buffer => {
  const block = Buffer.alloc(128);
  block.write(name, "ascii");
  block.writeBigUInt64LE(BigInt(gpa), 16);
  return block;
};

/** MRTD in hex: per page the PAGE.ADD record, then for an extended section 16 times the EXTEND record and 256 bytes. */
export function staticMrtd(sections: readonly MeasuredSection[]): string {
  const hash = createHash("sha384");
  for (const { gpa, memorySize, data, extend } of sections)
    for (let page = 0; page < memorySize; page += 4096) {
      hash.update(record("MEM.PAGE.ADD", gpa + page));
      if (!extend) continue;
      for (let at = page; at < page + 4096; at += 256) {
        const chunk = Buffer.alloc(256);
        chunk.set(data.subarray(at, at + 256));
        hash.update(record("MR.EXTEND", gpa + at)).update(chunk);
      }
    }
  return hash.digest("hex");
}

/** MRTD of Debian's OVMF images by an independent calculator (2026-09): what staticMrtd must give for them. */
export const REFERENCE_MRTD = {
  "sid ovmf-inteltdx 2026.08 OVMF.inteltdx.ms.fd":
    "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08",
  "trixie ovmf 2025.02 OVMF.fd":
    "bdc6fb145880f06f30c8b346b8dce2a99d9351b56892df22f80fcf6574caa9f9c31df8e8576d53b4d0cd1c3f28910e11",
  "bookworm ovmf 2022.11 OVMF.fd":
    "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47",
} as const;
