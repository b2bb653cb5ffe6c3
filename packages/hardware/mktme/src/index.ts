/** @swtdx/mktme: DRAM and the memory controller: KeyID table, AES-XTS-128, MAC and TD-owner bit, poison. */

export {};
