/**
 * What QEMU's process asks of the kernel, and nothing else: the machine is written against this interface, which
 * `@swtdx/kvm` provides (`./linux.ts`) and tests script.
 */
import type { UserMemory } from "../memory/guest-memory.js";

/** An anonymous private mapping of the process. */
export interface Mapping extends UserMemory {
  /** User address in bytes. */
  readonly address: number;
  readonly length: number;
  /** madvise(MADV_DONTNEED): the pages' contents are gone, they read as zeros. */
  discard(offset: number, length: number): void;
}

export interface Syscalls {
  /** Opens /dev/kvm. @returns a file descriptor, or -errno. */
  openKvm(): number;
  /** @returns 0 or more, or -errno. `arg` is the decoded structure of the request (abi: kvm.ts). */
  ioctl(fd: number, request: number, arg?: unknown): number;
  /** Anonymous memory. */
  mmap(length: number): Mapping;
  munmap(mapping: Mapping): void;
  /** The kvm_run area of a vCPU's file descriptor. */
  mmapVcpu(fd: number): Uint8Array;
  /** fallocate(PUNCH_HOLE | KEEP_SIZE) on a guest_memfd. @returns 0 or -errno. */
  punchHole(fd: number, offset: number, length: number): number;
  close(fd: number): void;
  /** CLOCK_MONOTONIC in nanoseconds: follows the host's TSC. */
  now(): number;
  /** The process sleeps until `deadline` (CLOCK_MONOTONIC, ns), or for a host-chosen while: no vCPU can run. */
  sleep(deadline: number | null): void;
}
