/** What a processor needs of the memory controller below it (@swtdx/mktme fits) and of the arena that holds its frames. */
import type { Hpa, KeyId, Pfn } from "@swtdx/abi";

/** Linear memory shared by register files, plaintext frames and the x86 engine. */
export interface CpuArena {
  /** One buffer for the life of the platform. */
  readonly memory: WebAssembly.Memory;
  /** Sets `bytes` aside before any frame; returns the byte offset. */
  reserve(bytes: number, align: number): number;
}

/** Outcome of an access to DRAM: 0, or the fault's number. */
export type DramStatus = number;

/** The memory controller, typed by address and KeyID apart. No method allocates. */
export interface CpuMemory {
  /** Bytes of DRAM from address 0. Accesses past it read all ones and drop writes. */
  readonly dramBytes: number;
  read(hpa: Hpa, keyId: KeyId, target: Uint8Array): DramStatus;
  write(hpa: Hpa, keyId: KeyId, source: Uint8Array): DramStatus;
  /** Writes zeros over whole pages; they need not be resident afterwards. */
  zeroPages(first: Pfn, count: number, keyId: KeyId): void;
  /**
   * Byte offset in the arena of the frame's 4096 plaintext bytes, usable until `onFrameChange` names the frame;
   * -1 when an access has to go through `read` / `write`.
   */
  frameForRead(frame: Pfn, keyId: KeyId): number;
  frameForWrite(frame: Pfn, keyId: KeyId): number;
  /** Called with a frame whose offset stops being valid. */
  onFrameChange(listener: (frame: Pfn) => void): void;
  /** IA32_TME_ACTIVATE was locked: how many shared and private KeyIDs there are. */
  activate(partition: { mktmeKeyIds: number; tdxKeyIds: number }): void;
  programKey(
    keyId: KeyId,
    material: { mode: "encrypt"; dataKey: Uint8Array; tweakKey: Uint8Array } | { mode: "none" },
  ): void;
  programRandomKey(keyId: KeyId): void;
  clearKey(keyId: KeyId): void;
}
