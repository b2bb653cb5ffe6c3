import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parsePe } from "@swtdx/abi";
import { buildImage, DEFAULT_CONFIG, parseScript } from "../src/index.js";

const variables: Record<string, string> = { name: "va lue", a_1: "x" };
const parse = (source: string) =>
  [...parseScript(source, (name) => variables[name] ?? "")].map(({ words }) => words);

describe("GRUB's script", () => {
  it.each([
    ["linux /vmlinuz root=/dev/sda1", [["linux", "/vmlinuz", "root=/dev/sda1"]]],
    ["  echo  a\tb  ", [["echo", "a", "b"]]],
    ["# all of it\necho a # rest\n\n", [["echo", "a"]]],
    [
      "echo a; echo b;",
      [
        ["echo", "a"],
        ["echo", "b"],
      ],
    ],
    ["echo 'a; b' \"c # d\"", [["echo", "a; b", "c # d"]]],
    ['echo "$name" $a_1 ${name}! $none', [["echo", "va lue", "x", "va lue!", ""]]],
    ["echo '$name'", [["echo", "$name"]]],
    ["echo a\"b c\"'d e'f", [["echo", "ab cd ef"]]],
    ["set x=1", [["set", "x=1"]]],
  ])("%j", (source, words) => {
    expect(parse(source)).toEqual(words);
  });
  it("ends, whatever it is given", () => {
    fc.assert(
      fc.property(fc.string(), (source) => {
        for (const words of parse(source)) expect(words.length).toBeGreaterThan(0);
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.constantFrom(..."a$\"'; \n#{}")), (letters) => {
        parse(letters.join(""));
      }),
    );
  });
});

it("is in the image's section, as given", () => {
  const image = buildImage();
  const pe = parsePe(image);
  if ("error" in pe) throw new Error(pe.error);
  const section = pe.sections.find(({ name }) => name === ".cfg")!;
  const bytes = image.subarray(section.rawOffset, section.rawOffset + section.virtualSize);
  expect(new TextDecoder().decode(bytes)).toBe(DEFAULT_CONFIG);
});
