/** The KVM user API against values that the C compiler gives for Linux 7.1's uapi headers. */
import { describe, expect, it } from "vitest";
import {
  errnoName,
  KVM_CPUID_ENTRY2,
  KVM_IRQ_ROUTING_ENTRY,
  KVM_RUN_EXITS,
  KVM_RUN_HEAD,
  KVM_SREGS,
  KVM_TDX_CMD,
  KVM_TDX_INIT_VM_HEAD,
  KVM_SEGMENT,
  KvmIoctl,
  type KvmIoctlName,
} from "../src/index.js";

const numbers: [KvmIoctlName, number][] = [
  ["KVM_CREATE_VM", 0xae01],
  ["KVM_GET_SUPPORTED_CPUID", 0xc008ae05],
  ["KVM_SET_USER_MEMORY_REGION", 0x4020ae46],
  ["KVM_SET_USER_MEMORY_REGION2", 0x40a0ae49],
  ["KVM_SET_IDENTITY_MAP_ADDR", 0x4008ae48],
  ["KVM_RUN", 0xae80],
  ["KVM_GET_REGS", 0x8090ae81],
  ["KVM_SET_REGS", 0x4090ae82],
  ["KVM_GET_SREGS", 0x8138ae83],
  ["KVM_SET_SREGS", 0x4138ae84],
  ["KVM_GET_MSRS", 0xc008ae88],
  ["KVM_SET_MSRS", 0x4008ae89],
  ["KVM_GET_LAPIC", 0x8400ae8e],
  ["KVM_SET_LAPIC", 0x4400ae8f],
  ["KVM_SET_CPUID2", 0x4008ae90],
  ["KVM_GET_CPUID2", 0xc008ae91],
  ["KVM_GET_MP_STATE", 0x8004ae98],
  ["KVM_SET_MP_STATE", 0x4004ae99],
  ["KVM_SET_TSC_KHZ", 0xaea2],
  ["KVM_GET_TSC_KHZ", 0xaea3],
  ["KVM_ENABLE_CAP", 0x4068aea3],
  ["KVM_SIGNAL_MSI", 0x4020aea5],
  ["KVM_SET_GSI_ROUTING", 0x4008ae6a],
  ["KVM_MEMORY_ENCRYPT_OP", 0xc008aeba],
  ["KVM_SET_MEMORY_ATTRIBUTES", 0x4020aed2],
  ["KVM_CREATE_GUEST_MEMFD", 0xc040aed4],
  ["KVM_PRE_FAULT_MEMORY", 0xc040aed5],
  ["KVM_GET_MSR_INDEX_LIST", 0xc004ae02],
];

describe("KVM uapi", () => {
  it.each(numbers)("%s", (name, value) => expect(KvmIoctl[name]).toBe(value));

  it("lays out kvm_run as the header does", () => {
    const at = (field: { offset: number }) => field.offset;
    const exits = KVM_RUN_EXITS;
    expect(at(KVM_RUN_HEAD.fields.immediate_exit)).toBe(0x01);
    expect(at(KVM_RUN_HEAD.fields.exit_reason)).toBe(0x08);
    expect(at(KVM_RUN_HEAD.fields.cr8)).toBe(0x10);
    expect(at(KVM_RUN_HEAD.fields.apic_base)).toBe(0x18);
    expect(at(exits.hw.fields.hardware_exit_reason)).toBe(0x20);
    expect(at(exits.fail_entry.fields.cpu)).toBe(0x28);
    expect(at(exits.io.fields.data_offset)).toBe(0x28);
    expect(at(exits.mmio.fields.data)).toBe(0x28);
    expect(at(exits.mmio.fields.len)).toBe(0x30);
    expect(at(exits.mmio.fields.is_write)).toBe(0x34);
    expect(at(exits.hypercall.fields.args)).toBe(0x28);
    expect(at(exits.hypercall.fields.ret)).toBe(0x58);
    expect(at(exits.hypercall.fields.flags)).toBe(0x60);
    expect(at(exits.internal.fields.data)).toBe(0x28);
    expect(at(exits.system_event.fields.data)).toBe(0x28);
    expect(at(exits.memory_fault.fields.gpa)).toBe(0x28);
    expect(at(exits.memory_fault.fields.size)).toBe(0x30);
    expect(at(exits.tdx.fields.nr)).toBe(0x28);
    expect(at(exits.tdx.fields.ret)).toBe(0x30);
    expect(at(exits.tdx.fields.data)).toBe(0x38);
  });

  it("lays out the other structures as the headers do", () => {
    expect(KVM_CPUID_ENTRY2.size).toBe(0x28);
    expect(KVM_IRQ_ROUTING_ENTRY.size).toBe(0x30);
    expect(KVM_IRQ_ROUTING_ENTRY.fields.address_lo.offset).toBe(0x10);
    expect(KVM_TDX_CMD.size).toBe(24);
    expect(KVM_TDX_INIT_VM_HEAD.fields.mrownerconfig.offset).toBe(0x70);
    expect(KVM_SREGS.fields.gdt_base.offset).toBe(0xc0);
    expect(KVM_SREGS.fields.idt_base.offset).toBe(0xd0);
    expect(KVM_SREGS.fields.cr0.offset).toBe(0xe0);
    expect(KVM_SREGS.fields.efer.offset).toBe(0x108);
    expect(KVM_SREGS.fields.apic_base.offset).toBe(0x110);
    expect(KVM_SEGMENT.fields.unusable.offset).toBe(0x16);
  });

  it("names errno values", () => {
    expect(errnoName(-22)).toBe("EINVAL");
    expect(errnoName(5)).toBe("EIO");
    expect(errnoName(-999)).toBe("-999");
  });
});
