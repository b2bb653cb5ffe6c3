/**
 * Opcodes of MMX, SSE to SSE4.2, AES-NI, PCLMULQDQ and SHA. Notation as in integer-opcodes.ts, with V an xmm register
 * in ModRM.reg, W xmm or memory, U xmm in ModRM.rm, P an mm register, Q mm or memory, N mm in ModRM.rm; sizes of the
 * memory operand: w d q x (16 bytes).
 *
 * Source: Intel SDM vol. 2, appendix A tables.
 */

/** Integer operations that exist on mm (no prefix) and xmm (66) registers. */
const BOTH = `60 punpcklbw;61 punpcklwd;62 punpckldq;63 packsswb;64 pcmpgtb;65 pcmpgtw;66 pcmpgtd;67 packuswb
68 punpckhbw;69 punpckhwd;6a punpckhdq;6b packssdw;74 pcmpeqb;75 pcmpeqw;76 pcmpeqd
d1 psrlw;d2 psrld;d3 psrlq;d4 paddq;d5 pmullw;d8 psubusb;d9 psubusw;da pminub;db pand;dc paddusb;dd paddusw;de pmaxub
df pandn;e0 pavgb;e1 psraw;e2 psrad;e3 pavgw;e4 pmulhuw;e5 pmulhw;e8 psubsb;e9 psubsw;ea pminsw;eb por;ec paddsb
ed paddsw;ee pmaxsw;ef pxor;f1 psllw;f2 pslld;f3 psllq;f4 pmuludq;f5 pmaddwd;f6 psadbw;f8 psubb;f9 psubw;fa psubd
fb psubq;fc paddb;fd paddw;fe paddd
3800 pshufb;3801 phaddw;3802 phaddd;3803 phaddsw;3804 pmaddubsw;3805 phsubw;3806 phsubd;3807 phsubsw
3808 psignb;3809 psignw;380a psignd;380b pmulhrsw;381c pabsb;381d pabsw;381e pabsd`;
const both = BOTH.split(/[;\n]/)
  .map((row) => {
    const [op, name] = row.split(" ");
    // These read only half of a memory operand.
    const low = name.startsWith("punpckl") ? "Qd" : "Qq";
    return `np.0f${op} ${name} Pq,${low}\n66.0f${op} ${name} Vx,Wx`;
  })
  .join("\n");

/** Operations that exist on xmm registers only, 66 0F 38. */
const ONLY38 = `10 pblendvb;14 blendvps;15 blendvpd;17 ptest;28 pmuldq;29 pcmpeqq;2b packusdw;37 pcmpgtq;38 pminsb
39 pminsd;3a pminuw;3b pminud;3c pmaxsb;3d pmaxsd;3e pmaxuw;3f pmaxud;40 pmulld;41 phminposuw
db aesimc;dc aesenc;dd aesenclast;de aesdec;df aesdeclast`;
const only38 = ONLY38.split(/[;\n]/)
  .map((row) => `66.0f38${row.replace(" ", " ")} Vx,Wx`)
  .join("\n");

const shiftGroup = [
  ["71", "psrlw", "psraw", "psllw"],
  ["72", "psrld", "psrad", "pslld"],
]
  .map(
    ([op, right, arithmetic, left]) => `np.0f${op}/2 ${right}i Nq,Ib reg
66.0f${op}/2 ${right}i Ux,Ib reg
np.0f${op}/4 ${arithmetic}i Nq,Ib reg
66.0f${op}/4 ${arithmetic}i Ux,Ib reg
np.0f${op}/6 ${left}i Nq,Ib reg
66.0f${op}/6 ${left}i Ux,Ib reg`,
  )
  .join("\n");

/** Floating-point operations with the four usual forms. */
const arithmetic = [
  ["51", "sqrt"],
  ["58", "add"],
  ["59", "mul"],
  ["5c", "sub"],
  ["5d", "min"],
  ["5e", "div"],
  ["5f", "max"],
]
  .map(
    ([op, name]) => `np.0f${op} ${name}ps Vx,Wx
66.0f${op} ${name}pd Vx,Wx
f3.0f${op} ${name}ss Vx,Wd
f2.0f${op} ${name}sd Vx,Wq`,
  )
  .join("\n");

export const VECTOR_OPCODES = `${both}
${only38}
${shiftGroup}
${arithmetic}
np.0f10 movups Vx,Wx
66.0f10 movups Vx,Wx
f3.0f10 movss Vx,Wd
f2.0f10 movsd Vx,Wq
np.0f11 movups Wx,Vx
66.0f11 movups Wx,Vx
f3.0f11 movss Wd,Vx
f2.0f11 movsd Wq,Vx
np.0f12 movhlps Vx,Ux reg
np.0f12 movlps Vx,Mq mem
66.0f12 movlps Vx,Mq mem
f3.0f12 movsldup Vx,Wx
f2.0f12 movddup Vx,Wq
np.0f13 movlps Mq,Vx mem
66.0f13 movlps Mq,Vx mem
np.0f14 unpcklps Vx,Wx
66.0f14 punpcklqdq Vx,Wx
np.0f15 unpckhps Vx,Wx
66.0f15 punpckhqdq Vx,Wx
np.0f16 movlhps Vx,Ux reg
np.0f16 movhps Vx,Mq mem
66.0f16 movhps Vx,Mq mem
f3.0f16 movshdup Vx,Wx
np.0f17 movhps Mq,Vx mem
66.0f17 movhps Mq,Vx mem
np.0f28 movaps Vx,Wx
66.0f28 movaps Vx,Wx
np.0f29 movaps Wx,Vx
66.0f29 movaps Wx,Vx
np.0f2a cvtpi2ps Vx,Qq
66.0f2a cvtpi2pd Vx,Qq
f3.0f2a cvtsi2ss Vx,Ey
f2.0f2a cvtsi2sd Vx,Ey
np.0f2b movaps Mx,Vx mem
66.0f2b movaps Mx,Vx mem
np.0f2c cvttps2pi Pq,Wq
66.0f2c cvttpd2pi Pq,Wx
f3.0f2c cvttss2si Gy,Wd
f2.0f2c cvttsd2si Gy,Wq
np.0f2d cvtps2pi Pq,Wq
66.0f2d cvtpd2pi Pq,Wx
f3.0f2d cvtss2si Gy,Wd
f2.0f2d cvtsd2si Gy,Wq
np.0f2e ucomiss Vx,Wd
66.0f2e ucomisd Vx,Wq
np.0f2f comiss Vx,Wd
66.0f2f comisd Vx,Wq
np.0f50 movmskps Gd,Ux reg
66.0f50 movmskpd Gd,Ux reg
np.0f52 rsqrtps Vx,Wx
f3.0f52 rsqrtss Vx,Wd
np.0f53 rcpps Vx,Wx
f3.0f53 rcpss Vx,Wd
np.0f54 andps Vx,Wx
66.0f54 andps Vx,Wx
np.0f55 andnps Vx,Wx
66.0f55 andnps Vx,Wx
np.0f56 orps Vx,Wx
66.0f56 orps Vx,Wx
np.0f57 xorps Vx,Wx
66.0f57 xorps Vx,Wx
np.0f5a cvtps2pd Vx,Wq
66.0f5a cvtpd2ps Vx,Wx
f3.0f5a cvtss2sd Vx,Wd
f2.0f5a cvtsd2ss Vx,Wq
np.0f5b cvtdq2ps Vx,Wx
66.0f5b cvtps2dq Vx,Wx
f3.0f5b cvttps2dq Vx,Wx
66.0f6c punpcklqdq Vx,Wx
66.0f6d punpckhqdq Vx,Wx
np.0f6e movd Pq,Ey
66.0f6e movd Vx,Ey
np.0f6f movq Pq,Qq
66.0f6f movdqa Vx,Wx
f3.0f6f movdqu Vx,Wx
np.0f70 pshufw Pq,Qq,Ib
66.0f70 pshufd Vx,Wx,Ib
f3.0f70 pshufhw Vx,Wx,Ib
f2.0f70 pshuflw Vx,Wx,Ib
np.0f73/2 psrlqi Nq,Ib reg
66.0f73/2 psrlqi Ux,Ib reg
66.0f73/3 psrldq Ux,Ib reg
np.0f73/6 psllqi Nq,Ib reg
66.0f73/6 psllqi Ux,Ib reg
66.0f73/7 pslldq Ux,Ib reg
np.0f77 emms -
66.0f7c haddpd Vx,Wx
f2.0f7c haddps Vx,Wx
66.0f7d hsubpd Vx,Wx
f2.0f7d hsubps Vx,Wx
np.0f7e movd Ey,Pq
66.0f7e movd Ey,Vx
f3.0f7e movq Vx,Wq
np.0f7f movq Qq,Pq
66.0f7f movdqa Wx,Vx
f3.0f7f movdqu Wx,Vx
np.0fc2 cmpps Vx,Wx,Ib
66.0fc2 cmppd Vx,Wx,Ib
f3.0fc2 cmpss Vx,Wd,Ib
f2.0fc2 cmpsd Vx,Wq,Ib
np.0fc4 pinsrw Pq,Edw,Ib
66.0fc4 pinsrw Vx,Edw,Ib
np.0fc5 pextrw Gd,Nq,Ib reg
66.0fc5 pextrw Gd,Ux,Ib reg
np.0fc6 shufps Vx,Wx,Ib
66.0fc6 shufpd Vx,Wx,Ib
66.0fd0 addsubpd Vx,Wx
f2.0fd0 addsubps Vx,Wx
66.0fd6 movq Wq,Vx
f3.0fd6 movq2dq Vx,Nq reg
f2.0fd6 movdq2q Pq,Ux reg
np.0fd7 pmovmskb Gd,Nq reg
66.0fd7 pmovmskb Gd,Ux reg
66.0fe6 cvttpd2dq Vx,Wx
f3.0fe6 cvtdq2pd Vx,Wq
f2.0fe6 cvtpd2dq Vx,Wx
np.0fe7 movntq Mq,Pq mem
66.0fe7 movdqa Mx,Vx mem
f2.0ff0 movdqu Vx,Mx mem
np.0ff7 maskmovq Pq,Nq reg
66.0ff7 maskmovdqu Vx,Ux reg
66.0f3820 pmovsxbw Vx,Wq
66.0f3821 pmovsxbd Vx,Wd
66.0f3822 pmovsxbq Vx,Ww
66.0f3823 pmovsxwd Vx,Wq
66.0f3824 pmovsxwq Vx,Wd
66.0f3825 pmovsxdq Vx,Wq
66.0f382a movdqa Vx,Mx mem
66.0f3830 pmovzxbw Vx,Wq
66.0f3831 pmovzxbd Vx,Wd
66.0f3832 pmovzxbq Vx,Ww
66.0f3833 pmovzxwd Vx,Wq
66.0f3834 pmovzxwq Vx,Wd
66.0f3835 pmovzxdq Vx,Wq
np.0f38c8 sha1nexte Vx,Wx
np.0f38c9 sha1msg1 Vx,Wx
np.0f38ca sha1msg2 Vx,Wx
np.0f38cb sha256rnds2 Vx,Wx
np.0f38cc sha256msg1 Vx,Wx
np.0f38cd sha256msg2 Vx,Wx
66.0f3a08 roundps Vx,Wx,Ib
66.0f3a09 roundpd Vx,Wx,Ib
66.0f3a0a roundss Vx,Wd,Ib
66.0f3a0b roundsd Vx,Wq,Ib
66.0f3a0c blendps Vx,Wx,Ib
66.0f3a0d blendpd Vx,Wx,Ib
66.0f3a0e pblendw Vx,Wx,Ib
np.0f3a0f palignr Pq,Qq,Ib
66.0f3a0f palignr Vx,Wx,Ib
66.0f3a14 pextrb Edb,Vx,Ib
66.0f3a15 pextrw Edw,Vx,Ib
66.0f3a16 pextrd Ey,Vx,Ib
66.0f3a17 extractps Ed,Vx,Ib
66.0f3a20 pinsrb Vx,Edb,Ib
66.0f3a21 insertps Vx,Wd,Ib
66.0f3a22 pinsrd Vx,Ey,Ib
66.0f3a40 dpps Vx,Wx,Ib
66.0f3a41 dppd Vx,Wx,Ib
66.0f3a42 mpsadbw Vx,Wx,Ib
66.0f3a44 pclmulqdq Vx,Wx,Ib
66.0f3a60 pcmpestrm Vx,Wx,Ib,v
66.0f3a61 pcmpestri Vx,Wx,Ib,v
66.0f3a62 pcmpistrm Vx,Wx,Ib
66.0f3a63 pcmpistri Vx,Wx,Ib
66.0f3adf aeskeygenassist Vx,Wx,Ib
np.0f3acc sha1rnds4 Vx,Wx,Ib
`;
