/** What is printed: results on stdout, everything said about them on stderr. Colour and progress need a terminal. */
import picocolors from "picocolors";

type Stream = "stdout" | "stderr";

/** Colours for a stream, none when it is no terminal, when NO_COLOR is set, or with --quiet. */
export const colors = (stream: Stream, quiet = false): ReturnType<typeof picocolors.createColors> =>
  picocolors.createColors(isTerminal(stream) && !quiet && !process.env["NO_COLOR"]);

export const isTerminal = (stream: Stream): boolean => process[stream].isTTY === true;

export const out = (text: string): void => void process.stdout.write(`${text}\n`);
export const err = (text: string): void => void process.stderr.write(`${text}\n`);

/** Columns, aligned; the last one is not padded. */
export function table(rows: readonly (readonly string[])[], indent = ""): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, visible(cell))));
  return rows
    .map((row) =>
      (
        indent +
        row
          .map((cell, i) => (i === row.length - 1 ? cell : cell + " ".repeat(widths[i] - visible(cell))))
          .join("  ")
      ).trimEnd(),
    )
    .join("\n");
}

/** Length without colours. */
// eslint-disable-next-line no-control-regex -- colours are control sequences
const visible = (text: string): number => text.replace(/\x1b\[[0-9;]*m/g, "").length;
