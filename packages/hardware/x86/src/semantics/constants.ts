/** CRC-32C (Castagnoli), bit-reflected: SDM vol. 2, CRC32. */
export const CRC32C_POLYNOMIAL = 0x82f63b78 | 0;
