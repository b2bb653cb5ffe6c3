/** SEAM by hand: firmware of our own in the SEAM range, called by SEAMCALL, with secrets that the host cannot read. */
import { encodeProgramImage, hpa, keyId, type HpaAndKeyId } from "@swtdx/abi";
import { Gpr, Processor, VMCS_REVISION, type SeamFirmware } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";

const arena = new Arena({ residentBytes: 16 << 20 });
const random = new SeededRandom(new Uint8Array(32));
const memory = new MemoryController(arena, { dramBytes: 64 << 20, random });
const processor = new Processor({ arena, memory, random });
const lp = processor.lps[0];
const pa = (value: number): HpaAndKeyId => value as HpaAndKeyId;
const SEAM = 0x200_0000;
const TD_KEY = keyId(33);

/** RAX: 1 takes a secret in RCX and keeps it under a private KeyID, 2 gives it back, 3 makes a report. */
const firmware: SeamFirmware = {
  seamcall(seam) {
    const leaf = seam.regs.gpr(Gpr.RAX) & 0xffn;
    if (leaf === 1n) {
      seam.pconfig({ keyId: TD_KEY, command: 1, encAlg: 1 });
      seam.zero(hpa(0x10_0000), TD_KEY, 4096);
      seam.writeU64(hpa(0x10_0000), TD_KEY, seam.regs.gpr(Gpr.RCX));
    } else if (leaf === 2n) seam.regs.setGpr(Gpr.RCX, seam.readU64(hpa(0x10_0000), TD_KEY));
    else report = seam.seamreport(reportRequest).reportMacStruct;
    seam.regs.setGpr(Gpr.RAX, 0n);
  },
};
const reportRequest = {
  reportType: { type: 0x81, subtype: 0, version: 0 },
  reportData: new Uint8Array(64),
  teeInfoHash: new Uint8Array(48),
};
let report: Uint8Array = new Uint8Array();

// The BIOS's part: 6 KeyID bits of which 1 is TDX's, the SEAM range, VMX, and the loader's authenticated module.
lp.wrmsr(0x982, (1n << 48n) | (1n << 36n) | (6n << 32n) | 3n);
lp.wrmsr(0x1400, BigInt(SEAM) | 8n);
lp.wrmsr(0x1401, 0xf_ffff_fe00_0c00n);
lp.wrmsr(0x3a, 5n);
lp.memWriteU64(pa(0x1000), BigInt(VMCS_REVISION));
lp.vmxon(pa(0x1000));
processor.registerSeamFirmware("example", () => firmware);
console.log("ENTERACCS:", lp.enteraccs(encodeProgramImage("example")).kind);

const seamcall = (leaf: bigint, rcx = 0n): bigint => {
  lp.regs.setGpr(Gpr.RAX, (1n << 63n) | leaf);
  lp.regs.setGpr(Gpr.RCX, rcx);
  lp.seamcall();
  return lp.regs.gpr(Gpr.RCX);
};
seamcall(1n, 0x5ec2e7n);
console.log("the host with KeyID 0:", lp.memReadU64(pa(0x10_0000)));
console.log("the host with the private KeyID:", lp.memReadU64(pa(0x10_0000 + TD_KEY * 2 ** 46)));
console.log("the firmware:", seamcall(2n).toString(16));
seamcall(3n);
console.log("EVERIFYREPORT2:", lp.everifyreport2(report) === 0 ? "made on this platform" : "rejected");
