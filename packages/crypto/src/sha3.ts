/** SHA3-256 (FIPS 202). */
export { sha3_256 as sha3Sha256 } from "@noble/hashes/sha3.js";
