/** What ESLint's layer rules do not see: cycles, inside packages too, and imports that lead nowhere. */
export default {
  forbidden: [
    {
      name: "no-circular",
      severity: "error",
      comment: "Modules that import one another cannot be read, or loaded, one at a time. Types may.",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "no-unresolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "(^|/)(dist|out-tsc)/" },
    tsConfig: { fileName: "tsconfig.lint.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["@swtdx/source", "import", "node", "default"],
    },
  },
};
