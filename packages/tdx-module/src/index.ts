/** @swtdx/tdx-module: P-SEAMLDR and the TDX module: every interface function, PAMT, Secure EPT, measurements. */

export {};
