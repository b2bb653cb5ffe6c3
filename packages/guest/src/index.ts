/** @swtdx/guest: the guest's kernel as a TypeScript guest program: #VE, hypercalls, swiotlb, attestation driver. */

export {};
