/**
 * The tdx-guest object: a TD's ATTRIBUTES and identities as a user gives them. QEMU, target/i386/kvm/tdx.c
 * (tdx_guest_init, tdx_validate_attributes); the attribute names are the CLI's.
 */
import { hex, MachineError, OptionError } from "../errors.js";

/** ATTRIBUTES bits by name. */
export const TD_ATTRIBUTE_NAMES = {
  debug: 1n << 0n,
  "sept-ve-disable": 1n << 28n,
  migratable: 1n << 29n,
  pks: 1n << 30n,
  kl: 1n << 31n,
  perfmon: 1n << 63n,
} as const;

/** What a TD gets when nothing is said: SEPT_VE_DISABLE, without which Linux does not start. */
export const TD_ATTRIBUTES_DEFAULT = TD_ATTRIBUTE_NAMES["sept-ve-disable"];

/** Parses `name[,name…]` or a number. @throws OptionError */
export function parseTdAttributes(text: string): bigint {
  if (/^0x[0-9a-f]{1,16}$/i.test(text)) return BigInt(text);
  let attributes = 0n;
  for (const name of text.split(",").filter((part) => part !== "")) {
    const bit = TD_ATTRIBUTE_NAMES[name.trim() as keyof typeof TD_ATTRIBUTE_NAMES] as bigint | undefined;
    if (bit === undefined)
      throw new OptionError(
        "td-attributes",
        `no "${name}"; there are ${Object.keys(TD_ATTRIBUTE_NAMES).join(", ")}`,
      );
    attributes |= bit;
  }
  return attributes;
}

/** @throws MachineError when KVM does not support a bit. */
export function checkTdAttributes(attributes: bigint, supported: bigint): void {
  const bad = attributes & ~supported;
  if (bad === 0n) return;
  const names = Object.entries(TD_ATTRIBUTE_NAMES).flatMap(([name, bit]) => (bad & bit ? [name] : []));
  throw new MachineError(
    `td-attributes: ${names.join(", ") || hex(bad)}: not supported by KVM (it supports ${hex(supported)})`,
  );
}

/** Bytes of MRCONFIGID, MROWNER and MROWNERCONFIG. */
export const TD_IDENTITY_SIZE = 48;

/** Checks an identity's size; absent means zeros. @throws OptionError */
export function tdIdentity(option: string, value: Uint8Array | undefined): Uint8Array {
  if (value && value.length !== TD_IDENTITY_SIZE)
    throw new OptionError(option, `${value.length} bytes; a SHA-384 digest has ${TD_IDENTITY_SIZE}`);
  return value ?? new Uint8Array(TD_IDENTITY_SIZE);
}
