/** The closing line of a run counts what vitest reports, and never turns a failed run into "0 failed". */
import { expect, it } from "vitest";
import { count } from "./count-tests.mjs";

const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map((test) => ({ status: test })),
});

it.each([
  ["all passed", [file("passed", "passed", "passed")], 2, 0, true, { passed: 2, failed: 0 }],
  ["one failed", [file("failed", "passed", "failed")], 1, 1, false, { passed: 1, failed: 1 }],
  ["a file did not load", [file("failed"), file("passed", "passed")], 1, 0, false, { passed: 1, failed: 1 }],
  ["an error outside any test", [file("passed", "passed")], 1, 0, false, { passed: 1, failed: 1 }],
])("%s", (_name, testResults, numPassedTests, numFailedTests, success, expected) => {
  expect(count({ testResults, numPassedTests, numFailedTests, success })).toEqual(expected);
});
