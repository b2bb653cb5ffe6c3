/** Where a guest was when it died or was stopped, in words: of a processor's post-mortem. */
import type { PostMortem } from "@swtdx/cpu";

const EXITS_SHOWN = 8;

const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
const bytes = (data: Uint8Array): string =>
  data.length === 0
    ? "nothing is mapped there"
    : Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** What the summary has of it: numbers as hexadecimal strings. */
export interface Where {
  /** State at the shutdown; null of a guest that did not shut down. */
  readonly shutdown: {
    readonly mode: string;
    readonly cpl: number;
    readonly registers: Readonly<Record<string, string>>;
    readonly code: string;
    readonly stack: string;
  } | null;
  /** The last VM exits, the latest at the end. */
  readonly exits: readonly string[];
}

const GPRS = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"],
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
];

export function where({ exits, shutdown }: PostMortem): Where {
  return {
    shutdown: shutdown && {
      mode: shutdown.mode,
      cpl: shutdown.cpl,
      registers: {
        cs: `${hex(shutdown.cs)} (base ${hex(shutdown.csBase)})`,
        ...Object.fromEntries(
          (["rip", "rflags", "cr0", "cr2", "cr3", "cr4"] as const).map((name) => [name, hex(shutdown[name])]),
        ),
        ...Object.fromEntries(shutdown.gprs.map((value, i) => [GPRS[i], hex(value)])),
      },
      code: bytes(shutdown.code),
      stack: bytes(shutdown.stack),
    },
    exits: exits
      .slice(-EXITS_SHOWN)
      .map(({ name, rip, qualification, gpa, vector }) =>
        [
          `${name} at RIP ${hex(rip)}`,
          ...(vector === null ? [] : [`vector ${vector}`]),
          ...(gpa === null ? [] : [`GPA ${hex(gpa)}`]),
          ...(qualification === 0n ? [] : [`qualification ${hex(qualification)}`]),
        ].join(", "),
      ),
  };
}

/** The same as rows of a table. */
export function whereRows({ shutdown, exits }: Where): string[][] {
  const rows: string[][] = [];
  if (shutdown) {
    const { registers } = shutdown;
    const list = (names: readonly string[]): string =>
      names.map((name) => `${name.toUpperCase()} ${registers[name]}`).join("  ");
    rows.push(
      ["where", `${shutdown.mode} mode, CPL ${shutdown.cpl}`],
      ["", list(["cs", "rip", "rsp", "rflags"])],
      ["", list(["cr0", "cr2", "cr3", "cr4"])],
      ["code", shutdown.code],
      ["stack", shutdown.stack],
    );
  }
  exits.forEach((exit, i) => rows.push([i === 0 ? "last exits" : "", exit]));
  return rows;
}
