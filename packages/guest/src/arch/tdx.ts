/**
 * Early TDX setup: tdx_early_init() and tdx_setup() of arch/x86/coco/tdx/tdx.c (Linux).
 */
import { CONFIG_FLAGS, guest, type Guest, TD_ATTRIBUTES, TD_CTLS, tdcall } from "@swtdx/abi";
import { tdxPanic, vmRead, vmWrite } from "./tdcall.js";

const CPUID_TDX = 0x21;
const SIGNATURE = { ebx: 0x65746e49, edx: 0x5844546c, ecx: 0x20202020 } as const;

export interface TdxPlatform {
  /** 48 or 52. */
  gpaw: number;
  /** The shared bit of a GPA, as a mask. */
  sharedMask: bigint;
  attributes: bigint;
  numVcpus: number;
  vcpuIndex: number;
}

/** Detects TDX and takes control of what the TD may notify. @returns null on another platform */
export function* tdxEarlyInit(): Guest<TdxPlatform | null> {
  const id = yield* guest.cpuid(CPUID_TDX);
  if (id.ebx !== SIGNATURE.ebx || id.edx !== SIGNATURE.edx || id.ecx !== SIGNATURE.ecx) return null;
  const info = yield* tdcall("TDG.VP.INFO");
  if (info.rax !== 0n) return yield* tdxPanic("TDG.VP.INFO failed");
  const gpaw = Number(info.rcx & 0x3fn);
  const attributes = info.rdx;

  // #VE at a time of the host's choosing must not happen: not for stepping, not for private memory.
  yield* vmWrite("NOTIFY_ENABLES", 0n, ~0n & 0xffff_ffff_ffff_ffffn);
  const flags = (yield* vmRead("CONFIG_FLAGS")) ?? 0n;
  if ((flags & CONFIG_FLAGS.FLEXIBLE_PENDING_VE) !== 0n) {
    yield* vmWrite("TD_CTLS", TD_CTLS.PENDING_VE_DISABLE, TD_CTLS.PENDING_VE_DISABLE);
  } else if (
    (attributes & TD_ATTRIBUTES.SEPT_VE_DISABLE) === 0n &&
    (attributes & TD_ATTRIBUTES.DEBUG) === 0n
  ) {
    return yield* tdxPanic("TD misconfiguration: SEPT_VE_DISABLE attribute must be set.");
  }
  // Fewer #VEs where the module offers it; topology enumeration otherwise.
  if (
    !(yield* vmWrite("TD_CTLS", TD_CTLS.REDUCE_VE, TD_CTLS.REDUCE_VE)) &&
    (yield* vmRead("TOPOLOGY_ENUM_CONFIGURED"))
  )
    yield* vmWrite("TD_CTLS", TD_CTLS.ENUM_TOPOLOGY, TD_CTLS.ENUM_TOPOLOGY);
  return {
    gpaw,
    sharedMask: 1n << BigInt(gpaw - 1),
    attributes,
    numVcpus: Number(info.r8 & 0xffff_ffffn),
    vcpuIndex: Number(info.r9 & 0xffff_ffffn),
  };
}
