/** @swtdx/kvm: /dev/kvm as its users see it: VM and vCPU ioctls, VMX and TDX back ends, TDP MMU, guest_memfd. */

export {};
