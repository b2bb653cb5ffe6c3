/**
 * The x87 forms that x87.c runs: code, what its operands should look like, how many states, name.
 *
 * kind: P pushes; memory operand s single, d double, e extended, 2 4 8 integer of so many bytes, b decimal, n o
 * environment of 32 or 16 bits; ST(0) in the domain of t trigonometry, x F2XM1, y FYL2X, z FYL2XP1; "-" none.
 */
const MEMORY = [
  "fadd:s fmul:s fcom:s fcomp:s fsub:s fsubr:s fdiv:s fdivr:s",
  "fld:s - fst:- fstp:- fldenv:n fldcw:- fnstenv:- fnstcw:-",
  "fiadd:4 fimul:4 ficom:4 ficomp:4 fisub:4 fisubr:4 fidiv:4 fidivr:4",
  "fild:4 fisttp:- fist:- fistp:- - fld:e - fstp:-",
  "fadd:d fmul:d fcom:d fcomp:d fsub:d fsubr:d fdiv:d fdivr:d",
  "fld:d fisttp:- fst:- fstp:- frstor:n - fnsave:- fnstsw:-",
  "fiadd:2 fimul:2 ficom:2 ficomp:2 fisub:2 fisubr:2 fidiv:2 fidivr:2",
  "fild:2 fisttp:- fist:- fistp:- fbld:b fild:8 fbstp:- fistp:-",
].map((row) => row.split(" "));
const SIZE = ["m32", "", "m32int", "m32int", "m64", "m64", "m16int", "m16int"];
/** Names of the register forms: by ModRM.reg, or for D9 and others by ModRM. */
const REGISTER = [
  "fadd fmul fcom fcomp fsub fsubr fdiv fdivr",
  "fld fxch fnop fstp1 - - - -",
  "fcmovb fcmove fcmovbe fcmovu - fucompp - -",
  "fcmovnb fcmovne fcmovnbe fcmovnu - fucomi fcomi -",
  "fadd fmul fcom2 fcomp3 fsubr fsub fdivr fdiv",
  "ffree fxch4 fst fstp fucom fucomp - -",
  "faddp fmulp fcomp5 fcompp fsubrp fsubp fdivrp fdivp",
  "ffreep fxch7 fstp8 fstp9 fnstsw fucomip fcomip -",
].map((row) => row.split(" "));
const SINGLE = {
  0xd9e0: "fchs",
  0xd9e1: "fabs",
  0xd9e4: "ftst",
  0xd9e5: "fxam",
  0xd9e8: "fld1:P",
  0xd9e9: "fldl2t:P",
  0xd9ea: "fldl2e:P",
  0xd9eb: "fldpi:P",
  0xd9ec: "fldlg2:P",
  0xd9ed: "fldln2:P",
  0xd9ee: "fldz:P",
  0xd9f0: "f2xm1:x",
  0xd9f1: "fyl2x:y",
  0xd9f2: "fptan:t",
  0xd9f3: "fpatan",
  0xd9f4: "fxtract:P",
  0xd9f5: "fprem1",
  0xd9f6: "fdecstp",
  0xd9f7: "fincstp",
  0xd9f8: "fprem",
  0xd9f9: "fyl2xp1:z",
  0xd9fa: "fsqrt",
  0xd9fb: "fsincos:t",
  0xd9fc: "frndint",
  0xd9fd: "fscale",
  0xd9fe: "fsin:t",
  0xd9ff: "fcos:t",
  0xdae9: "fucompp",
  0xdbe0: "fneni",
  0xdbe1: "fndisi",
  0xdbe2: "fnclex",
  0xdbe3: "fninit",
  0xdbe4: "fnsetpm",
  0xded9: "fcompp",
  0xdfe0: "fnstsw",
};
const CASES = {
  ...Object.fromEntries("fadd fmul fsub fsubr fdiv fdivr".split(" ").map((n) => [n, 700])),
  ...Object.fromEntries("faddp fmulp fsubp fsubrp fdivp fdivrp".split(" ").map((n) => [n, 200])),
  ...Object.fromEntries("fsqrt frndint fscale fprem fprem1 fxtract".split(" ").map((n) => [n, 1000])),
  ...Object.fromEntries("f2xm1 fyl2x fptan fpatan fyl2xp1 fsincos fsin fcos".split(" ").map((n) => [n, 500])),
  ...Object.fromEntries("fist fistp fisttp fst fstp fld fbstp".split(" ").map((n) => [n, 500])),
};

/** @returns {{code: number[], kind: string, cases: number, name: string}[]} */
export function x87Forms() {
  /** @type {{code: number[], kind: string, cases: number, name: string}[]} */
  const out = [];
  for (let op = 0; op < 8; op++) {
    for (let reg = 0; reg < 8; reg++) {
      const [name, kind = "-"] = MEMORY[op][reg].split(":");
      const undefinedForm = name === "" || name === "-";
      const code = [0xd8 + op, (reg << 3) | 7];
      const full = undefinedForm ? `${(0xd8 + op).toString(16)}/${reg}` : `${name} ${SIZE[op]}`.trim();
      out.push({ code, kind, cases: undefinedForm ? 4 : (CASES[name] ?? 250), name: full });
      if (/env|rstor|save/.test(name))
        out.push({
          code: [0x66, ...code],
          kind: kind === "n" ? "o" : kind,
          cases: 100,
          name: `${name} 16-bit`,
        });
    }
    for (let modrm = 0xc0; modrm < 0x100; modrm++) {
      const [single, kind = "-"] = (SINGLE[((0xd8 + op) << 8) | modrm] ?? "").split(":");
      const family = REGISTER[op][(modrm >> 3) & 7];
      const alone = op === 1 && modrm >= 0xd8;
      const code = [0xd8 + op, modrm];
      if (single) out.push({ code, kind, cases: CASES[single] ?? 200, name: single });
      else if (family === "-" || alone || /fucompp|fcompp|fnstsw/.test(family))
        out.push({ code, kind: "-", cases: 4, name: code.map((b) => b.toString(16)).join(" ") });
      else {
        const n = modrm & 7;
        const many = n === 1 ? (CASES[family] ?? 200) : 16;
        out.push({ code, kind: family === "fld" ? "P" : "-", cases: many, name: `${family} st(${n})` });
      }
    }
  }
  out.push({ code: [0x9b], kind: "-", cases: 100, name: "fwait" });
  return out;
}
