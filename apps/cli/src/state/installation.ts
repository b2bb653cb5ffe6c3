/**
 * What an installation keeps: the seed of its private root, made on first use in $XDG_DATA_HOME/swtdx (or --state).
 * Certificates and keys follow from the seed, so this one small file is all.
 */
import { chmodSync, existsSync, linkSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import type { Pki } from "@swtdx/attestation";
import { UsageError } from "../errors.js";
import { hexOption, readText } from "../io/files.js";

interface InstallationFile {
  version: 1;
  /** 32 bytes, hexadecimal. */
  seed: string;
  /** Start of the certificates' validity. */
  created: string;
}

export interface Installation {
  readonly directory: string;
  readonly seed: Uint8Array;
  readonly created: Date;
}

const FILE = "installation.json";
const DAY = 86_400_000;

/** Where the state is when --state is not given. */
export const defaultStateDirectory = (): string =>
  join(process.env["XDG_DATA_HOME"] || join(homedir(), ".local", "share"), "swtdx");

/** Opens the installation, making it on first use. @throws UsageError */
export async function openInstallation(state = defaultStateDirectory()): Promise<Installation> {
  const path = join(state, FILE);
  if (!existsSync(path)) await create(state, path);
  const file = parse(path, readText(path, "the installation's seed"));
  return {
    directory: state,
    seed: hexOption(`${path}: seed`, file.seed, 32),
    created: new Date(file.created),
  };
}

function parse(path: string, text: string): InstallationFile {
  let value: Partial<InstallationFile> | null = null;
  try {
    value = JSON.parse(text) as Partial<InstallationFile> | null;
  } catch {
    // Said below.
  }
  if (value?.version !== 1 || typeof value.seed !== "string" || Number.isNaN(Date.parse(value.created ?? "")))
    throw new UsageError(
      `${path}: expected JSON with version 1, seed and created; remove it to make a new one`,
    );
  return value as InstallationFile;
}

async function create(state: string, path: string): Promise<void> {
  const file: InstallationFile = {
    version: 1,
    seed: randomBytes(32).toString("hex"),
    // Midnight of the day before, so that clocks a little behind accept the certificates.
    created: new Date(Math.floor(Date.now() / DAY - 1) * DAY).toISOString(),
  };
  try {
    mkdirSync(state, { recursive: true, mode: 0o700 });
    // Of several commands started at once the first one wins, with the whole file.
    const draft = `${path}.${process.pid}`;
    writeFileSync(draft, `${JSON.stringify(file, null, 2)}\n`, { mode: 0o600 });
    try {
      linkSync(draft, path);
      chmodSync(path, 0o600);
    } catch (error) {
      if ((error as { code?: string }).code !== "EEXIST") throw error;
    } finally {
      rmSync(draft, { force: true });
    }
    const pki = await pkiOf(await openInstallation(state));
    const { toPem } = await import("@swtdx/attestation");
    writeFileSync(join(state, "root.pem"), toPem("CERTIFICATE", pki.root.certificate.der));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `${state}: the installation's state cannot be written (${(error as Error).message}); --state DIR gives another place`,
    );
  }
}

/** The installation's random source: everything in it follows from this. */
export async function randomOf(installation: Installation) {
  const { SeededRandom } = await import("@swtdx/crypto");
  return new SeededRandom(installation.seed);
}

const hierarchies = new WeakMap<Installation, Promise<Pki>>();

/** The installation's private hierarchy, made once for an opened installation: it takes a while. */
export function pkiOf(installation: Installation): Promise<Pki> {
  let pki = hierarchies.get(installation);
  if (!pki) hierarchies.set(installation, (pki = makePki(installation)));
  return pki;
}

async function makePki(installation: Installation): Promise<Pki> {
  const { createPki } = await import("@swtdx/attestation");
  return createPki((await randomOf(installation)).fork("pki"), { notBefore: installation.created });
}
