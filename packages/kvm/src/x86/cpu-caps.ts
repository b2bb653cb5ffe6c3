/**
 * The CPUID feature bits that KVM can give a guest, out of those that the processor has. Nested VMX, SGX, the vPMU,
 * processor trace and LBRs are off. Source: Linux arch/x86/kvm/cpuid.c (kvm_set_cpu_caps, do_cpuid_func),
 * vmx/vmx.c (vmx_set_cpu_caps). Names: Linux's cpufeatures.h.
 */

type Register = "eax" | "ebx" | "ecx" | "edx";

/** Names by bit number; a dot for a bit that KVM does not give. */
const bits = (names: string): number =>
  names
    .trim()
    .split(/\s+/)
    .reduce((mask, name, bit) => (name === "." ? mask : mask | (1 << bit)), 0) >>> 0;

/** Masks by leaf and subleaf. Registers that are not named keep what the processor says. */
const MASKS: readonly (readonly [leaf: number, index: number, masks: Partial<Record<Register, number>>])[] = [
  [
    1,
    0,
    {
      edx: bits(`fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov
                 pat pse36 . clflush . . . mmx fxsr xmm xmm2 selfsnoop`),
      ecx: bits(`xmm3 pclmulqdq . . . . . . . ssse3 . . fma cx16 . .
                 . pcid . xmm4_1 xmm4_2 . movbe popcnt . aes xsave . avx f16c rdrand`),
    },
  ],
  [
    7,
    0,
    {
      ebx: bits(`fsgsbase . . bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm . zero_fcs_fds . .
                 avx512f avx512dq rdseed adx smap avx512ifma . clflushopt clwb . avx512pf avx512er avx512cd sha_ni
                 avx512bw avx512vl`),
      ecx: bits(`. avx512vbmi umip pku . waitpkg avx512_vbmi2 . gfni vaes vpclmulqdq avx512_vnni avx512_bitalg .
                 avx512_vpopcntdq . la57 . . . . . rdpid . bus_lock_detect cldemote . movdiri movdir64b`),
      edx: bits(`. . avx512_4vnniw avx512_4fmaps fsrm . . . avx512_vp2intersect . md_clear . . . serialize .
                 tsxldtrk . . . . . amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d . . ssbd`),
    },
  ],
  [
    7,
    1,
    {
      eax: bits(`sha512 sm3 sm4 . avx_vnni avx512_bf16 . cmpccxadd . . fzrm fsrs fsrc . . .
                 . . . . . amx_fp16 . avx_ifma . . lam`),
      ebx: 0,
      ecx: 0,
      edx: 0,
    },
  ],
  [7, 2, { eax: 0, ebx: 0, ecx: 0, edx: bits("intel_psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no") }],
  [0xd, 1, { eax: bits("xsaveopt xsavec xgetbv1 xsaves xfd") }],
  [
    0x8000_0001,
    0,
    {
      ecx: bits("lahf_lm . . . . abm . . 3dnowprefetch"),
      edx: bits(". . . . . . . . . . . syscall . . . . . . . . nx . . . . . gbpages rdtscp . lm"),
    },
  ],
  [0x8000_0007, 0, { eax: 0, ebx: 0, ecx: 0, edx: bits(". . . . . . . . constant_tsc") }],
  [0x8000_0008, 0, { ebx: bits(". . . . . . . . . wbnoinvd"), edx: 0 }],
];

/** What KVM gives whether the processor has it or not (emulated), as far as guests have needed it. */
const EMULATED: readonly (readonly [leaf: number, register: Register, mask: number])[] = [
  // X2APIC, TSC_DEADLINE_TIMER, HYPERVISOR.
  [1, "ecx", (1 << 21) | (1 << 24) | (1 << 31)],
  // TSC_ADJUST.
  [7, "ebx", 1 << 1],
  // ARCH_CAPABILITIES.
  [7, "edx", 1 << 29],
];

/** Leaves of which KVM makes its own: monitor, ARAT; and those it has nothing to say of. */
const OWN: ReadonlyMap<number, Partial<Record<Register, number>>> = new Map([
  [5, {}],
  [6, { eax: 4 }],
  [9, {}],
  [0xa, {}],
  [0xf, {}],
  [0x10, {}],
  [0x12, {}],
  [0x14, {}],
  [0x1b, {}],
  [0x1c, {}],
  [0x20, {}],
]);

type Values = Record<Register, number>;

/** What of a leaf KVM supports. */
export function maskCpuid<T extends Values>(leaf: number, index: number, values: T): T {
  const own = OWN.get(leaf);
  if (own) return { ...values, eax: 0, ebx: 0, ecx: 0, edx: 0, ...own };
  const out = { ...values };
  const mask = MASKS.find(([one, sub]) => one === leaf && sub === index)?.[2] ?? {};
  for (const register of ["eax", "ebx", "ecx", "edx"] as const) {
    const bitsOf = mask[register];
    if (bitsOf !== undefined) out[register] = (out[register] & bitsOf) >>> 0;
  }
  if (index === 0)
    for (const [one, register, more] of EMULATED)
      if (one === leaf) out[register] = (out[register] | more) >>> 0;
  return out;
}
