/**
 * Addresses, page frames and KeyIDs: different types, so that one is not taken for another.
 * Physical addresses have at most 52 bits and are plain numbers; linear addresses and register values are bigint.
 */
declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** Host physical address in bytes, without KeyID bits. */
export type Hpa = Branded<number, "Hpa">;
/** Host physical address in bytes as software writes it: with KeyID bits above the address bits. */
export type HpaAndKeyId = Branded<number, "HpaAndKeyId">;
/** Guest physical address in bytes; a TD's may have the shared bit. */
export type Gpa = Branded<number, "Gpa">;
/** Host page frame number: HPA / 4096. */
export type Pfn = Branded<number, "Pfn">;
/** Memory-encryption key identifier; in a TDX context a private one is an HKID. */
export type KeyId = Branded<number, "KeyId">;

export const hpa = (value: number): Hpa => value as Hpa;
export const gpa = (value: number): Gpa => value as Gpa;
export const pfn = (value: number): Pfn => value as Pfn;
export const keyId = (value: number): KeyId => value as KeyId;

/** 4 KiB, the unit of PAMT, EPT and page tables. */
export const PAGE_SIZE = 4096;
export const pfnOf = (address: Hpa): Pfn => Math.floor(address / PAGE_SIZE) as Pfn;
export const hpaOf = (frame: Pfn): Hpa => (frame * PAGE_SIZE) as Hpa;

/** Sizes in bytes of the pages that (EPT) page tables map, by level: 0 is 4K, 1 is 2M, 2 is 1G. */
export const PAGE_SIZE_OF_LEVEL = [4096, 2 ** 21, 2 ** 30, 2 ** 39, 2 ** 48] as const;
