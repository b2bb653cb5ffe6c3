/**
 * The instruction forms that the oracle runs, as assembler text, with what must be fixed in their input.
 *
 * pins: D rdi = data, I rsi = data - 64, B rbp = data + 64 (as a frame) , N rbp small (index), C rcx small, X rbx = data,
 * T rdx small; V vector registers take part.
 */
const R = {
  8: ["al", "bl", "ch", "r9b", "sil"],
  16: ["ax", "bx", "cx", "r9w"],
  32: ["eax", "ebx", "ecx", "r9d"],
  64: ["rax", "rbx", "rcx", "r9"],
};
const PTR = { 8: "byte", 16: "word", 32: "dword", 64: "qword", 128: "xmmword" };
const mem = (bits, n = 0) =>
  `${PTR[bits]} ptr ` + ["[rdi]", "[rdi+rbp*4+16]", "[rdi-32]", "[rdi+rbp*8-64]"][n % 4];
const IMM = { 8: ["5", "-128"], 16: ["0x1234", "-3"], 32: ["0x12345678", "-100"], 64: ["0x12345678", "-1"] };
const sizes = [8, 16, 32, 64];

/** @typedef {{text: string, pins: string, mode: number, cases?: number}} Form */

/** @returns {Form[]} */
export function forms() {
  /** @type {Form[]} */
  const out = [];
  const add = (text, pins = "", mode = 64, cases = 0) => out.push({ text, pins, mode, cases });
  const both = (list, name) => {
    for (const bits of list) {
      const [a, b] = R[bits];
      add(`${name} ${a}, ${b}`);
      add(`${name} ${R[bits][3]}, ${a}`);
      add(`${name} ${mem(bits)}, ${b}`, "DN");
      add(`${name} ${mem(bits, 1)}, ${R[bits][3]}`, "DN");
    }
  };
  for (const name of ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"]) {
    both(sizes, name);
    for (const bits of sizes) {
      const [a, b] = R[bits];
      add(`${name} ${b}, ${mem(bits, 2)}`, "DN");
      for (const imm of IMM[bits]) {
        add(`${name} ${a}, ${imm}`);
        add(`${name} ${b}, ${imm}`);
        add(`${name} ${mem(bits, 3)}, ${imm}`, "DN");
      }
    }
    add(`${name} ch, ah`);
    add(`${name} r9b, sil`);
  }
  both(sizes, "test");
  for (const bits of sizes) {
    const [a, b] = R[bits];
    for (const imm of IMM[bits]) {
      add(`test ${a}, ${imm}`);
      add(`test ${b}, ${imm}`);
      add(`test ${mem(bits)}, ${imm}`, "DN");
    }
    for (const name of ["inc", "dec", "neg", "not", "mul", "imul", "div", "idiv"]) {
      add(`${name} ${b}`, "", 64, name.endsWith("v") ? 200 : 0);
      add(`${name} ${mem(bits, 1)}`, "DN", 64, name.endsWith("v") ? 200 : 0);
    }
    for (const name of ["rol", "ror", "rcl", "rcr", "shl", "shr", "sar"]) {
      for (const place of [b, mem(bits)]) {
        add(`${name} ${place}, 1`, "DN");
        add(`${name} ${place}, cl`, "DN", 64, 150);
        for (const n of [3, 7, 8, 9, 16, 17, 31, 33, 63]) add(`${name} ${place}, ${n}`, "DN", 64, 16);
      }
    }
    if (bits > 8) {
      for (const name of ["shld", "shrd"]) {
        for (const place of [b, mem(bits)]) {
          add(`${name} ${place}, ${a}, cl`, "DN", 64, 150);
          for (const n of [1, 5, 15, 16, 31, 47]) add(`${name} ${place}, ${a}, ${n}`, "DN", 64, 24);
        }
      }
      add(`imul ${a}, ${b}`);
      add(`imul ${a}, ${mem(bits)}`, "DN");
      add(`imul ${a}, ${b}, 100`);
      add(`imul ${a}, ${b}, ${IMM[bits][0]}`);
      add(`imul ${a}, ${mem(bits)}, -7`, "DN");
      for (const name of ["bt", "bts", "btr", "btc"]) {
        add(`${name} ${b}, ${a}`);
        add(`${name} ${b}, 13`);
        add(`${name} ${b}, ${bits - 1}`);
        add(`${name} ${mem(bits)}, ${bits - 2}`, "DN");
        add(`${name} ${PTR[bits]} ptr [rdi], ${{ 16: "dx", 32: "edx", 64: "rdx" }[bits]}`, "DT");
      }
      for (const name of ["bsf", "bsr", "lzcnt", "tzcnt", "popcnt"]) {
        add(`${name} ${a}, ${b}`);
        add(`${name} ${a}, ${mem(bits)}`, "DN");
      }
      add(`bswap ${a}`, "", bits === 16 ? 0 : 64);
      add(`movbe ${a}, ${mem(bits)}`, "DN");
      add(`movbe ${mem(bits)}, ${b}`, "DN");
    }
    for (const name of ["xchg", "xadd", "cmpxchg"]) both([bits], name);
    add(`xadd ${a}, ${a}`);
    add(`cmpxchg ${a}, ${b}`);
    add(`cmpxchg ${mem(bits)}, ${a}`, "DN");
    add(`mov ${a}, ${b}`);
    add(`mov ${a}, ${mem(bits)}`, "DN");
    add(`mov ${mem(bits)}, ${b}`, "DN");
    for (const imm of IMM[bits]) {
      add(`mov ${b}, ${imm}`, "", 64, 4);
      add(`mov ${mem(bits)}, ${imm}`, "DN", 64, 8);
    }
  }
  add("movabs r9, 0x123456789abcdef0", "", 64, 4);
  add("mov ah, 7", "", 64, 4);
  add("mov ah, ch");
  add("xchg ax, bx");
  add("xchg eax, ebx");
  add("xchg rax, r9");
  add("xchg eax, eax");
  add("nop", "", 64, 4);
  for (const [to, from] of [
    [16, 8],
    [32, 8],
    [64, 8],
    [32, 16],
    [64, 16],
  ]) {
    for (const name of ["movzx", "movsx"]) {
      add(`${name} ${R[to][0]}, ${R[from][1]}`);
      if (to < 64 && from === 8) add(`${name} ${R[to][0]}, ah`);
      add(`${name} ${R[to][0]}, ${mem(from)}`, "DN");
    }
  }
  add("movsxd rax, ebx");
  add("movsxd rax, dword ptr [rdi]", "D");
  for (const cc of "o no b nb z nz be nbe s ns p np l nl le nle".split(" ")) {
    add(`set${cc} bl`);
    add(`set${cc} byte ptr [rdi]`, "D");
    for (const bits of [16, 32, 64]) {
      add(`cmov${cc} ${R[bits][0]}, ${R[bits][1]}`, "", 64, 32);
      add(`cmov${cc} ${R[bits][0]}, ${mem(bits)}`, "DN", 64, 32);
    }
  }
  for (const name of ["cbw", "cwde", "cdqe", "cwd", "cdq", "cqo", "lahf", "sahf", "clc", "stc", "cmc", "cld"])
    add(name);
  for (const a of [
    "rax+rbx*2+5",
    "rbx",
    "rcx*8+0x1000",
    "rax-1",
    "r9+r10*4",
    "rip+0x10",
    "eax+ebx*8+3",
    "ebx",
  ]) {
    for (const r of ["ax", "eax", "rax"]) add(`lea ${r}, [${a}]`, "", 64, 24);
  }
  for (const bits of [32, 64]) {
    const [a, b, c] = R[bits];
    const m = mem(bits);
    for (const name of ["adcx", "adox", "crc32"]) {
      add(`${name} ${a}, ${b}`);
      add(`${name} ${a}, ${m}`, "DN");
    }
    add(`crc32 ${a}, bl`);
    if (bits === 32) add(`crc32 ${a}, bx`);
    for (const name of ["andn", "pdep", "pext", "mulx"]) {
      add(`${name} ${a}, ${b}, ${c}`);
      add(`${name} ${a}, ${b}, ${m}`, "DN");
    }
    for (const name of ["bextr", "bzhi", "shlx", "shrx", "sarx"]) {
      add(`${name} ${a}, ${b}, ${c}`, "", 64, 200);
      add(`${name} ${a}, ${m}, ${c}`, "DN", 64, 100);
    }
    for (const name of ["blsr", "blsi", "blsmsk"]) {
      add(`${name} ${a}, ${b}`);
      add(`${name} ${a}, ${m}`, "DN");
    }
    add(`rorx ${a}, ${b}, 13`);
    add(`rorx ${a}, ${m}, 35`, "DN");
    add(`movnti ${m}, ${a}`, "DN");
  }
  add("cmpxchg8b qword ptr [rdi]", "DE");
  add("cmpxchg16b xmmword ptr [rdi]", "DE");
  for (const r of ["rax", "r9", "bx", "rsp"]) {
    add(`push ${r}`);
    add(`pop ${r}`);
  }
  add("push 5");
  add("push -1000");
  add("push qword ptr [rdi+8]", "D");
  add("pop qword ptr [rdi+8]", "D");
  add("pop qword ptr [rsp+8]");
  add("pop word ptr [rdi]", "D");
  add("pushfq");
  add("pushfw");
  add("leave", "B");
  add("leavew", "B");
  add("enter 16, 0", "B");
  add("enter 16, 1", "B");
  add("enter 8, 3", "B");
  add("xlatb", "X");
  for (const s of ["b", "w", "d", "q"]) {
    for (const name of ["movs", "stos", "lods", "cmps", "scas"]) {
      const pins = "DI";
      for (const down of ["", "D"]) {
        const flag = down ? "F" : "";
        add(`${name}${s}`, pins + flag, 64, 16);
        add(`rep ${name}${s}`, pins + "C" + flag, 64, 60);
        if (name === "cmps" || name === "scas") add(`repne ${name}${s}`, pins + "C" + flag, 64, 60);
      }
    }
  }
  // 32-bit code.
  for (const name of [
    "daa",
    "das",
    "aaa",
    "aas",
    "aam",
    "aad",
    "aam 7",
    "aad 7",
    "pusha",
    "popa",
    "pushaw",
    "popaw",
    ".byte 0xd6",
  ])
    add(name, "", 32, 200);
  add("aam 0", "", 32, 8);
  for (const name of ["inc", "dec"]) for (const r of ["eax", "bx"]) add(`${name} ${r}`, "", 32);
  add("push eax", "", 32);
  add("pop ebx", "", 32);
  add("push 77", "", 32);
  add("add eax, dword ptr [edi+ebp*4]", "DN", 32);
  add("add word ptr [edi], bx", "DN", 32);
  add("lea eax, [bx+si+5]", "", 32);
  add("lea ax, [bp+di]", "", 32);
  add("mul ebx", "", 32);
  add("div ebx", "", 32, 200);
  add("arpl bx, ax", "", 32);
  add("rep movsd", "DIC", 32);
  add("cmpxchg8b qword ptr [edi]", "DE", 32);
  add("enter 8, 2", "B", 32);
  add("leave", "B", 32);
  add("bound eax, qword ptr [edi]", "D", 32, 40);
  return [...out.filter((f) => f.mode !== 0), ...vectorForms()];
}

/** MMX and SSE forms. @returns {Form[]} */
function vectorForms() {
  /** @type {Form[]} */
  const out = [];
  const add = (text, pins = "V", cases = 24) => out.push({ text, pins, mode: 64, cases });
  const BOTH =
    "punpcklbw punpcklwd punpckldq packsswb pcmpgtb pcmpgtw pcmpgtd packuswb punpckhbw punpckhwd punpckhdq packssdw pcmpeqb pcmpeqw pcmpeqd psrlw psrld psrlq paddq pmullw psubusb psubusw pminub pand paddusb paddusw pmaxub pandn pavgb psraw psrad pavgw pmulhuw pmulhw psubsb psubsw pminsw por paddsb paddsw pmaxsw pxor psllw pslld psllq pmuludq pmaddwd psadbw psubb psubw psubd psubq paddb paddw paddd pshufb phaddw phaddd phaddsw pmaddubsw phsubw phsubd phsubsw psignb psignw psignd pmulhrsw pabsb pabsw pabsd";
  for (const name of BOTH.split(" ")) {
    add(`${name} xmm1, xmm2`);
    add(`${name} xmm9, xmmword ptr [rdi]`, "VD", 12);
  }
  for (const name of [
    "psrlw",
    "psrld",
    "psrlq",
    "psraw",
    "psrad",
    "psllw",
    "pslld",
    "psllq",
    "psrldq",
    "pslldq",
  ])
    for (const n of [0, 1, 7, 15, 16, 33, 64]) add(`${name} xmm2, ${n}`, "V", 6);
  const ONLY =
    "punpcklqdq punpckhqdq ptest pmuldq pcmpeqq packusdw pcmpgtq pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud pmulld phminposuw pblendvb blendvps blendvpd aesimc aesenc aesenclast aesdec aesdeclast sha1nexte sha1msg1 sha1msg2 sha256rnds2 sha256msg1 sha256msg2 unpcklps unpckhps andps andnps orps xorps movsldup movshdup movups movaps movdqa movdqu";
  for (const name of ONLY.split(" ")) {
    add(`${name} xmm1, xmm2`);
    add(`${name} xmm9, xmmword ptr [rdi]`, "VD", 12);
  }
  for (const s of ["bw", "bd", "bq", "wd", "wq", "dq"])
    for (const z of ["pmovsx", "pmovzx"]) {
      add(`${z}${s} xmm1, xmm2`, "V", 12);
      const bits = { bw: 64, bd: 32, bq: 16, wd: 64, wq: 32, dq: 64 }[s];
      add(`${z}${s} xmm1, ${PTR[bits]} ptr [rdi]`, "VD", 8);
    }
  for (const [name, imms] of Object.entries({
    pshufd: [0x1b, 0x93],
    pshufhw: [0x1b, 0x93],
    pshuflw: [0x1b, 0x93],
    shufps: [0x1b, 0x93],
    shufpd: [0, 1, 2, 3],
    blendps: [5, 10],
    blendpd: [1, 2],
    pblendw: [0x5a, 0x3c],
    palignr: [0, 5, 16, 20, 33],
    pclmulqdq: [0, 1, 16, 17],
    aeskeygenassist: [0, 1, 0x1b],
    sha1rnds4: [0, 1, 2, 3],
    mpsadbw: [0, 3, 5, 7],
    insertps: [0x10, 0x9c, 0x2f],
    pcmpestri: [0, 0x0c, 0x19, 0x44, 0x7a],
    pcmpestrm: [0, 0x4c, 0x1d, 0x46, 0x7b],
    pcmpistri: [0, 0x0c, 0x1a, 0x44, 0x78],
    pcmpistrm: [0, 0x4c, 0x1b, 0x46, 0x79],
  }))
    for (const imm of imms) {
      add(`${name} xmm1, xmm2, ${imm}`, "VT");
      if (name !== "insertps") add(`${name} xmm3, xmmword ptr [rdi], ${imm}`, "VDT", 8);
    }
  for (const text of [
    "movd xmm1, ebx",
    "movq xmm1, rbx",
    "movd ebx, xmm1",
    "movq rbx, xmm1",
    "movd xmm1, dword ptr [rdi]",
    "movq xmm1, qword ptr [rdi]",
    "movq qword ptr [rdi], xmm1",
    "movq xmm1, xmm2",
    "movss xmm1, xmm2",
    "movsd xmm1, xmm2",
    "movss xmm1, dword ptr [rdi]",
    "movsd xmm1, qword ptr [rdi]",
    "movss dword ptr [rdi], xmm1",
    "movsd qword ptr [rdi], xmm1",
    "movups xmmword ptr [rdi+3], xmm1",
    "movaps xmmword ptr [rdi], xmm1",
    "movdqu xmm1, xmmword ptr [rdi+5]",
    "movhlps xmm1, xmm2",
    "movlhps xmm1, xmm2",
    "movlps xmm1, qword ptr [rdi]",
    "movhps xmm1, qword ptr [rdi]",
    "movlps qword ptr [rdi], xmm1",
    "movhps qword ptr [rdi], xmm1",
    "movddup xmm1, xmm2",
    "movmskps eax, xmm1",
    "movmskpd eax, xmm1",
    "pmovmskb eax, xmm1",
    "pinsrw xmm1, eax, 5",
    "pinsrb xmm1, eax, 11",
    "pinsrd xmm1, eax, 2",
    "pinsrq xmm1, rax, 1",
    "pinsrw xmm1, word ptr [rdi], 7",
    "pextrw eax, xmm1, 5",
    "pextrb eax, xmm1, 11",
    "pextrd eax, xmm1, 2",
    "pextrq rax, xmm1, 1",
    "pextrb byte ptr [rdi], xmm1, 3",
    "pextrw word ptr [rdi], xmm1, 3",
    "extractps eax, xmm1, 1",
    "maskmovdqu xmm1, xmm2",
    "movntdqa xmm1, xmmword ptr [rdi]",
    "movntdq xmmword ptr [rdi], xmm1",
    "lddqu xmm1, xmmword ptr [rdi+1]",
  ])
    add(text, "VD");
  return out;
}
