/**
 * CPUID of the processor: a Sapphire Rapids server (family 6, model 0x8F) without AVX, AVX-512, AMX and GFNI, which
 * the engine does not execute. Fixed values by leaf and subleaf; what depends on the logical processor or on control
 * registers is filled in by `cpuid.ts`. Bits that Intel's TDX module insists on (include/auto_gen/
 * cpuid_configurations.c, verify_mask / verify_value) are checked in the tests. Meaning: Intel SDM vol. 2A CPUID.
 */

/** [leaf, subleaf (-1: any), eax, ebx, ecx, edx]. Leaves and subleaves that are missing return zeros. */
export const CPUID_TABLE: readonly (readonly [number, number, number, number, number, number])[] = [
  // Highest basic leaf; "GenuineIntel".
  [0x00, -1, 0x20, 0x756e6547, 0x6c65746e, 0x49656e69],
  // F/M/S 06_8F_8; CLFLUSH 8 quadwords; features. EBX[31:24] APIC ID and ECX[27] OSXSAVE are filled in.
  [0x01, -1, 0x000806f8, 0x00000800, 0x47feebff, 0xbfebfbff],
  // Cache descriptors: leaf 4 has them.
  [0x02, -1, 0x00feff01, 0x000000f0, 0, 0],
  // L1D 48 KiB 12-way, L1I 32 KiB 8-way, L2 2 MiB 16-way, L3 shared by the package. Up to 64 APIC IDs.
  [0x04, 0, 0xfc000121, 0x02c0003f, 0x0000003f, 0x00000000],
  [0x04, 1, 0xfc000122, 0x01c0003f, 0x0000003f, 0x00000000],
  [0x04, 2, 0xfc000143, 0x03c0003f, 0x000007ff, 0x00000000],
  [0x04, 3, 0xfc0fc163, 0x0380003f, 0x0000dfff, 0x00000004],
  [0x05, -1, 0x40, 0x40, 0x3, 0x00002020],
  // ARAT and digital thermal sensor; no HWP, no hardware feedback.
  [0x06, -1, 0x00000005, 0x2, 0x1, 0],
  // 7.0: subleaves up to 2; no HLE/RTM, no AVX, no AMX, no GFNI. ECX[4] OSPKE is filled in.
  [0x07, 0, 0x00000002, 0x239cb7cf, 0xdb4120ac, 0xfc1c4410],
  // AVX-VNNI no; FZRM, FSRS, FSRC.
  [0x07, 1, 0x00001c00, 0, 0, 0],
  // PSFD, IPRED_CTRL, RRSBA_CTRL, DDPD_U, BHI_CTRL.
  [0x07, 2, 0, 0, 0, 0x1f],
  // Performance monitoring version 5: 8 general counters of 48 bits, 4 fixed.
  [0x0a, -1, 0x07300805, 0, 0xf, 0x00008604],
  // Topology: one thread a core, all cores one package (shift 6). EBX[1] and EDX (x2APIC ID) are filled in.
  [0x0b, 0, 0, 1, 0x100, 0],
  [0x0b, 1, 6, 1, 0x201, 0],
  [0x0b, 2, 0, 0, 2, 0],
  // XCR0: x87, SSE, PKRU. EBX (size of enabled state) is filled in; ECX the size of all.
  [0x0d, 0, 0x00000203, 0, 0x00000a88, 0],
  // XSAVEOPT, XSAVEC, XGETBV1, XSAVES; XSS: PT, CET_U, CET_S, LBR.
  [0x0d, 1, 0x0000000f, 0, 0x00009900, 0],
  [0x0d, 8, 0x80, 0, 1, 0],
  [0x0d, 9, 0x8, 0xa80, 0, 0],
  [0x0d, 11, 0x10, 0, 1, 0],
  [0x0d, 12, 0x18, 0, 1, 0],
  [0x0d, 15, 0x328, 0, 1, 0],
  // SGX: SGX1 and SGX2, EVERIFYREPORT2.
  [0x12, 0, 0x00000c83, 0, 0, 0x381f],
  [0x12, 1, 0xb6, 0, 0x2e7, 0],
  // Processor trace.
  [0x14, 0, 1, 0x5f, 0x7, 0],
  [0x14, 1, 0x02490002, 0x003f3fff, 0, 0],
  // TSC / crystal ratio: filled in from the TSC's frequency (25 MHz crystal).
  [0x15, -1, 2, 160, 25_000_000, 0],
  [0x16, -1, 2000, 3500, 100, 0],
  // PCONFIG targets: MKTME.
  [0x1b, 0, 1, 1, 0, 0],
  // Architectural LBRs, depths 8, 16, 32.
  [0x1c, -1, 0x4000000b, 0x00000007, 0x00000007, 0],
  [0x1f, 0, 0, 1, 0x100, 0],
  [0x1f, 1, 6, 1, 0x201, 0],
  [0x1f, 2, 0, 0, 2, 0],
  [0x1f, 3, 0, 0, 3, 0],
  [0x1f, 4, 0, 0, 4, 0],
  [0x1f, 5, 0, 0, 5, 0],
  [0x20, -1, 0, 1, 0, 0],
  [0x80000000, -1, 0x80000008, 0, 0, 0],
  // LAHF, LZCNT, PREFETCHW; SYSCALL, NX, 1G pages, RDTSCP, long mode. EDX[11] is filled in.
  [0x80000001, -1, 0, 0, 0x121, 0x2c100800],
  [0x80000006, -1, 0, 0, 0x08007040, 0],
  [0x80000007, -1, 0, 0, 0, 0x100],
  // 52 physical-address bits, 57 linear; WBNOINVD.
  [0x80000008, -1, 0x00003934, 0x200, 0, 0],
];

/** CPUID 0x80000002..4. */
export const BRAND_STRING = "Intel(R) Xeon(R) Processor @ 2.00GHz";
