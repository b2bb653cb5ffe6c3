/** Reading and writing the user's files, with errors that name them. */
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { UsageError } from "../errors.js";

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "permission denied",
  EISDIR: "is a directory, expected a file",
  ENOTDIR: "a part of its path is no directory",
  ENOSPC: "no space left",
  EROFS: "read-only file system",
};
const reason = (error: unknown): string => {
  const { code } = error as { code?: string };
  return (code && REASONS[code]) ?? (code || (error as Error).message);
};

/** @throws UsageError `FILE: what is wrong (expected WHAT)` */
export function readInput(file: string, what: string): Uint8Array {
  try {
    if (statSync(file).isDirectory()) throw Object.assign(new Error(), { code: "EISDIR" });
    return new Uint8Array(readFileSync(file));
  } catch (error) {
    throw new UsageError(`${file}: ${reason(error)} (expected ${what})`);
  }
}

export const readText = (file: string, what: string): string =>
  new TextDecoder().decode(readInput(file, what));

/** @throws UsageError */
export function writeOutput(file: string, data: Uint8Array | string): void {
  try {
    writeFileSync(file, data);
  } catch (error) {
    throw new UsageError(`${file}: cannot be written: ${reason(error)}`);
  }
}

/** Bytes of an option given as hexadecimal. @throws UsageError */
export function hexOption(option: string, text: string, size?: number): Uint8Array {
  if (!/^([0-9a-f]{2})*$/i.test(text)) throw new UsageError(`${option}: "${text}" is not hexadecimal bytes`);
  const bytes = new Uint8Array(Buffer.from(text, "hex"));
  if (size !== undefined && bytes.length !== size)
    throw new UsageError(`${option}: ${bytes.length} bytes, expected ${size}`);
  return bytes;
}

export const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

/** Values as JSON has them: bytes and register values in hexadecimal. */
export const toJson = (value: unknown, indent?: number): string =>
  JSON.stringify(
    value,
    (_, item: unknown) =>
      typeof item === "bigint"
        ? `0x${item.toString(16)}`
        : item instanceof Uint8Array
          ? Buffer.from(item).toString("hex")
          : item,
    indent,
  );
