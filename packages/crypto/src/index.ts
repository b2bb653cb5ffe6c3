/** @swtdx/crypto: hashes, MACs, AES and seeded randomness, the platform's own where it has them. */
export * from "./hash.js";
export * from "./aes.js";
export * from "./seeded-random.js";
export * from "./sha3.js";
