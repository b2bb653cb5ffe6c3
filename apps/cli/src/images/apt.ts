/**
 * Debian's archive by apt, with a configuration of its own, so that nothing on the machine changes. apt checks the
 * archive's signatures against Debian's keyring, and the packages against the archive.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../errors.js";
import type { Suite, Wanted } from "./catalog.js";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

/** @throws UsageError that says what is missing */
export function checkTools(): void {
  for (const tool of ["apt-get", "apt-cache", "dpkg-deb"])
    if (spawnSync(tool, ["--version"]).error)
      throw new UsageError(`images: ${tool} is not there; this command needs a Debian or Ubuntu with apt`);
  if (!existsSync(KEYRING))
    throw new UsageError(
      `images: ${KEYRING} is not there; install debian-archive-keyring, against which signatures are checked`,
    );
}

/** A suite: apt with lists, cache and sources of its own; proxies and the like come from the machine's configuration. */
export class Apt {
  readonly #options: readonly string[];
  constructor(
    private readonly directory: string,
    readonly suite: Suite,
    mirror: string,
  ) {
    const base = join(directory, ".apt", suite);
    for (const part of ["lists/partial", "cache/archives/partial"])
      mkdirSync(join(base, part), { recursive: true });
    const file = (name: string, text: string): string => {
      writeFileSync(join(base, name), text);
      return join(base, name);
    };
    const set: Readonly<Record<string, string>> = {
      "Dir::Etc::SourceList": file(
        "debian.list",
        `deb [arch=amd64 signed-by=${KEYRING}] ${mirror} ${suite} main\n`,
      ),
      "Dir::Etc::SourceParts": "/dev/null",
      "Dir::Etc::Preferences": "/dev/null",
      "Dir::Etc::PreferencesParts": "/dev/null",
      "Dir::State": base,
      "Dir::State::Lists": join(base, "lists"),
      "Dir::State::status": file("status", ""),
      "Dir::State::extended_states": file("extended_states", ""),
      "Dir::Cache": join(base, "cache"),
      "Dir::Cache::pkgcache": "",
      "Dir::Cache::srcpkgcache": "",
      "APT::Architecture": "amd64",
      "APT::Architectures": "amd64",
      // A superuser's apt becomes the user _apt to download, who may not write here.
      "APT::Sandbox::User": "root",
      "APT::Get::AllowUnauthenticated": "false",
      "APT::Update::Post-Invoke": "",
      "APT::Update::Post-Invoke-Success": "",
      "Acquire::AllowInsecureRepositories": "false",
      "Acquire::Languages": "none",
      "Acquire::Retries": "2",
      "Acquire::http::Timeout": "60",
    };
    this.#options = Object.entries(set).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  }

  /** Runs an apt program. @returns what it printed. @throws UsageError with apt's own complaint */
  run(tool: "apt-get" | "apt-cache", args: readonly string[], cwd?: string): string {
    const result = spawnSync(tool, ["-q", ...this.#options, ...args], {
      encoding: "utf8",
      cwd,
      env: { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      maxBuffer: 256 * 2 ** 20,
    });
    // A list that cannot be fetched is only a warning to apt-get update.
    const complaint = `${result.stderr}`
      .split("\n")
      .find((line) => /^(E:|Err|W: (Failed|GPG|Some index))/.test(line));
    if (result.status !== 0 || (args[0] === "update" && complaint))
      throw new UsageError(
        `images: ${tool} ${args[0]} for ${this.suite} failed: ${(complaint ?? result.error?.message ?? `status ${result.status}`).replace(/^[EW]:\s*/, "")}`,
      );
    return result.stdout;
  }

  /** The package to fetch: for a metapackage the one it leads to. */
  resolve(wanted: Wanted): string {
    let name = wanted.name;
    for (const pattern of wanted.dependencies ?? []) {
      const next = this.run("apt-cache", ["depends", "--no-recommends", "--no-suggests", name])
        .split("\n")
        .map((line) => /^\s*\|?Depends: (\S+)/.exec(line)?.[1])
        .find((dependency) => dependency !== undefined && pattern.test(dependency));
      name = next ?? name;
    }
    if (wanted.dependencies && name === wanted.name)
      throw new UsageError(`images: ${wanted.name} of ${this.suite} depends on no such package`);
    return name;
  }

  /** Downloads a package. @returns its version and the path of the .deb */
  download(name: string): { version: string; deb: string } {
    const downloads = join(this.directory, ".apt", this.suite, "debs");
    mkdirSync(downloads, { recursive: true });
    const version = /^Version: (.*)$/m.exec(this.run("apt-cache", ["show", "--no-all-versions", name]))?.[1];
    if (version === undefined) throw new UsageError(`images: ${this.suite} has no package ${name}`);
    this.run("apt-get", ["download", `${name}=${version}`], downloads);
    // apt-get download names files with the version; the newest is the one.
    const deb = readdirSync(downloads)
      .filter((file) => file.startsWith(`${name}_`) && file.endsWith(".deb"))
      .map((file) => join(downloads, file))
      .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)
      .find((file) => file.includes(version.replaceAll(":", "%3a")));
    if (!deb) throw new UsageError(`images: apt-get download left no ${name} ${version}`);
    return { version, deb };
  }
}

/** Unpacks a .deb into a directory, which is new. @throws UsageError */
export function unpack(deb: string, directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const result = spawnSync("dpkg-deb", ["-x", deb, directory], { encoding: "utf8" });
  if (result.status !== 0) throw new UsageError(`images: dpkg-deb -x ${deb}: ${result.stderr.trim()}`);
}
