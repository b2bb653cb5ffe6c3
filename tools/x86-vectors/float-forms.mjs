/**
 * The SSE floating-point, string and MMX forms that float.c runs, as assembler text; of which kind the xmm registers and the
 * memory at rdi are (s single, d double, i integer, t text), and whether the x87 state varies (M).
 */
const LANES = { ps: "xmmword", pd: "xmmword", ss: "dword", sd: "qword" };

/** @typedef {{text: string, name?: string, xmm: "s" | "d" | "i" | "t", memory: "s" | "d" | "i" | "t", x87: boolean, digest?: boolean, cross?: boolean, cases: number}} FloatForm */

/** @returns {FloatForm[]} */
export function floatForms() {
  /** @type {FloatForm[]} */
  const out = [];
  const add = (text, xmm, memory = xmm, x87 = false, cases = 160) =>
    out.push({ text, xmm, memory, x87, cases });
  /** Register and memory form. */
  const pair = (name, size, kind, imm = "", cases = 160) => {
    add(`${name} xmm1, xmm2${imm}`, kind, kind, false, cases);
    add(`${name} xmm1, ${size} ptr [rdi]${imm}`, kind, kind, false, cases >> 2);
  };
  for (const [suffix, size] of Object.entries(LANES)) {
    const kind = suffix.endsWith("s") ? "s" : "d";
    for (const name of ["add", "sub", "mul", "div", "min", "max", "sqrt"])
      pair(name + suffix, size, kind, "", 280);
    for (let n = 0; n < 8; n++) pair(`cmp${suffix}`, size, kind, `, ${n}`, 100);
    for (const n of [0, 1, 2, 3, 4, 8, 9, 12]) pair(`round${suffix}`, size, kind, `, ${n}`, 80);
    if (suffix.startsWith("s"))
      for (const name of ["comi", "ucomi"]) pair(name + suffix, size, kind, "", 160);
    else {
      for (const name of ["hadd", "hsub", "addsub"]) pair(name + suffix, size, kind, "", 200);
      for (const n of kind === "s" ? [0xff, 0x71, 0x3a, 0xf4] : [0x33, 0x11, 0x22, 0x31])
        pair(`dp${suffix}`, size, kind, `, ${n}`, 160);
    }
  }
  // An operand that is both.
  for (const name of ["addps", "subpd", "mulss", "divsd", "minps", "cmpeqsd", "haddpd"])
    add(`${name} xmm3, xmm3`, /s$/.test(name) ? "s" : "d", "s", false, 80);

  pair("cvtss2sd", "dword", "s");
  pair("cvtsd2ss", "qword", "d", "", 320);
  pair("cvtps2pd", "qword", "s");
  pair("cvtpd2ps", "xmmword", "d", "", 320);
  for (const t of ["", "t"]) {
    pair(`cvt${t}ps2dq`, "xmmword", "s", "", 280);
    pair(`cvt${t}pd2dq`, "xmmword", "d", "", 280);
    for (const [suffix, kind] of [
      ["ss", "s"],
      ["sd", "d"],
    ])
      for (const r of ["eax", "rax"]) {
        add(`cvt${t}${suffix}2si ${r}, xmm2`, kind, kind, false, 200);
        add(`cvt${t}${suffix}2si ${r}, ${LANES[suffix]} ptr [rdi]`, kind, kind, false, 40);
      }
    for (const [suffix, kind, size] of [
      ["ps", "s", "qword"],
      ["pd", "d", "xmmword"],
    ]) {
      add(`cvt${t}${suffix}2pi mm1, xmm2`, kind, kind, true, 200);
      add(`cvt${t}${suffix}2pi mm1, ${size} ptr [rdi]`, kind, kind, true, 60);
    }
  }
  pair("cvtdq2ps", "xmmword", "i");
  pair("cvtdq2pd", "qword", "i", "", 40);
  for (const suffix of ["ss", "sd"])
    for (const [r, size] of [
      ["eax", "dword"],
      ["rax", "qword"],
    ]) {
      add(`cvtsi2${suffix} xmm1, ${r}`, "d", "i", false, 160);
      add(`cvtsi2${suffix} xmm1, ${size} ptr [rdi]`, "d", "i", false, 60);
    }
  for (const suffix of ["ps", "pd"]) {
    add(`cvtpi2${suffix} xmm1, mm2`, "d", "i", true, 160);
    add(`cvtpi2${suffix} xmm1, qword ptr [rdi]`, "d", "i", true, 60);
  }
  for (const name of ["movntps", "movntpd"]) add(`${name} xmmword ptr [rdi], xmm1`, "s", "s", false, 8);
  add("ldmxcsr dword ptr [rdi]", "s", "i", false, 60);
  add("stmxcsr dword ptr [rdi]", "s", "i", false, 20);

  const mm = (text, cases = 30) => add(text, "i", "i", true, cases);
  const MMX =
    "punpcklbw punpcklwd punpckldq packsswb pcmpgtb pcmpgtw pcmpgtd packuswb punpckhbw punpckhwd punpckhdq packssdw pcmpeqb pcmpeqw pcmpeqd psrlw psrld psrlq paddq pmullw psubusb psubusw pminub pand paddusb paddusw pmaxub pandn pavgb psraw psrad pavgw pmulhuw pmulhw psubsb psubsw pminsw por paddsb paddsw pmaxsw pxor psllw pslld psllq pmuludq pmaddwd psadbw psubb psubw psubd psubq paddb paddw paddd pshufb phaddw phaddd phaddsw pmaddubsw phsubw phsubd phsubsw psignb psignw psignd pmulhrsw pabsb pabsw pabsd";
  for (const name of MMX.split(" ")) {
    mm(`${name} mm1, mm2`);
    mm(`${name} mm3, ${name.startsWith("punpckl") ? "dword" : "qword"} ptr [rdi]`, 16);
  }
  for (const name of ["psrlw", "psrld", "psrlq", "psraw", "psrad", "psllw", "pslld", "psllq"])
    for (const n of [0, 1, 7, 15, 16, 33, 64]) mm(`${name} mm2, ${n}`, 8);
  for (const n of [0, 3, 8, 11, 16, 40]) mm(`palignr mm1, mm2, ${n}`, 12);
  mm("palignr mm1, qword ptr [rdi], 5", 12);
  for (const n of [0x1b, 0x93, 0xe0]) mm(`pshufw mm1, mm2, ${n}`, 16);
  mm("pshufw mm1, qword ptr [rdi], 0x4e", 16);
  for (const text of [
    "movd mm1, eax",
    "movq mm1, rax",
    "movd mm1, dword ptr [rdi]",
    "movd eax, mm1",
    "movq rax, mm1",
    "movd dword ptr [rdi], mm1",
    "movq mm1, mm2",
    "movq mm1, qword ptr [rdi]",
    "movq qword ptr [rdi], mm1",
    "movntq qword ptr [rdi], mm1",
    "movq2dq xmm1, mm2",
    "movdq2q mm1, xmm2",
    "maskmovq mm1, mm2",
    "pmovmskb eax, mm1",
    "pinsrw mm1, eax, 2",
    "pinsrw mm1, eax, 7",
    "pinsrw mm1, word ptr [rdi], 1",
    "pextrw eax, mm1, 2",
    "pextrw eax, mm1, 5",
    "emms",
  ])
    mm(text, 40);
  for (const text of [
    "movd dword ptr [rdi], xmm1",
    "movdqu xmmword ptr [rdi+3], xmm1",
    "movddup xmm1, qword ptr [rdi]",
    "pinsrb xmm1, byte ptr [rdi], 9",
    "pinsrd xmm1, dword ptr [rdi], 3",
    "pinsrq xmm1, qword ptr [rdi], 1",
    "pextrd dword ptr [rdi], xmm1, 3",
    "pextrq qword ptr [rdi], xmm1, 1",
    "extractps dword ptr [rdi], xmm1, 2",
    "insertps xmm1, dword ptr [rdi], 0xe8",
  ])
    add(text, "i", "i", false, 12);
  // The assembler takes shorter opcodes for these.
  for (const [name, code, x87] of [
    ["movq xmm1, qword ptr [rdi]", "0x66,0x48,0x0f,0x6e,0x0f", false],
    ["movq qword ptr [rdi], xmm1", "0x66,0x48,0x0f,0x7e,0x0f", false],
    ["movq mm1, qword ptr [rdi]", "0x48,0x0f,0x6e,0x0f", true],
    ["movq qword ptr [rdi], mm1", "0x48,0x0f,0x7e,0x0f", true],
  ])
    out.push({ text: `.byte ${code}`, name, xmm: "i", memory: "i", x87, cases: 12 });
  return out;
}

/** The forms on xmm registers once more, with ordinary states and many operands. @returns {FloatForm[]} */
export function floatDigests() {
  return floatForms()
    .filter(
      ({ text, x87 }) => !x87 && text.includes("xmm2") && !text.includes("[") && !text.startsWith("cmp"),
    )
    .map((form) => ({ ...form, digest: true, cases: 160 }));
}

/** String comparisons by every control byte. @returns {FloatForm[]} */
export function stringDigests() {
  const forms = [];
  for (let control = 0; control < 128; control++) {
    const add = (text, name = text) =>
      forms.push({ text, name, xmm: "t", memory: "t", x87: false, digest: true, cases: 20 });
    for (const name of ["pcmpistri", "pcmpistrm", "pcmpestri", "pcmpestrm"])
      add(`${name} xmm1, ${control % 3 ? "xmm2" : "xmmword ptr [rdi+3]"}, ${control}`);
    // With REX.W.
    if (control % 8 === 4) {
      add(`.byte 0x66,0x48,0x0f,0x3a,0x60,0xca,${control}`, `pcmpestrmq ${control}`);
      add(`.byte 0x66,0x48,0x0f,0x3a,0x61,0xca,${control}`, `pcmpestriq ${control}`);
      add(`.byte 0x66,0x48,0x0f,0x3a,0x60,0x0f,${control}`, `pcmpestrmq m ${control}`);
      add(`.byte 0x66,0x48,0x0f,0x3a,0x61,0x0f,${control}`, `pcmpestriq m ${control}`);
    }
  }
  return forms;
}

/** Operations on two operands, of all pairs of special numbers. @returns {FloatForm[]} */
export function floatCrosses() {
  const names = ["add", "sub", "mul", "div", "min", "max", "cmplt", "cmpunord", "cmpneq"];
  return names.flatMap((name) =>
    ["ps", "pd"].map((suffix) => {
      const xmm = suffix === "ps" ? "s" : "d";
      const cases = xmm === "s" ? 512 : 1024;
      const text = `${name}${suffix} xmm1, xmm2`;
      return { text, xmm, memory: xmm, x87: false, digest: true, cross: true, cases };
    }),
  );
}

/** A generator of numbers from 0 to below n, the same each time. */
function random(seed) {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}
/** Random programs of twelve instructions on eight xmm and eight mm registers. @returns {FloatForm[]} */
export function floatSequences() {
  const next = random(20);
  const pick = (list) => list[next(list.length)];
  const x = () => `xmm${next(8)}`;
  const m = () => `mm${next(8)}`;
  const packed = ["ps", "pd"];
  const scalar = ["ss", "sd"];
  const all = [...packed, ...scalar];
  const arithmetic = ["add", "sub", "mul", "div", "min", "max", "sqrt"];
  const memory = { ps: "xmmword", pd: "xmmword", ss: "dword", sd: "qword" };
  const makers = [
    () => `${pick(arithmetic)}${pick(all)} ${x()}, ${x()}`,
    () => `${pick(arithmetic)}${pick(all)} ${x()}, ${x()}`,
    () => `${pick(arithmetic)}${pick(scalar)} ${x()}, ${x()}`,
    () => {
      const suffix = pick(all);
      return `${pick(arithmetic)}${suffix} ${x()}, ${memory[suffix]} ptr [rdi+16]`;
    },
    () => `cmp${pick(all)} ${x()}, ${x()}, ${next(8)}`,
    () => `round${pick(all)} ${x()}, ${x()}, ${next(16)}`,
    () => `${pick(["hadd", "hsub", "addsub"])}${pick(packed)} ${x()}, ${x()}`,
    () => `${pick(["comi", "ucomi"])}${pick(scalar)} ${x()}, ${x()}`,
    () => `dp${pick(packed)} ${x()}, ${x()}, ${next(256)}`,
    () => `${pick(["cvtss2sd", "cvtsd2ss", "cvtps2pd", "cvtpd2ps", "cvtdq2ps", "cvtdq2pd"])} ${x()}, ${x()}`,
    () => `${pick(["cvtps2dq", "cvttps2dq", "cvtpd2dq", "cvttpd2dq"])} ${x()}, ${x()}`,
    () => `cvt${pick(["", "t"])}${pick(scalar)}2si ${pick(["eax", "rax", "ebx", "rcx"])}, ${x()}`,
    () => `cvtsi2${pick(scalar)} ${x()}, ${pick(["eax", "rax", "ebx", "rcx"])}`,
    () => `cvtpi2${pick(packed)} ${x()}, ${m()}`,
    () => `cvt${pick(["", "t"])}${pick(packed)}2pi ${m()}, ${x()}`,
    () =>
      `${pick(["movaps", "movss", "movsd", "unpcklps", "unpckhpd", "movhlps", "andps", "xorps"])} ${x()}, ${x()}`,
    () => `shufps ${x()}, ${x()}, ${next(256)}`,
    () =>
      `${pick(["movq2dq", "movdq2q"])} `
        .replace(/movq2dq $/, `movq2dq ${x()}, ${m()}`)
        .replace(/movdq2q $/, `movdq2q ${m()}, ${x()}`),
    () =>
      `${pick(["paddb", "psubsw", "pmaddwd", "punpckhwd", "packssdw", "pshufb", "phaddd", "pavgw", "psadbw", "pmulhrsw"])} ${m()}, ${m()}`,
    () => `${pick(["movlps", "movhps"])} qword ptr [rdi+${8 * next(8)}], ${x()}`,
    () => `${pick(["movups", "movdqu"])} ${x()}, xmmword ptr [rdi+${next(48)}]`,
  ];
  return Array.from({ length: 600 }, (_, i) => ({
    text: Array.from({ length: 12 }, () => pick(makers)()).join("; "),
    name: `sequence ${i}`,
    xmm: pick(["s", "d", "i", "d"]),
    memory: pick(["s", "d"]),
    x87: true,
    digest: true,
    cases: 8,
  }));
}
