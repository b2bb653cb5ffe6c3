/**
 * Opcodes of the general-purpose and system instructions.
 *
 * Source: Intel SDM vol. 2, appendix A (opcode maps) and the instruction pages. One row a form:
 *
 *     [prefix.]opcode[/reg[/rm]] name operands flags
 *
 * prefix: np none, 66, f3, f2 mandatory; without it any. /reg is ModRM.reg, /rm ModRM.rm (register form only).
 * operands: the manual's letters (E G I J M O S C D and Z for the register in the opcode's low bits) with a size:
 * b w d q, v 16/32/64 by operand size, z 16/32, y 32/64, s sign-extended byte (Is); v or z alone tells the operand
 * size to an instruction without operands. flags: i64 not in 64-bit mode, o64 only there, d64 64-bit by default there,
 * f64 always 64-bit there, L may be locked, reg / mem only that form, x a range of 8 registers at the opcode's end.
 */
const ARITHMETIC = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"];

const arithmetic = ARITHMETIC.map((name, i) => {
  const op = (n: number) => (i * 8 + n).toString(16).padStart(2, "0");
  const lock = name === "cmp" ? "" : "L";
  return `
${op(0)} ${name} Eb,Gb ${lock}
${op(1)} ${name} Ev,Gv ${lock}
${op(2)} ${name} Gb,Eb
${op(3)} ${name} Gv,Ev
${op(4)} ${name} AL,Ib
${op(5)} ${name} rAX,Iz
80/${i} ${name} Eb,Ib ${lock}
81/${i} ${name} Ev,Iz ${lock}
82/${i} ${name} Eb,Ib ${lock} i64
83/${i} ${name} Ev,Is ${lock}`;
}).join("");

const CONDITIONS = "o no b nb z nz be nbe s ns p np l nl le nle".split(" ");
const conditions = CONDITIONS.map((cc, i) => {
  const n = i.toString(16);
  return `
7${n} j${cc} Jb f64
0f8${n} j${cc} Jz f64
0f9${n} set${cc} Eb
0f4${n} cmov${cc} Gv,Ev`;
}).join("");

const SHIFTS = ["rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar"];
const shifts = SHIFTS.map(
  (name, i) => `
c0/${i} ${name} Eb,Ib
c1/${i} ${name} Ev,Ib
d0/${i} ${name} Eb,1
d1/${i} ${name} Ev,1
d2/${i} ${name} Eb,CL
d3/${i} ${name} Ev,CL`,
).join("");

export const INTEGER_OPCODES = `${arithmetic}${conditions}${shifts}
06 pushseg 0,v i64
07 popseg 0,v i64
0e pushseg 1,v i64
16 pushseg 2,v i64
17 popseg 2,v i64
1e pushseg 3,v i64
1f popseg 3,v i64
0fa0 pushseg 4,v d64
0fa1 popseg 4,v d64
0fa8 pushseg 5,v d64
0fa9 popseg 5,v d64
27 daa - i64
2f das - i64
37 aaa - i64
3f aas - i64
d4 aam Ib i64
d5 aad Ib i64
40 inc Zv x i64
48 dec Zv x i64
50 push Zv x d64
58 pop Zv x d64
60 pusha z i64
61 popa z i64
62 bound Gv,Mv i64 mem
63 arpl Ew,Gw i64
63 movsxd Gv,Ez o64
68 push Iz d64
69 imul Gv,Ev,Iz
6a push Is d64
6b imul Gv,Ev,Is
6c insb -
6d ins z
6e outsb -
6f outs z
84 test Eb,Gb
85 test Ev,Gv
86 xchg Eb,Gb L
87 xchg Ev,Gv L
88 mov Eb,Gb
89 mov Ev,Gv
8a mov Gb,Eb
8b mov Gv,Ev
8c movfromseg Ev,Sw
8d lea Gv,M mem
8e movtoseg Sw,Ew
8f/0 pop Ev d64
f3.90 pause -
90 xchgz Zv x
98 cbw v
99 cwd v
9a callfar Ap,v i64
9b wait -
9c pushf v d64
9d popf v d64
9e sahf -
9f lahf -
a0 mov AL,Ob
a1 mov rAX,Ov
a2 mov Ob,AL
a3 mov Ov,rAX
a4 movsb -
a5 movs v
a6 cmpsb -
a7 cmps v
a8 test AL,Ib
a9 test rAX,Iz
aa stosb -
ab stos v
ac lodsb -
ad lods v
ae scasb -
af scas v
b0 mov Zb,Ib x
b8 mov Zv,Iv x
c2 ret Iw,v f64
c3 ret v f64
c4 les Gv,Mp i64 mem
c5 lds Gv,Mp i64 mem
c6/0 mov Eb,Ib
c7/0 mov Ev,Iz
c8 enter Iw,Ib2,v d64
c9 leave v d64
ca retf Iw,v
cb retf v
cc int3 -
cd int Ib
ce into - i64
cf iret v
d6 salc - i64
d7 xlat -
e0 loopne Jb f64
e1 loope Jb f64
e2 loop Jb f64
e3 jcxz Jb f64
e4 in AL,Ib
e5 in eAX,Ib
e6 out Ib,AL
e7 out Ib,eAX
e8 call Jz f64
e9 jmp Jz f64
ea jmpfar Ap,v i64
eb jmp Jb f64
ec in AL,DX
ed in eAX,DX
ee out DX,AL
ef out DX,eAX
f1 int1 -
f4 hlt -
f5 cmc -
f6/0 test Eb,Ib
f6/1 test Eb,Ib
f6/2 not Eb L
f6/3 neg Eb L
f6/4 mul Eb
f6/5 imul Eb
f6/6 div Eb
f6/7 idiv Eb
f7/0 test Ev,Iz
f7/1 test Ev,Iz
f7/2 not Ev L
f7/3 neg Ev L
f7/4 mul Ev
f7/5 imul Ev
f7/6 div Ev
f7/7 idiv Ev
f8 clc -
f9 stc -
fa cli -
fb sti -
fc cld -
fd std -
fe/0 inc Eb L
fe/1 dec Eb L
ff/0 inc Ev L
ff/1 dec Ev L
ff/2 call Ev f64
ff/3 callfar Mp,v mem
ff/4 jmp Ev f64
ff/5 jmpfar Mp,v mem
ff/6 push Ev d64
0f00/0 sldt Ev
0f00/1 str Ev
0f00/2 lldt Ew
0f00/3 ltr Ew
0f00/4 verr Ew
0f00/5 verw Ew
0f01/0 sgdt M mem
0f01/1 sidt M mem
0f01/2 lgdt M,v mem
0f01/3 lidt M,v mem
0f01/4 smsw Ev
0f01/6 lmsw Ew
0f01/7 invlpg M mem
0f01/0/1 vmcall - reg
0f01/0/2 vmlaunch - reg
0f01/0/3 vmresume - reg
0f01/0/4 vmxoff - reg
66.0f01/1/4 tdcall - reg
66.0f01/1/7 seamcall - reg
0f01/1/0 monitor - reg
0f01/1/1 mwait - reg
0f01/1/2 clac - reg
0f01/1/3 stac - reg
0f01/2/0 xgetbv - reg
0f01/2/1 xsetbv - reg
0f01/5/6 rdpkru - reg
0f01/5/7 wrpkru - reg
np.0f01/5/0 serialize - reg
0f01/7/0 swapgs - reg o64
0f01/7/1 rdtscp - reg
0f02 lar Gv,Ew
0f03 lsl Gv,Ew
0f05 syscall -
0f06 clts -
0f07 sysret v
0f08 invd -
f3.0f09 wbnoinvd -
0f09 wbinvd -
0f0b ud2 -
0f0d nop Ev
0f18 nop Ev
0f19 nop Ev
0f1a nop Ev
0f1b nop Ev
0f1c nop Ev
0f1d nop Ev
f3.0f1e/7/2 nop - reg
f3.0f1e/7/3 nop - reg
0f1e nop Ev
0f1f nop Ev
0f20 movfromcr Rd,Cd
0f21 movfromdr Rd,Dd
0f22 movtocr Cd,Rd
0f23 movtodr Dd,Rd
0f30 wrmsr -
0f31 rdtsc -
0f32 rdmsr -
0f33 rdpmc -
0f34 sysenter -
0f35 sysexit v
np.0f37 getsec -
0fa2 cpuid -
0fa3 bt Ev,Gv
0fab bts Ev,Gv L
0fb3 btr Ev,Gv L
0fbb btc Ev,Gv L
0fba/4 bti Ev,Ib
0fba/5 btsi Ev,Ib L
0fba/6 btri Ev,Ib L
0fba/7 btci Ev,Ib L
0fa4 shld Ev,Gv,Ib
0fa5 shldcl Ev,Gv
0fac shrd Ev,Gv,Ib
0fad shrdcl Ev,Gv
0faa rsm -
np.0fae/0 fxsave M mem
np.0fae/1 fxrstor M mem
np.0fae/2 ldmxcsr Md mem
np.0fae/3 stmxcsr Md mem
np.0fae/4 xsave M mem
np.0fae/5 xrstor M mem
np.0fae/6 xsaveopt M mem
np.0fae/7 clflush M mem
66.0fae/7 clflushopt M mem
66.0fae/6 clwb M mem
np.0fae/5 lfence - reg
np.0fae/6 mfence - reg
np.0fae/7 sfence - reg
f3.0fae/0 rdfsbase Ry reg o64
f3.0fae/1 rdgsbase Ry reg o64
f3.0fae/2 wrfsbase Ry reg o64
f3.0fae/3 wrgsbase Ry reg o64
f3.0fae/6 umonitor Ry reg
f2.0fae/6 umwait Rd reg
66.0fae/6 tpause Rd reg
0faf imul Gv,Ev
0fb0 cmpxchg Eb,Gb L
0fb1 cmpxchg Ev,Gv L
0fb2 lss Gv,Mp mem
0fb4 lfs Gv,Mp mem
0fb5 lgs Gv,Mp mem
0fb6 movzx Gv,Eb
0fb7 movzx Gv,Ew
0fbe movsx Gv,Eb
0fbf movsx Gv,Ew
f3.0fb8 popcnt Gv,Ev
0fb9 ud1 Gv,Ev
0fff ud0 Gv,Ev
f3.0fbc tzcnt Gv,Ev
0fbc bsf Gv,Ev
f3.0fbd lzcnt Gv,Ev
0fbd bsr Gv,Ev
0fc0 xadd Eb,Gb L
0fc1 xadd Ev,Gv L
0fc3 movnti My,Gy mem
np.0fc7/1 cmpxchg8b My2 mem L
66.0fc7/1 cmpxchg8b My2 mem L
f3.0fc7/1 cmpxchg8b My2 mem L
f2.0fc7/1 cmpxchg8b My2 mem L
np.0fc7/3 xrstors M mem
np.0fc7/4 xsavec M mem
np.0fc7/5 xsaves M mem
0fc7/6 rdrand Rv reg
f3.0fc7/7 rdpid Rq reg
0fc7/7 rdseed Rv reg
0fc8 bswap Zv x
66.0f3880 invept Gq,M mem
66.0f3881 invvpid Gq,M mem
66.0f3882 invpcid Gq,M mem
f2.0f38f0 crc32 Gy,Eb
f2.0f38f1 crc32 Gy,Ev
0f38f0 movbe Gv,Mv mem
0f38f1 movbe Mv,Gv mem
66.0f38f6 adcx Gy,Ey
f3.0f38f6 adox Gy,Ey
66.0f38f8 movdir64b Gq,M mem
np.0f38f9 movdiri My,Gy mem
np.v0f38f2 andn Gy,By,Ey
np.v0f38f3/1 blsr By,Ey
np.v0f38f3/2 blsmsk By,Ey
np.v0f38f3/3 blsi By,Ey
np.v0f38f5 bzhi Gy,Ey,By
f3.v0f38f5 pext Gy,By,Ey
f2.v0f38f5 pdep Gy,By,Ey
f2.v0f38f6 mulx Gy,By,Ey
np.v0f38f7 bextr Gy,Ey,By
66.v0f38f7 shlx Gy,Ey,By
f3.v0f38f7 sarx Gy,Ey,By
f2.v0f38f7 shrx Gy,Ey,By
f2.v0f3af0 rorx Gy,Ey,Ib
`;
