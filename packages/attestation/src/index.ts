/** @swtdx/attestation: quotes, quoting enclave, PCK certificates, collateral, event logs, verification. */

export {};
