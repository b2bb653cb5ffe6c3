/**
 * What a TD was given: ATTRIBUTES, XFAM and virtual CPUID boiled down to the questions that CPUID, MSR and
 * control-register virtualisation ask.
 *
 * Source: intel/tdx-module src/common/helpers/helpers.h (is_…_supported_in_tdcs).
 */

export interface TdFeatures {
  readonly perfmon: boolean;
  readonly pks: boolean;
  readonly cet: boolean;
  readonly pt: boolean;
  readonly uli: boolean;
  readonly lbr: boolean;
  readonly waitpkg: boolean;
  readonly xfd: boolean;
  readonly tsx: boolean;
  /** The processor has IA32_PERF_METRICS. */
  readonly perfMetrics: boolean;
}

/** @param flags the TDCS array CPUID_FLAGS, in the order of CpuidFlag */
export function tdFeatures(
  attributes: bigint,
  xfam: bigint,
  flags: { readonly waitpkg: boolean; readonly xfd: boolean; readonly tsx: boolean },
  perfMetrics: boolean,
): TdFeatures {
  const bit = (value: bigint, n: bigint): boolean => ((value >> n) & 1n) !== 0n;
  return {
    perfmon: bit(attributes, 63n),
    pks: bit(attributes, 30n),
    cet: bit(xfam, 11n) || bit(xfam, 12n),
    pt: bit(xfam, 8n),
    uli: bit(xfam, 14n),
    lbr: bit(xfam, 15n),
    waitpkg: flags.waitpkg,
    xfd: flags.xfd,
    tsx: flags.tsx,
    perfMetrics,
  };
}
