/**
 * Who the quoting enclave is: what its SGX report says and what QE identity must say for verifiers to accept it.
 * Product number and attributes are those of Intel's TD quoting enclave; the measurements are this package's own.
 */
import { sha256 } from "@swtdx/crypto";
import { utf8 } from "../bytes.js";

export const QE_MRENCLAVE: Uint8Array = sha256(utf8("swtdx TD quoting enclave"));
export const QE_MRSIGNER: Uint8Array = sha256(utf8("swtdx enclave signer"));
/** ISVPRODID of the TD quoting enclave. */
export const QE_ISVPRODID = 2;
export const QE_ISVSVN = 6;
/** INIT, MODE64BIT, PROVISIONKEY; XFRM: x87, SSE, AVX, AVX-512. */
export const QE_ATTRIBUTES: Uint8Array = Uint8Array.of(0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7, 0, 0, 0, 0, 0, 0, 0);
