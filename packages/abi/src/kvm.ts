/**
 * The KVM user API: ioctl numbers, capabilities, structures, exit reasons, and the errno values they return.
 *
 * Numbers and layouts: Linux include/uapi/linux/kvm.h, arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/kvm_para.h,
 * asm-generic/errno-base.h and errno.h.
 */
import { addr, array, bytes, struct, u16, u32, u64, u8, type StructOf } from "./struct.js";

/** errno values by name; an ioctl that fails returns the negated value. */
export const Errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  EOVERFLOW: 75,
  EOPNOTSUPP: 95,
} as const;
/** The name of an errno value (its sign does not matter), or the number as text. */
export function errnoName(value: number): string {
  const positive = Math.abs(value);
  for (const [name, number] of Object.entries(Errno)) if (number === positive) return name;
  return String(value);
}

// ---- structures of fixed size ------------------------------------------------------------------

export const KVM_USERSPACE_MEMORY_REGION = struct("kvm_userspace_memory_region", 32, {
  slot: u32(0),
  flags: u32(4),
  guest_phys_addr: addr(8),
  memory_size: addr(16),
  userspace_addr: addr(24),
});
export const KVM_USERSPACE_MEMORY_REGION2 = struct("kvm_userspace_memory_region2", 160, {
  slot: u32(0),
  flags: u32(4),
  guest_phys_addr: addr(8),
  memory_size: addr(16),
  userspace_addr: addr(24),
  guest_memfd_offset: addr(32),
  guest_memfd: u32(40),
});
/** Bits of the flags of a memory region. */
export const KVM_MEM_LOG_DIRTY_PAGES = 1;
export const KVM_MEM_READONLY = 2;
export const KVM_MEM_GUEST_MEMFD = 4;

export const KVM_MEMORY_ATTRIBUTES = struct("kvm_memory_attributes", 32, {
  address: addr(0),
  size: addr(8),
  attributes: u64(16),
  flags: u64(24),
});
export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 8n;

export const KVM_CREATE_GUEST_MEMFD_ARGS = struct("kvm_create_guest_memfd", 64, {
  size: addr(0),
  flags: u64(8),
});
export const GUEST_MEMFD_FLAG_MMAP = 1n;
export const GUEST_MEMFD_FLAG_INIT_SHARED = 2n;

export const KVM_PRE_FAULT_MEMORY_ARGS = struct("kvm_pre_fault_memory", 64, {
  gpa: addr(0),
  size: addr(8),
  flags: u64(16),
});

export const KVM_ENABLE_CAP_ARGS = struct("kvm_enable_cap", 104, {
  cap: u32(0),
  flags: u32(4),
  args: array(8, 4, u64),
});

export const KVM_MSI = struct("kvm_msi", 32, {
  address_lo: u32(0),
  address_hi: u32(4),
  data: u32(8),
  flags: u32(12),
  devid: u32(16),
});

/** One entry of kvm_irq_routing, with the MSI member of its union. */
export const KVM_IRQ_ROUTING_ENTRY = struct("kvm_irq_routing_entry", 48, {
  gsi: u32(0),
  type: u32(4),
  flags: u32(8),
  address_lo: u32(16),
  address_hi: u32(20),
  data: u32(24),
  devid: u32(28),
});
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;

export const KVM_LAPIC_STATE = struct("kvm_lapic_state", 1024, { regs: bytes(0, 1024) });
export const KVM_MP_STATE_ARGS = struct("kvm_mp_state", 4, { mp_state: u32(0) });
export const KVM_MP_STATE_RUNNABLE = 0;
export const KVM_MP_STATE_UNINITIALIZED = 1;
export const KVM_MP_STATE_INIT_RECEIVED = 2;
export const KVM_MP_STATE_HALTED = 3;

export const KVM_CPUID_ENTRY2 = struct("kvm_cpuid_entry2", 40, {
  function: u32(0),
  index: u32(4),
  flags: u32(8),
  eax: u32(12),
  ebx: u32(16),
  ecx: u32(20),
  edx: u32(24),
});
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1;
/** Most entries of a kvm_cpuid2 (KVM_MAX_CPUID_ENTRIES of arch/x86/include/asm/kvm_host.h). */
export const KVM_MAX_CPUID_ENTRIES = 256;

export const KVM_REGS = struct("kvm_regs", 144, {
  rax: u64(0),
  rbx: u64(8),
  rcx: u64(16),
  rdx: u64(24),
  rsi: u64(32),
  rdi: u64(40),
  rsp: u64(48),
  rbp: u64(56),
  r8: u64(64),
  r9: u64(72),
  r10: u64(80),
  r11: u64(88),
  r12: u64(96),
  r13: u64(104),
  r14: u64(112),
  r15: u64(120),
  rip: u64(128),
  rflags: u64(136),
});

export const KVM_SEGMENT = struct("kvm_segment", 24, {
  base: u64(0),
  limit: u32(8),
  selector: u16(12),
  type: u8(14),
  present: u8(15),
  dpl: u8(16),
  db: u8(17),
  s: u8(18),
  l: u8(19),
  g: u8(20),
  avl: u8(21),
  unusable: u8(22),
});
const segment = (offset: number) => ({
  offset,
  size: KVM_SEGMENT.size,
  read: (view: DataView, base: number) => KVM_SEGMENT.read(view, base + offset),
  write: (view: DataView, base: number, value: KvmSegment) => KVM_SEGMENT.write(view, value, base + offset),
});
export const KVM_SREGS = struct("kvm_sregs", 312, {
  cs: segment(0),
  ds: segment(24),
  es: segment(48),
  fs: segment(72),
  gs: segment(96),
  ss: segment(120),
  tr: segment(144),
  ldt: segment(168),
  gdt_base: u64(192),
  gdt_limit: u16(200),
  idt_base: u64(208),
  idt_limit: u16(216),
  cr0: u64(224),
  cr2: u64(232),
  cr3: u64(240),
  cr4: u64(248),
  cr8: u64(256),
  efer: u64(264),
  apic_base: u64(272),
});

// ---- TDX: KVM_MEMORY_ENCRYPT_OP ----------------------------------------------------------------

export const KVM_TDX_CMD = struct("kvm_tdx_cmd", 24, {
  id: u32(0),
  flags: u32(4),
  data: u64(8),
  hw_error: u64(16),
});
/** enum kvm_tdx_cmd_id */
export const KvmTdxCmdId = {
  KVM_TDX_CAPABILITIES: 0,
  KVM_TDX_INIT_VM: 1,
  KVM_TDX_INIT_VCPU: 2,
  KVM_TDX_INIT_MEM_REGION: 3,
  KVM_TDX_FINALIZE_VM: 4,
  KVM_TDX_GET_CPUID: 5,
} as const;
export const KVM_TDX_MEASURE_MEMORY_REGION = 1;

/** Without the kvm_cpuid2 that follows at offset 2048. */
export const KVM_TDX_CAPABILITIES_HEAD = struct("kvm_tdx_capabilities", 2048, {
  supported_attrs: u64(0),
  supported_xfam: u64(8),
  kernel_tdvmcallinfo_1_r11: u64(16),
  user_tdvmcallinfo_1_r11: u64(24),
  kernel_tdvmcallinfo_1_r12: u64(32),
  user_tdvmcallinfo_1_r12: u64(40),
});
/** Without the kvm_cpuid2 that follows at offset 256. */
export const KVM_TDX_INIT_VM_HEAD = struct("kvm_tdx_init_vm", 256, {
  attributes: u64(0),
  xfam: u64(8),
  mrconfigid: bytes(16, 48),
  mrowner: bytes(64, 48),
  mrownerconfig: bytes(112, 48),
});
export const KVM_TDX_INIT_MEM_REGION_ARGS = struct("kvm_tdx_init_mem_region", 24, {
  source_addr: addr(0),
  gpa: addr(8),
  nr_pages: addr(16),
});

// ---- decoded forms, which ioctls of this project take ------------------------------------------

export type KvmUserspaceMemoryRegion2 = StructOf<typeof KVM_USERSPACE_MEMORY_REGION2>;
export type KvmMemoryAttributes = StructOf<typeof KVM_MEMORY_ATTRIBUTES>;
export type KvmCreateGuestMemfd = StructOf<typeof KVM_CREATE_GUEST_MEMFD_ARGS>;
export type KvmPreFaultMemory = StructOf<typeof KVM_PRE_FAULT_MEMORY_ARGS>;
export type KvmMsi = StructOf<typeof KVM_MSI>;
export type KvmIrqRoutingEntry = StructOf<typeof KVM_IRQ_ROUTING_ENTRY>;
export type KvmCpuidEntry2 = StructOf<typeof KVM_CPUID_ENTRY2>;
export type KvmRegs = StructOf<typeof KVM_REGS>;
export type KvmSegment = StructOf<typeof KVM_SEGMENT>;
export type KvmSregs = StructOf<typeof KVM_SREGS>;
export type KvmTdxInitMemRegion = StructOf<typeof KVM_TDX_INIT_MEM_REGION_ARGS>;
/** kvm_cpuid2: `nent` says how many entries the caller has room for, and afterwards how many there are. */
export interface KvmCpuid2 {
  nent: number;
  padding?: number;
  entries: KvmCpuidEntry2[];
}
export interface KvmEnableCap {
  cap: number;
  flags?: number;
  args?: readonly bigint[];
}
export interface KvmTdxCapabilities extends StructOf<typeof KVM_TDX_CAPABILITIES_HEAD> {
  cpuid: KvmCpuid2;
}
export interface KvmTdxInitVm extends StructOf<typeof KVM_TDX_INIT_VM_HEAD> {
  cpuid: KvmCpuid2;
}
/** kvm_tdx_cmd with what its `data` points to (or, for INIT_VCPU, the number itself). */
export type KvmTdxCmd = { flags?: number; hw_error?: bigint } & (
  | { id: 0; data: KvmTdxCapabilities }
  | { id: 1; data: KvmTdxInitVm }
  | { id: 2; data: bigint }
  | { id: 3; data: KvmTdxInitMemRegion }
  | { id: 4; data?: undefined }
  | { id: 5; data: KvmCpuid2 }
);
export interface KvmMsrEntry {
  index: number;
  data: bigint;
}

// ---- ioctl numbers ----------------------------------------------------------------------------

/** _IOC of asm-generic/ioctl.h: direction (0 none, 1 write, 2 read), size in bytes, number; the type is KVMIO. */
const KVMIO = 0xae;
const ioc = (direction: number, nr: number, size: number) =>
  ((direction << 30) | (size << 16) | (KVMIO << 8) | nr) >>> 0;
const IO = (nr: number) => ioc(0, nr, 0);
const IOW = (nr: number, size: number) => ioc(1, nr, size);
const IOR = (nr: number, size: number) => ioc(2, nr, size);
const IOWR = (nr: number, size: number) => ioc(3, nr, size);

/** ioctls of /dev/kvm, VM and vCPU file descriptors. */
export const KvmIoctl = {
  KVM_GET_API_VERSION: IO(0x00),
  KVM_CREATE_VM: IO(0x01),
  KVM_GET_MSR_INDEX_LIST: IOWR(0x02, 4),
  KVM_CHECK_EXTENSION: IO(0x03),
  KVM_GET_VCPU_MMAP_SIZE: IO(0x04),
  KVM_GET_SUPPORTED_CPUID: IOWR(0x05, 8),
  KVM_CREATE_VCPU: IO(0x41),
  KVM_SET_USER_MEMORY_REGION: IOW(0x46, KVM_USERSPACE_MEMORY_REGION.size),
  KVM_SET_TSS_ADDR: IO(0x47),
  KVM_SET_IDENTITY_MAP_ADDR: IOW(0x48, 8),
  KVM_SET_USER_MEMORY_REGION2: IOW(0x49, KVM_USERSPACE_MEMORY_REGION2.size),
  KVM_CREATE_IRQCHIP: IO(0x60),
  KVM_SET_GSI_ROUTING: IOW(0x6a, 8),
  KVM_SET_BOOT_CPU_ID: IO(0x78),
  KVM_RUN: IO(0x80),
  KVM_GET_REGS: IOR(0x81, KVM_REGS.size),
  KVM_SET_REGS: IOW(0x82, KVM_REGS.size),
  KVM_GET_SREGS: IOR(0x83, KVM_SREGS.size),
  KVM_SET_SREGS: IOW(0x84, KVM_SREGS.size),
  KVM_GET_MSRS: IOWR(0x88, 8),
  KVM_SET_MSRS: IOW(0x89, 8),
  KVM_GET_LAPIC: IOR(0x8e, KVM_LAPIC_STATE.size),
  KVM_SET_LAPIC: IOW(0x8f, KVM_LAPIC_STATE.size),
  KVM_SET_CPUID2: IOW(0x90, 8),
  KVM_GET_CPUID2: IOWR(0x91, 8),
  KVM_GET_MP_STATE: IOR(0x98, KVM_MP_STATE_ARGS.size),
  KVM_SET_MP_STATE: IOW(0x99, KVM_MP_STATE_ARGS.size),
  KVM_NMI: IO(0x9a),
  KVM_SET_TSC_KHZ: IO(0xa2),
  KVM_ENABLE_CAP: IOW(0xa3, KVM_ENABLE_CAP_ARGS.size),
  KVM_GET_TSC_KHZ: IO(0xa3),
  KVM_SIGNAL_MSI: IOW(0xa5, KVM_MSI.size),
  KVM_MEMORY_ENCRYPT_OP: IOWR(0xba, 8),
  KVM_SET_MEMORY_ATTRIBUTES: IOW(0xd2, KVM_MEMORY_ATTRIBUTES.size),
  KVM_CREATE_GUEST_MEMFD: IOWR(0xd4, KVM_CREATE_GUEST_MEMFD_ARGS.size),
  KVM_PRE_FAULT_MEMORY: IOWR(0xd5, KVM_PRE_FAULT_MEMORY_ARGS.size),
} as const;
export type KvmIoctlName = keyof typeof KvmIoctl;

export const KVM_API_VERSION = 12;
/** Types of KVM_CREATE_VM on x86. */
export const KVM_X86_DEFAULT_VM = 0;
export const KVM_X86_SW_PROTECTED_VM = 1;
export const KVM_X86_TDX_VM = 5;

/** Capabilities that this project answers to KVM_CHECK_EXTENSION or takes by KVM_ENABLE_CAP. */
export const KvmCap = {
  KVM_CAP_IRQCHIP: 0,
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_EXT_CPUID: 7,
  KVM_CAP_NR_VCPUS: 9,
  KVM_CAP_NR_MEMSLOTS: 10,
  KVM_CAP_MP_STATE: 14,
  KVM_CAP_TSC_CONTROL: 60,
  KVM_CAP_GET_TSC_KHZ: 61,
  KVM_CAP_MAX_VCPUS: 66,
  KVM_CAP_TSC_DEADLINE_TIMER: 72,
  KVM_CAP_SIGNAL_MSI: 77,
  KVM_CAP_READONLY_MEM: 81,
  KVM_CAP_CHECK_EXTENSION_VM: 105,
  KVM_CAP_SPLIT_IRQCHIP: 121,
  KVM_CAP_MAX_VCPU_ID: 128,
  KVM_CAP_X2APIC_API: 129,
  KVM_CAP_IMMEDIATE_EXIT: 136,
  KVM_CAP_EXIT_HYPERCALL: 201,
  KVM_CAP_SYSTEM_EVENT_DATA: 215,
  KVM_CAP_USER_MEMORY2: 231,
  KVM_CAP_MEMORY_FAULT_INFO: 232,
  KVM_CAP_MEMORY_ATTRIBUTES: 233,
  KVM_CAP_GUEST_MEMFD: 234,
  KVM_CAP_VM_TYPES: 235,
  KVM_CAP_PRE_FAULT_MEMORY: 236,
  KVM_CAP_X86_APIC_BUS_CYCLES_NS: 237,
  KVM_CAP_GUEST_MEMFD_FLAGS: 244,
} as const;

// ---- kvm_run ----------------------------------------------------------------------------------

/** Exit reasons (kvm_run.exit_reason). */
export const KvmExit = {
  KVM_EXIT_UNKNOWN: 0,
  KVM_EXIT_EXCEPTION: 1,
  KVM_EXIT_IO: 2,
  KVM_EXIT_HYPERCALL: 3,
  KVM_EXIT_DEBUG: 4,
  KVM_EXIT_HLT: 5,
  KVM_EXIT_MMIO: 6,
  KVM_EXIT_IRQ_WINDOW_OPEN: 7,
  KVM_EXIT_SHUTDOWN: 8,
  KVM_EXIT_FAIL_ENTRY: 9,
  KVM_EXIT_INTR: 10,
  KVM_EXIT_INTERNAL_ERROR: 17,
  KVM_EXIT_SYSTEM_EVENT: 24,
  KVM_EXIT_IOAPIC_EOI: 26,
  KVM_EXIT_X86_RDMSR: 29,
  KVM_EXIT_X86_WRMSR: 30,
  KVM_EXIT_MEMORY_FAULT: 39,
  KVM_EXIT_TDX: 40,
} as const;
export type KvmExitName = keyof typeof KvmExit;
export const KVM_EXIT_NAMES: ReadonlyMap<number, KvmExitName> = new Map(
  Object.entries(KvmExit).map(([name, value]) => [value, name as KvmExitName]),
);

export const KVM_EXIT_IO_IN = 0;
export const KVM_EXIT_IO_OUT = 1;
export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 8n;
export const KVM_EXIT_HYPERCALL_LONG_MODE = 1n;
export const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
export const KVM_SYSTEM_EVENT_RESET = 2;
export const KVM_SYSTEM_EVENT_CRASH = 3;
export const KVM_SYSTEM_EVENT_TDX_FATAL = 7;
export const KVM_INTERNAL_ERROR_EMULATION = 1;
export const KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;
/** Hypercall numbers and MAP_GPA_RANGE attributes (kvm_para.h). */
export const KVM_HC_KICK_CPU = 5;
export const KVM_HC_SEND_IPI = 10;
export const KVM_HC_SCHED_YIELD = 11;
export const KVM_HC_MAP_GPA_RANGE = 12;
export const KVM_MAP_GPA_RANGE_ENCRYPTED = 16n;
export const KVM_MAP_GPA_RANGE_DECRYPTED = 0n;
export const KVM_ENOSYS = 1000;

/** The fixed part of struct kvm_run; the union of the exits starts at KVM_RUN_UNION. */
export const KVM_RUN_HEAD = struct("kvm_run", 32, {
  request_interrupt_window: u8(0),
  immediate_exit: u8(1),
  exit_reason: u32(8),
  ready_for_interrupt_injection: u8(12),
  if_flag: u8(13),
  flags: u16(14),
  cr8: u64(16),
  apic_base: u64(24),
});
/** Offset in bytes of the union of the exits' data. */
export const KVM_RUN_UNION = 32;
/** Members of the union, at offsets from the start of kvm_run. */
export const KVM_RUN_EXITS = {
  hw: struct("kvm_run.hw", 40, { hardware_exit_reason: u64(32) }),
  fail_entry: struct("kvm_run.fail_entry", 44, { hardware_entry_failure_reason: u64(32), cpu: u32(40) }),
  ex: struct("kvm_run.ex", 40, { exception: u32(32), error_code: u32(36) }),
  io: struct("kvm_run.io", 48, {
    direction: u8(32),
    size: u8(33),
    port: u16(34),
    count: u32(36),
    data_offset: addr(40),
  }),
  mmio: struct("kvm_run.mmio", 53, {
    phys_addr: addr(32),
    data: bytes(40, 8),
    len: u32(48),
    is_write: u8(52),
  }),
  hypercall: struct("kvm_run.hypercall", 104, {
    nr: u64(32),
    args: array(40, 6, u64),
    ret: u64(88),
    flags: u64(96),
  }),
  internal: struct("kvm_run.internal", 168, { suberror: u32(32), ndata: u32(36), data: array(40, 16, u64) }),
  system_event: struct("kvm_run.system_event", 168, {
    type: u32(32),
    ndata: u32(36),
    data: array(40, 16, u64),
  }),
  memory_fault: struct("kvm_run.memory_fault", 56, { flags: u64(32), gpa: addr(40), size: addr(48) }),
  /** KVM_EXIT_TDX: `ret` and five words that depend on `nr`. */
  tdx: struct("kvm_run.tdx", 96, { flags: u64(32), nr: u64(40), ret: u64(48), data: array(56, 5, u64) }),
} as const;
/** Bytes of the area that a vCPU shares with user space: kvm_run, the port I/O page, the coalesced MMIO page. */
export const KVM_RUN_MMAP_SIZE = 3 * 4096;
/** Offset in bytes of the port I/O page (kvm_run.io.data_offset points into it). */
export const KVM_RUN_PIO_OFFSET = 4096;
