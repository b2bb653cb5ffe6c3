/**
 * `swtdx images`: firmware, kernels, shim, GRUB and busybox from Debian's archive, unpacked, with a manifest. apt
 * does the work with a configuration of its own under DIR, so that nothing on the machine changes; it checks the
 * archive's signatures against Debian's keyring, and the packages against the archive.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join, relative, resolve } from "node:path";
import { UsageError } from "../errors.js";
import { Progress } from "../io/progress.js";
import { colors, out, table } from "../io/terminal.js";
import { toJson } from "../io/files.js";

export interface ImagesOptions {
  suite?: string[];
  mirror: string;
  json?: boolean;
  quiet?: boolean;
}

const SUITES = ["bookworm", "trixie", "sid"] as const;
type Suite = (typeof SUITES)[number];

/** A package, and the files of it that are of use: role, and where in the package. */
interface Wanted {
  readonly name: string;
  /** A metapackage: what is fetched is the package it depends on whose name matches, and so on from there. */
  readonly dependencies?: readonly RegExp[];
  readonly files: readonly (readonly [role: string, path: RegExp])[];
}

const KERNEL: Wanted = {
  name: "linux-image-cloud-amd64",
  // From Linux 7 on the image is in a package of its own.
  dependencies: [/^linux-image-\d.*-cloud-amd64$/, /^linux-binary-\d.*-cloud-amd64$/],
  files: [["kernel", /(^|\/)vmlinuz[^/]*$/]],
};
const PACKAGES: Readonly<Record<Suite, readonly Wanted[]>> = {
  bookworm: [{ name: "ovmf", files: [["firmware", /\/OVMF[^/]*\.fd$/]] }],
  trixie: [
    { name: "ovmf", files: [["firmware", /\/OVMF[^/]*\.fd$/]] },
    KERNEL,
    { name: "busybox-static", files: [["busybox", /bin\/busybox$/]] },
    { name: "shim-signed", files: [["shim", /\/shimx64\.efi\.signed$/]] },
    { name: "grub-efi-amd64-signed", files: [["grub", /\/grubx64\.efi\.signed$/]] },
  ],
  sid: [{ name: "ovmf-inteltdx", files: [["firmware", /\/OVMF[^/]*\.fd$/]] }, KERNEL],
};

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

interface ManifestPackage {
  readonly suite: Suite;
  readonly package: string;
  readonly version: string;
  /** Of the .deb. */
  readonly sha256: string;
  readonly files: readonly { role: string; path: string; size: number; sha256: string }[];
}

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

/** Fetches and unpacks the images into `directory`. @throws UsageError */
export function images(directory: string, options: ImagesOptions): void {
  const suites = (options.suite ?? [...SUITES]).map((name) => {
    const suite = SUITES.find((known) => known === name);
    if (!suite) throw new UsageError(`--suite: "${name}" is not one of ${SUITES.join(", ")}`);
    return suite;
  });
  if (!/^(https?|file):\/\/[^\s\]]+$/.test(options.mirror))
    throw new UsageError(`--mirror: "${options.mirror}" is no http, https or file URL`);
  for (const tool of ["apt-get", "apt-cache", "dpkg-deb"])
    if (spawnSync(tool, ["--version"]).error)
      throw new UsageError(`images: ${tool} is not there; this command needs a Debian or Ubuntu with apt`);
  if (!existsSync(KEYRING))
    throw new UsageError(
      `images: ${KEYRING} is not there; install debian-archive-keyring, against which signatures are checked`,
    );
  const dir = resolve(directory);
  try {
    mkdirSync(dir, { recursive: true });
    accessSync(dir, constants.W_OK);
  } catch (error) {
    throw new UsageError(`${directory}: cannot be written (${(error as Error).message})`);
  }

  const progress = new Progress(options.quiet ?? false);
  const packages: ManifestPackage[] = [];
  for (const suite of suites) {
    const apt = new Apt(dir, suite, options.mirror);
    progress.stage(`${suite}: lists of packages`);
    apt.run("apt-get", ["update"]);
    for (const wanted of PACKAGES[suite]) {
      const name = apt.resolve(wanted);
      progress.stage(`${suite}: ${name}`);
      packages.push(fetchPackage(apt, dir, suite, name, wanted));
    }
  }
  progress.end();
  const path = join(dir, "manifest.json");
  const manifest = { packages: [...kept(path, suites), ...packages] };
  writeFileSync(path, `${toJson(manifest, 2)}\n`);
  if (options.json) return out(toJson(manifest, 2));
  const c = colors("stdout");
  out(
    table([
      ["file", "package", "version", "SHA-256"].map((head) => c.bold(head)),
      ...manifest.packages.flatMap((one) =>
        one.files.map((file) => [file.path, `${one.package} (${one.suite})`, one.version, file.sha256]),
      ),
    ]),
  );
  out(c.dim(`manifest: ${relative(process.cwd(), path) || path}`));
}

/** What the manifest of an earlier run says of other suites. */
function kept(path: string, suites: readonly Suite[]): ManifestPackage[] {
  try {
    const { packages } = JSON.parse(readFileSync(path, "utf8")) as { packages: ManifestPackage[] };
    return packages.filter(({ suite }) => !suites.includes(suite));
  } catch {
    return [];
  }
}

/** apt with lists, cache and sources of its own; proxies and the like come from the machine's configuration. */
class Apt {
  readonly #options: readonly string[];
  constructor(
    directory: string,
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
}

function fetchPackage(apt: Apt, dir: string, suite: Suite, name: string, wanted: Wanted): ManifestPackage {
  const downloads = join(dir, ".apt", suite, "debs");
  mkdirSync(downloads, { recursive: true });
  const isIt = (file: string): boolean => file.startsWith(`${name}_`) && file.endsWith(".deb");
  const version = /^Version: (.*)$/m.exec(apt.run("apt-cache", ["show", "--no-all-versions", name]))?.[1];
  if (version === undefined) throw new UsageError(`images: ${suite} has no package ${name}`);
  apt.run("apt-get", ["download", `${name}=${version}`], downloads);
  // apt-get download names files with the version; the newest is the one.
  const deb = readdirSync(downloads)
    .filter(isIt)
    .map((file) => join(downloads, file))
    .sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)
    .find((file) => file.includes(version.replaceAll(":", "%3a")));
  if (!deb) throw new UsageError(`images: apt-get download left no ${name} ${version}`);
  const target = join(dir, suite, name);
  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const unpack = spawnSync("dpkg-deb", ["-x", deb, target], { encoding: "utf8" });
  if (unpack.status !== 0) throw new UsageError(`images: dpkg-deb -x ${name}: ${unpack.stderr.trim()}`);
  const files = list(target).flatMap((path) => {
    const inside = relative(target, path);
    const role = wanted.files.find(([, pattern]) => pattern.test(inside))?.[0];
    return role ? [{ role, path: relative(dir, path), size: statSync(path).size, sha256: sha256(path) }] : [];
  });
  if (files.length === 0)
    throw new UsageError(`images: ${name} ${version} of ${suite} has no ${wanted.files[0][0]}`);
  return { suite, package: name, version, sha256: sha256(deb), files };
}

/** Plain files below a directory, sorted. */
function list(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? list(path) : entry.isFile() ? [path] : [];
    });
}
