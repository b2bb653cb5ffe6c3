/** @swtdx/qemu: the machine: TDVF loading, CPUID model, ACPI, devices, QMP, gdbstub, quote requests. */

export {};
