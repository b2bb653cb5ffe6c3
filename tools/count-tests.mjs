/**
 * `count-tests FILE`: prints "N passed, N failed" from the report of vitest's JSON reporter. A test file that
 * failed without a failing test (it did not load, say) counts as one failure, and so does a run that failed
 * for no reason the report names.
 */
import { readFileSync } from "node:fs";

export function count(report) {
  const broken = report.testResults.filter(
    ({ status, assertionResults }) =>
      status === "failed" && !assertionResults.some((test) => test.status === "failed"),
  ).length;
  const failed = report.numFailedTests + broken;
  return { passed: report.numPassedTests, failed: failed === 0 && !report.success ? 1 : failed };
}

if (process.argv[1]?.endsWith("count-tests.mjs")) {
  const { passed, failed } = count(JSON.parse(readFileSync(process.argv[2], "utf8")));
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
}
