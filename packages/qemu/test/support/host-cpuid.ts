/** CPUID as KVM would give it on a Sapphire Rapids host, and what a 1.5 TDX module lets one configure. */
import type { KvmCpuidEntry2 } from "@swtdx/abi";

const entry = (
  leaf: number,
  index: number,
  eax: number,
  ebx: number,
  ecx: number,
  edx: number,
): KvmCpuidEntry2 => ({
  function: leaf,
  index,
  flags: 0,
  eax: eax >>> 0,
  ebx: ebx >>> 0,
  ecx: ecx >>> 0,
  edx: edx >>> 0,
});

export const hostCpuid: KvmCpuidEntry2[] = [
  entry(0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69),
  entry(1, 0, 0x806f8, 0x800, 0xfffa3203, 0x1f8bfbff),
  entry(4, 0, 0x7c004121, 0x2c0003f, 0x3f, 0),
  entry(6, 0, 4, 0, 0, 0),
  entry(7, 0, 2, 0xf1bf27eb, 0x1b415f6e, 0xffc04410),
  entry(7, 1, 0x1c30, 0, 0, 0),
  entry(7, 2, 0, 0, 0, 0x17),
  entry(0xd, 0, 0x602e7, 0x2b00, 0x2b00, 0),
  entry(0xd, 1, 0x1f, 0x2440, 0x1900, 0),
  entry(0xd, 2, 0x100, 0x240, 0, 0),
  entry(0xd, 5, 0x40, 0x440, 0, 0),
  entry(0xd, 6, 0x200, 0x480, 0, 0),
  entry(0xd, 7, 0x400, 0x680, 0, 0),
  entry(0xd, 9, 8, 0xa80, 0, 0),
  entry(0xd, 11, 0x10, 0, 1, 0),
  entry(0xd, 12, 0x18, 0, 1, 0),
  entry(0xd, 17, 0x40, 0xac0, 2, 0),
  entry(0xd, 18, 0x2000, 0xb00, 6, 0),
  entry(0x80000000, 0, 0x80000008, 0, 0, 0),
  entry(0x80000001, 0, 0, 0, 0x121, 0x2c100800),
  entry(0x80000007, 0, 0, 0, 0, 0x100),
  entry(0x80000008, 0, 0x303934, 0x200, 0, 0),
  entry(0x40000001, 0, 0x01007efb, 0, 0, 0),
];

export const tdxCpuidConfig: KvmCpuidEntry2[] = [
  entry(1, 0, 0x0fff3fff, 0x00ff0000, 0x0b044189 | 0x80, 0xb8400000),
  entry(4, 0, 0xfc000000, 0, 0, 0),
  entry(7, 0, 0, 0x00080318, 0x0a410124, 0x00054010),
  entry(7, 1, 0x00001c00, 0, 0, 0),
  entry(7, 2, 0, 0, 0, 0x28),
  entry(0x80000008, 0, 0x00ff0000, 0x200, 0, 0),
];
