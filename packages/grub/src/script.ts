/** GRUB's script language as far as a boot entry needs it: words, quotes, $variables, comments, `;`. */

/** One command with its words expanded. */
export interface Command {
  words: string[];
}

/** Splits a line's commands into words; variables expand inside double quotes and outside quotes. */
export function* parseScript(
  source: string,
  variable: (name: string) => string,
): Generator<Command, void, undefined> {
  for (const line of source.split("\n")) {
    for (const command of splitCommands(line)) {
      const words = expandWords(command, variable);
      if (words.length > 0) yield { words };
    }
  }
}

function splitCommands(line: string): string[] {
  const out: string[] = [];
  let current = "";
  let quote = "";
  for (const c of line) {
    if (quote === "" && c === "#") break;
    if (quote === "" && c === ";") {
      out.push(current);
      current = "";
      continue;
    }
    if (quote === c) quote = "";
    else if (quote === "" && (c === '"' || c === "'")) quote = c;
    current += c;
  }
  return [...out, current];
}

function expandWords(command: string, variable: (name: string) => string): string[] {
  const words: string[] = [];
  // A word is a run of quoted and unquoted pieces.
  for (const [word] of command.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)) {
    let text = "";
    for (const [piece] of word.matchAll(/"[^"]*"|'[^']*'|[^"']+/g)) {
      if (piece.startsWith("'")) text += piece.slice(1, -1);
      else
        text += piece
          .replace(/^"(.*)"$/s, "$1")
          .replace(/\$(?:\{(\w+)\}|(\w+))/g, (_, braced?: string, plain?: string) =>
            variable(braced ?? plain!),
          );
    }
    words.push(text);
  }
  return words;
}
