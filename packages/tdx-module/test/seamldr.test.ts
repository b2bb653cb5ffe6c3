/** P-SEAMLDR on a real processor: what it tells, which modules it takes, and in which order. */
import { createPublicKey, verify } from "node:crypto";
import {
  type HpaAndKeyId,
  PAGE_SIZE,
  PSEAMLDR_STATUS as P,
  SEAMLDR_INFO,
  SEAMLDR_LEAF,
  SEAMLDR_PARAMS,
  SEAMLDR_SCENARIO,
  type SeamldrName,
  type SeamldrParams,
  viewOf,
} from "@swtdx/abi";
import { Gpr, type LogicalProcessor } from "@swtdx/cpu";
import { sha384 } from "@swtdx/crypto";
import { rawSeamcall } from "@swtdx/linux-host";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { buildModuleImage, SEAM_SIGSTRUCT, type ModuleImage } from "../src/index.js";
import { SYSINFO_TABLE } from "../src/seamldr/sysinfo-table.js";
import { TdHost } from "./support/td-host.js";

const LPS = 3;
const VMFAIL_INVALID = 0x8000ff00ffff0000n;

class Loader {
  readonly at = new TdHost({ lps: LPS });
  readonly params = this.at.page();
  readonly sigstruct = this.at.page();
  readonly image = this.at.page();
  readonly lps = this.at.host.lps;

  call(name: SeamldrName, rcx: number | bigint = 0, lp: LogicalProcessor = this.at.lp): bigint {
    lp.regs.setGpr(Gpr.RCX, BigInt(rcx));
    lp.regs.setGpr(Gpr.RDX, 0x77n);
    return rawSeamcall(lp, SEAMLDR_LEAF[name]);
  }
  read(pa: number, bytes: number): Uint8Array {
    const out = new Uint8Array(bytes);
    expect(this.at.lp.memRead(pa as HpaAndKeyId, out).kind).toBe("ok");
    return out;
  }
  /** SEAMLDR.INSTALL on all logical processors. @returns RAX of the last one's and its RDX */
  install(module: ModuleImage, changes: Partial<SeamldrParams> = {}): [bigint, bigint] {
    this.at.write(this.sigstruct, module.sigstruct);
    this.at.write(this.image, module.image);
    const params = SEAMLDR_PARAMS.encode({
      SCENARIO: SEAMLDR_SCENARIO.LOAD,
      SIGSTRUCT_PA: this.sigstruct,
      NUM_MODULE_PAGES: module.image.length / PAGE_SIZE,
      MOD_PAGES_PA_LIST: [this.image],
      ...changes,
    });
    this.at.write(this.params, params);
    let status = 0n;
    for (const lp of this.lps) {
      status = this.call("SEAMLDR.INSTALL", this.params, lp);
      if (lp !== this.lps[LPS - 1]) expect(status).toBe(P.PSEAMLDR_SUCCESS);
    }
    return [status, this.lps[LPS - 1].regs.gpr(Gpr.RDX)];
  }
  get info() {
    const page = this.at.page();
    expect(this.call("SEAMLDR.INFO", page)).toBe(P.PSEAMLDR_SUCCESS);
    return SEAMLDR_INFO.decode(this.read(page, SEAMLDR_INFO.size));
  }
  /** Whether the module answers. */
  get running(): boolean {
    return rawSeamcall(this.at.lp, 0x7fn) !== VMFAIL_INVALID;
  }
}

/** Most tests leave it as they found it; the others put a new one there. */
let loader = new Loader();

describe("SEAMLDR.INFO and SEAMLDR.SEAMINFO", () => {
  test("tell of the loader, the module and the platform", () => {
    const { image } = buildModuleImage();
    const { info } = loader;
    expect([info.VENDOR_ID, info.ATTRIBUTES, info.MAJOR_VERSION]).toEqual([0x8086, 0, 1]);
    const { SEAMEXTEND } = info;
    expect([SEAMEXTEND.SEAM_READY, SEAMEXTEND.P_SEAMLDR_READY]).toEqual([1, 1]);
    expect(SEAMEXTEND.MRSEAM).toEqual(sha384(image));
    expect(SEAMEXTEND.MRSIGNERSEAM).toEqual(new Uint8Array(48));
    expect([...SEAMEXTEND.TEE_TCB_SVN.subarray(0, 3)]).toEqual([5, 1, 0]);
    const page = loader.at.page();
    expect(loader.call("SEAMLDR.SEAMINFO", page)).toBe(P.PSEAMLDR_SUCCESS);
    const table = new Uint8Array(SYSINFO_TABLE.size);
    table.set(loader.read(page, 2048));
    const platform = SYSINFO_TABLE.read(viewOf(table));
    expect([platform.VERSION, platform.TOT_NUM_LPS, platform.TOT_NUM_SOCKETS]).toEqual([0n, LPS, 1]);
    expect(platform.SOCKET_CPUID_TABLE[0]).toBe(loader.at.lp.cpuid(1).eax);
    expect(platform.CMRS[0].CMR_SIZE).toBeGreaterThan(0);
  });
  test("refuse a buffer that is not aligned, has a KeyID or lies in the SEAM range", () => {
    const { base } = loader.at.lp.processor.seamRange;
    const page = loader.at.page();
    for (const name of ["SEAMLDR.INFO", "SEAMLDR.SEAMINFO"] as const)
      for (const pa of [BigInt(page + 128), (40n << 46n) | BigInt(page), BigInt(base), 1n << 63n])
        expect(loader.call(name, pa)).toBe(P.PSEAMLDR_EBADPARAM);
    expect(rawSeamcall(loader.at.lp, 0x8000000000000009n)).toBe(P.PSEAMLDR_EBADPARAM);
  });
});

describe("SEAMLDR.INSTALL", () => {
  test("is done by the last logical processor; the module waits from the first call on", () => {
    expect(loader.running).toBe(true);
    expect(loader.call("SEAMLDR.INSTALL", 0)).toBe(P.PSEAMLDR_SUCCESS);
    expect(loader.running).toBe(false);
    expect(loader.call("SEAMLDR.INSTALL", 0)).toBe(P.PSEAMLDR_EBADCALL);
    expect(loader.call("SEAMLDR.INSTALL", 0, loader.lps[1])).toBe(P.PSEAMLDR_SUCCESS);
    // Its parameters count, and they are none; the old module goes on.
    expect(loader.call("SEAMLDR.INSTALL", 1, loader.lps[2])).toBe(P.PSEAMLDR_EBADPARAM);
    expect(loader.lps[2].regs.gpr(Gpr.RDX)).toBe(0n);
    expect(loader.running).toBe(true);
  });

  test("a new module starts from nothing", () => {
    expect(loader.install(buildModuleImage({ svn: 9 }))).toEqual([0n, 0n]);
    expect([...loader.info.SEAMEXTEND.TEE_TCB_SVN.subarray(0, 2)]).toEqual([9, 1]);
    expect(loader.at.call("TDH.PHYMEM.PAGE.RDMD").status).toBe(0xc000050500000000n);
    expect(loader.at.call("TDH.SYS.INIT").status).toBe(0n);
    loader = new Loader();
  });

  const good = buildModuleImage();
  const patched = (changes: Parameters<(typeof SEAM_SIGSTRUCT)["encode"]>[0]): ModuleImage => {
    const sigstruct = good.sigstruct.slice();
    SEAM_SIGSTRUCT.write(viewOf(sigstruct), changes);
    return { ...good, sigstruct };
  };
  test.each<[string, () => [ModuleImage, Partial<SeamldrParams>?], bigint]>([
    ["version of the parameters", () => [good, { VERSION: 1 }], P.PSEAMLDR_EBADPARAM],
    ["scenario", () => [good, { SCENARIO: 2 }], P.PSEAMLDR_EBADPARAM],
    ["too many pages", () => [good, { NUM_MODULE_PAGES: 497 }], P.PSEAMLDR_EBADPARAM],
    ["a page that is none", () => [good, { MOD_PAGES_PA_LIST: [8] }], P.PSEAMLDR_EBADPARAM],
    ["a signature structure that is none", () => [good, { SIGSTRUCT_PA: 8 }], P.PSEAMLDR_EBADPARAM],
    ["reserved bytes", () => [good, { RESERVED: Uint8Array.of(1) }], P.PSEAMLDR_EBADPARAM],
    ["header type", () => [patched({ HEADER_TYPE: 7 })], P.PSEAMLDR_EBADSIG],
    ["vendor", () => [patched({ MODULE_VENDOR: 1 })], P.PSEAMLDR_EBADSIG],
    ["another signer", () => [patched({ MODULUS: new Uint8Array(384).fill(3) })], P.PSEAMLDR_EBADSIG],
    ["what is signed", () => [patched({ SEAMSVN: 0x1ff })], P.PSEAMLDR_EBADSIG],
    ["the signature", () => [patched({ SIGNATURE: new Uint8Array(384) })], P.PSEAMLDR_EBADSIG],
    ["a debug module", () => [buildModuleImage({ debug: true })], P.PSEAMLDR_EBADSIG],
    ["other processors", () => [buildModuleImage({ processors: [0x306c0] })], P.PSEAMLDR_EUNSUPCPU],
    [
      "an older module as an update",
      () => [buildModuleImage({ svn: 4 }), { SCENARIO: SEAMLDR_SCENARIO.UPDATE }],
      P.PSEAMLDR_EBADSIG,
    ],
  ])("refuses %s, and the module that is there goes on", (_, of, status) => {
    const [module, changes] = of();
    expect(loader.install(module, changes)).toEqual([status, 0n]);
    expect(loader.running).toBe(true);
    expect(loader.info.SEAMEXTEND.MRSEAM).toEqual(sha384(good.image));
  });

  test("a module for this processor and others is taken", () => {
    const processors = [0x306c0, loader.at.lp.cpuid(1).eax ^ 1];
    expect(loader.install(buildModuleImage({ processors }))[0]).toBe(0n);
  });

  test("any changed bit of manifest or image is noticed; after a changed image nothing is loaded", () => {
    fc.assert(
      fc.property(fc.nat(2 * PAGE_SIZE * 8 - 1), (bit) => {
        const module = { image: good.image.slice(), sigstruct: good.sigstruct.slice() };
        const inManifest = bit < SEAM_SIGSTRUCT.size * 8;
        const target = inManifest ? module.sigstruct : module.image;
        const at = (bit >> 3) % target.length;
        target[at] ^= 1 << (bit & 7);
        const [status, rdx] = loader.install(module);
        if (inManifest) expect(status).not.toBe(0n);
        else expect([status, rdx]).toEqual([P.PSEAMLDR_EBADHASH, 1n]);
        expect(loader.running).toBe(inManifest);
        if (!inManifest) expect(loader.install(good)[0]).toBe(0n);
      }),
      { numRuns: 40, seed: 7 },
    );
  });
});

describe("SEAM_SIGSTRUCT", () => {
  test("has a signature that another implementation of RSA accepts", () => {
    const { sigstruct } = buildModuleImage();
    const { MODULUS, SIGNATURE, EXPONENT } = SEAM_SIGSTRUCT.decode(sigstruct);
    expect(EXPONENT).toBe(65537);
    const n = Buffer.from(MODULUS).reverse().toString("base64url");
    const key = createPublicKey({ key: { kty: "RSA", n, e: "AQAB" }, format: "jwk" });
    const signed = Buffer.concat([sigstruct.subarray(0, 128), sigstruct.subarray(900)]);
    expect(verify("sha384", signed, key, Buffer.from(SIGNATURE).reverse())).toBe(true);
  });
});

describe("SEAMLDR.SHUTDOWN", () => {
  test("ends with the logical processor that launched the loader", () => {
    expect(loader.call("SEAMLDR.SHUTDOWN", 0, loader.lps[2])).toBe(P.PSEAMLDR_SUCCESS);
    expect(loader.running).toBe(false);
    expect(loader.call("SEAMLDR.INSTALL", 0)).toBe(P.PSEAMLDR_EBADCALL);
    expect(loader.call("SEAMLDR.SHUTDOWN", 0, loader.lps[0])).toBe(P.PSEAMLDR_SUCCESS);
    expect(loader.call("SEAMLDR.SHUTDOWN", 0, loader.lps[1])).toBe(P.PSEAMLDR_EBADCALL);
    expect(loader.call("SEAMLDR.SHUTDOWN", 0, loader.lps[0])).toBe(P.PSEAMLDR_SUCCESS);
    expect(loader.call("SEAMLDR.INFO", loader.at.page())).toBe(VMFAIL_INVALID);
  });
});
