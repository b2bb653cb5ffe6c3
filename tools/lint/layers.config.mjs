/**
 * The layer rules as ESLint configuration, made from the table in tools/layers.mjs:
 *  - a package imports only the packages in its row, by name, through their entry (src/index.ts);
 *  - its tests, the applications, examples, benches and tools may import every package, through the same entry;
 *  - nothing reaches into another package's folder, and no package imports what is no package;
 *  - packages run in browsers: Node's modules and globals stay in *.node.ts and src/node/.
 */
import { builtinModules } from "node:module";
import { fileURLToPath } from "node:url";
import boundaries from "eslint-plugin-boundaries";
import { layers, packages } from "../layers.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

const entry = (names) => ({
  to: { element: { types: { anyOf: names }, fileInternalPath: "index.ts" } },
  dependency: { source: "@swtdx/*" },
});

const everything = packages.map(({ name }) => name);
const assemblers = ["examples", "bench", "tools"];
const testsOf = (name) => `${name}-test`;
const allTests = layers.map(({ name }) => testsOf(name));

const elements = [
  ...layers.map(({ name, folder }) => ({ type: name, pattern: `${folder}/src`, partialMatch: false })),
  ...layers.map(({ name, folder }) => ({
    type: testsOf(name),
    pattern: `${folder}/test`,
    partialMatch: false,
  })),
  ...assemblers.map((name) => ({ type: name, pattern: name, partialMatch: false })),
];

const policies = [
  ...layers.map(({ name, calls }) => ({ from: { element: { type: name } }, allow: [entry(calls)] })),
  // A package's tests may look at its internals, and share helpers with other packages' tests.
  ...layers.map(({ name }) => ({
    from: { element: { type: testsOf(name) } },
    allow: [
      entry(everything),
      { to: { element: { type: name } } },
      { to: { element: { types: { anyOf: [...allTests, "tools"] } } } },
    ],
  })),
  ...assemblers.map((name) => ({ from: { element: { type: name } }, allow: [entry(everything)] })),
  // The runners of examples and benches may use what tools has (the table of layers).
  {
    from: { element: { types: { anyOf: ["examples", "bench"] } } },
    allow: [{ to: { element: { type: "tools" } } }],
  },
];

const nodeModules = builtinModules.filter((name) => !name.startsWith("_") && !name.startsWith("node:"));
const notHere =
  "Packages also run in browsers: only *.node.ts files and src/node/ may use Node's own modules.";
const nodeEdge = ["packages/**/*.node.ts", "packages/**/src/node/**"];

const relativeWithoutExtension = "/^\\.\\.?\\u002F(?!.*\\.(js|mjs|json)$)/";
const extensionMessage = 'Relative imports end in ".js".';
const extensions = ["ImportDeclaration", "ExportNamedDeclaration", "ExportAllDeclaration"].map((node) => ({
  selector: `${node}[source.value=${relativeWithoutExtension}]`,
  message: extensionMessage,
}));

const deepImport = {
  group: ["@swtdx/*/**"],
  message: "Import a package through its entry (@swtdx/NAME), not by a path into it.",
};

const sources = layers.flatMap(({ folder }) => [`${folder}/src/**/*.ts`, `${folder}/test/**/*.ts`]);

export const layerRules = [
  {
    name: "swtdx/layers",
    files: [...sources, ...assemblers.map((name) => `${name}/**/*.{ts,mjs}`)],
    plugins: { boundaries },
    settings: {
      "boundaries/root-path": root,
      "boundaries/elements": elements,
      "boundaries/dependency-nodes": ["import", "dynamic-import", "export", "require"],
      "import/resolver": {
        typescript: {
          project: `${root}tsconfig.lint.json`,
          conditionNames: ["@swtdx/source", "types", "import", "default"],
        },
      },
    },
    rules: {
      "boundaries/dependencies": [
        "error",
        {
          default: "disallow",
          checkUnknownLocals: true,
          message:
            "{{from.element.types}} may not import {{dependency.source}}: see the table of layers (tools/layers.mjs).",
          policies,
        },
      ],
      "no-restricted-imports": ["error", { patterns: [deepImport] }],
      "no-restricted-syntax": ["error", ...extensions],
    },
  },
  {
    name: "swtdx/browser-safe",
    files: packages.map(({ folder }) => `${folder}/src/**/*.ts`),
    ignores: nodeEdge,
    rules: {
      "no-restricted-imports": [
        "error",
        {
          paths: nodeModules.map((name) => ({ name, message: notHere })),
          patterns: [deepImport, { group: ["node:*"], message: notHere }],
        },
      ],
      "no-restricted-syntax": [
        "error",
        ...extensions,
        { selector: "ImportExpression[source.value=/^node:/]", message: notHere },
      ],
      "no-restricted-globals": [
        "error",
        ...["process", "Buffer", "require", "global", "__dirname", "__filename", "setImmediate"].map(
          (name) => ({
            name,
            message: notHere,
          }),
        ),
      ],
    },
  },
  {
    // Equal inputs and an equal seed give an equal trace: chance and time come from what the caller injects.
    name: "swtdx/deterministic",
    files: packages.map(({ folder }) => `${folder}/src/**/*.ts`),
    ignores: nodeEdge,
    rules: {
      "no-restricted-properties": [
        "error",
        ...[
          ["Math", "random"],
          ["Date", "now"],
          ["performance", "now"],
        ].map(([object, property]) => ({
          object,
          property,
          message: "The platform is deterministic: take time and randomness from the caller.",
        })),
      ],
    },
  },
];
