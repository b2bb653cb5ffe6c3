/*
 * Runs each form of float-forms.S on this machine's processor with many operands, in all states of MXCSR and the x87
 * tags, and writes what changed. Linux, x86-64. The inputs are a function of form and case number;
 * packages/hardware/x86/test/native-float.ts computes the same. Output, little-endian, per form: u8 code length,
 * u8 kind of the xmm registers, u8 kind of memory, u8 options, u16 cases, u8 name length, name, code; with the option
 * "digest" a u32 over what follows of all cases, else per case:
 * u8 vector (255 none), u64 changed words of the FXSAVE image, u16 changed words of memory (8), then rax, rbx, rcx and
 * flags; then these words. The first three words of the image but for FCW, FSW and the tags, and everything behind the
 * xmm registers, are left out.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define CODE 0x10000000u
#define DATA 0x20000000u
#define STATE 0x30000000u
#define CENTER (DATA + 0x800)
#define FXWORDS 52

struct state {
  uint64_t in[512 / 8];          /* 0 */
  uint64_t out[512 / 8];         /* 512 */
  uint64_t rax, rbx, rcx, flags; /* 1024 */
  uint64_t orax, orbx, orcx, oflags; /* 1056 */
  uint64_t rsp, back;            /* 1088, 1096 */
};
static struct state *const state = (struct state *)(uintptr_t)STATE;
extern uint8_t forms[];
void enter64(void);
extern char back64[];
__asm__(".text\n.globl enter64\nenter64:\n"
        "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, 0x30000440\n fxrstor64 0x30000000\n mov $0x20000800, %edi\n pushq 0x30000418\n popfq\n"
        "mov 0x30000400, %rax\n mov 0x30000408, %rbx\n mov 0x30000410, %rcx\n mov %rcx, %rdx\n"
        "jmp *code\n.globl back64\nback64:\n"
        "mov %rax, 0x30000420\n mov %rbx, 0x30000428\n mov %rcx, 0x30000430\n mov 0x30000440, %rsp\n"
        "pushfq\n popq 0x30000438\n cld\n fxsave64 0x30000200\n fninit\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        ".data\ncode: .quad 0x10000000\n.text\n");

static uint32_t seed;
static uint32_t rnd(void) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed * 0x9e3779b1u;
}
static const uint32_t special32[16] = {0, 1, 0x7fffff, 0x800000, 0x800001, 0x7f7fffff, 0x7f800000, 0x7f800001,
  0x7fbfffff, 0x7fc00000, 0x7fffffff, 0x3f800000, 0x3f000000, 0x4b800000, 0x4f000000, 0x5f000000};
static const uint32_t special64[16][2] = {{0, 0}, {0, 1}, {0xfffff, ~0u}, {0x100000, 0}, {0x100000, 1}, {0x7fefffff, ~0u},
  {0x7ff00000, 0}, {0x7ff00000, 1}, {0x7ff7ffff, ~0u}, {0x7ff80000, 0}, {0x7fffffff, ~0u}, {0x3ff00000, 0},
  {0x3fe00000, 0}, {0x43400000, 0}, {0x41e00000, 0}, {0x43e00000, 0}};
/* Where numbers of interest begin, and how many bits above are random. */
static const uint32_t ranges32[16][2] = {{0}, {0}, {0}, {0}, {0x00800000, 0x0fffffff}, {0x70000000, 0x0f7fffff},
  {0x3f000000, 0x00ffffff}, {0}, {0x4a000000, 0x06ffffff}, {0x5e000000, 0x01ffffff}, {0}, {0x3e800000, 0x01ffffff},
  {0x33000000, 0x0fffffff}, {0x1f000000, 0x03ffffff}, {0x5f000000, 0x00ffffff}, {0}};
static const uint32_t ranges64[16][2] = {{0}, {0}, {0}, {0}, {0x00100000, 0x05ffffff}, {0x7c000000, 0x03efffff},
  {0x3fe00000, 0x001fffff}, {0}, {0x41a00000, 0x009fffff}, {0x43a00000, 0x005fffff}, {0}, {0x38000000, 0x00ffffff},
  {0x36900000, 0x01ffffff}, {0x1ff00000, 0x007fffff}, {0x47e00000, 0x001fffff}, {0}};
static uint32_t single(void) {
  uint32_t kind = rnd() >> 28, r = rnd(), sign = r & 0x80000000u;
  switch (kind) {
    case 0: case 1: return sign | special32[r & 15];
    case 2: return sign | (r & 0x7fffff);
    case 3: return r | 0x7f800000;
    case 7: return sign | ((0x3f800000 + ((r & 31) << 23)) | (r >> 8 & 7) << 20);
    case 10: return sign | (r & 0x7f800000) | (r & 1 ? 0x7fffff : 0);
    case 15: return r;
    default: return sign | (ranges32[kind][0] + (r & ranges32[kind][1]));
  }
}
static uint64_t twice(void) {
  uint32_t kind = rnd() >> 28, high = rnd(), low = rnd(), sign = high & 0x80000000u;
  switch (kind) {
    case 0: case 1: low = special64[high & 15][1]; high = sign | special64[high & 15][0]; break;
    case 2: high = sign | (high & 0xfffff); break;
    case 3: high |= 0x7ff00000; break;
    case 7: high = sign | ((0x3ff00000 + ((high & 31) << 20)) | (high >> 8 & 7) << 17); low = 0; break;
    case 10: high = sign | (high & 0x7ff00000) | (low & 1 ? 0xfffff : 0); low = low & 1 ? ~0u : 0; break;
    case 15: break;
    default: high = sign | (ranges64[kind][0] + (high & ranges64[kind][1]));
  }
  return (uint64_t)high << 32 | low;
}
static uint32_t integer(void) {
  uint32_t kind = rnd() >> 29, r = rnd();
  switch (kind) {
    case 0: return r & 31;
    case 1: return -(r & 31);
    case 2: return 0x7ffffff0 + (r & 31);
    case 3: return r & 0xffff00ff;
    case 4: return r & 0x01ffffff;
    default: return r;
  }
}
/* Text of few letters, some with the top bit, and ends. */
static uint32_t letters(void) {
  uint32_t r = rnd(), text = 0;
  for (int n = 0; n < 4; n++) {
    uint32_t pick = r >> (8 * n) & 15;
    text |= (pick == 0 ? 0 : pick < 12 ? 0x61 + (pick & 3) : 0x80 + (pick & 3)) << (8 * n);
  }
  return text;
}
static uint64_t element(uint8_t kind) {
  if (kind == 't') {
    uint32_t first = letters();
    return (uint64_t)letters() << 32 | first;
  }
  if (kind == 'd') return twice();
  uint32_t low = kind == 's' ? single() : integer();
  uint32_t high = kind == 's' ? single() : integer();
  return (uint64_t)high << 32 | low;
}
/* Like another element, now and then. */
static uint64_t related(uint8_t kind, uint64_t other) {
  uint64_t value = element(kind);
  uint32_t how = rnd();
  if (how >> 29) return value;
  return other ^ ((uint64_t)(how & 0x80000003u) << 32 | (how & 0x80000003u & (kind == 'd' ? 3 : ~0u)));
}
static uint32_t control(void) {
  uint32_t r = rnd(), masks = (r >> 20 & 7) < 5 ? 63 : (r >> 20 & 7) < 6 ? 0 : r >> 24 & 63;
  uint32_t mxcsr = masks << 7 | (r & 3) << 13;
  if ((r >> 2 & 3) == 0) mxcsr |= 0x40;
  if ((r >> 4 & 3) == 0) mxcsr |= 0x8000;
  if (r >> 6 & 1) mxcsr |= 0x20;
  if ((r >> 7 & 3) == 0) mxcsr |= r >> 9 & 63;
  return mxcsr;
}

static sigjmp_buf recover;
static volatile int vector;
static void handler(int sig, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  (void)info;
  (void)sig;
  vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
  memcpy(state->out, u->uc_mcontext.fpregs, 512);
  state->orax = (uint64_t)u->uc_mcontext.gregs[REG_RAX];
  state->orbx = (uint64_t)u->uc_mcontext.gregs[REG_RBX];
  state->orcx = (uint64_t)u->uc_mcontext.gregs[REG_RCX];
  state->oflags = (uint64_t)u->uc_mcontext.gregs[REG_EFL];
  siglongjmp(recover, 1);
}
/*
 * Options of a form: the x87 state varies; only a digest is written, exceptions are masked and results usually inexact;
 * the operands are all pairs of special numbers, first without and then with DAZ and FTZ.
 */
enum { X87 = 1, DIGEST = 2, CROSS = 4 };
static int digesting;
static uint32_t digest;
static void put(const void *p, size_t n) {
  if (!digesting) fwrite(p, 1, n, stdout);
  else for (size_t i = 0; i < n; i++) digest = (digest ^ ((const uint8_t *)p)[i]) * 16777619u;
}

int main(void) {
  for (uint32_t at = CODE; at <= STATE; at += 0x10000000)
    if (mmap((void *)(uintptr_t)at, 0x2000, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return 1;
  stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&alt, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGTRAP};
  for (unsigned i = 0; i < 5; i++) sigaction(signals[i], &action, 0);

  const uint8_t *f = forms;
  for (uint32_t number = 0; *f; number++) {
    uint8_t length = f[0], xmm = f[1], memory = f[2], options = f[3], nameLength = f[6];
    uint16_t cases;
    memcpy(&cases, f + 4, 2);
    const uint8_t *name = f + 7, *code = name + nameLength;
    digesting = 0;
    put(f, 7);
    put(name, nameLength);
    put(code, length);
    f = code + length;
    uint8_t *to = (uint8_t *)(uintptr_t)CODE;
    memcpy(to, code, length);
    memcpy(to + length, "\xff\x24\x25\x48\x04\x00\x30", 7); /* jmp *STATE+1096 */
    state->back = (uint64_t)(uintptr_t)back64;
    digesting = options & DIGEST;
    digest = 2166136261u;
    for (uint32_t i = 0; i < cases; i++) {
      seed = (number * 1000 + i) * 2654435761u + 12345;
      if (!seed) seed = 1;
      rnd(); rnd();
      memset(state->in, 0, 512);
      uint64_t *x = state->in + 20, window[8];
      for (int n = 0; n < 4; n++) x[n] = element(xmm);
      for (int n = 4; n < 8; n++) x[n] = related(xmm, x[n - 2]);
      if (digesting) for (int n = 8; n < 16; n++) x[n] = element(xmm);
      for (int n = 0; n < 8; n++) window[n] = memory == xmm ? related(memory, x[2 + (n & 1)]) : element(memory);
      for (int n = 0; n < 8; n++) { uint64_t v = element('i'); state->in[4 + 2 * n] = v; state->in[5 + 2 * n] = rnd() & 0xffff; }
      uint32_t mxcsr = control(), r = rnd();
      if (digesting) mxcsr = i & 3 ? 0x1fa0 : mxcsr | 0x1f80;
      if (options & CROSS) {
        uint32_t lanes = xmm == 's' ? 4 : 2, rounds = 1024 / lanes;
        mxcsr = i < rounds ? 0x1f80 : 0x9fc0;
        for (uint32_t lane = 0; lane < lanes; lane++) {
          uint32_t n = (i % rounds) * lanes + lane;
          for (int k = 0; k < 2; k++) {
            uint32_t pick = k ? n >> 5 : n & 31, sign = pick >> 4 << 31, *to = (uint32_t *)(x + 2 + 2 * k);
            if (xmm == 's') to[lane] = special32[pick & 15] | sign;
            else { to[2 * lane] = special64[pick & 15][1]; to[2 * lane + 1] = special64[pick & 15][0] | sign; }
          }
        }
      }
      uint64_t fcw = 0x37f, fsw = 0, tags = 0;
      if (options & X87) {
        fsw = (r & 7) << 11;
        tags = r >> 3 & 0xff;
        if ((r >> 11 & 15) == 0 && !digesting) { fcw = 0x37e; fsw |= 0x8081; }
      }
      state->in[0] = fcw | fsw << 16 | tags << 32;
      state->in[3] = mxcsr;
      state->rax = element('i');
      state->rbx = element('i');
      state->rcx = element('i');
      state->flags = 0x202 | (rnd() & 0x8d5);
      uint64_t *at = (uint64_t *)(uintptr_t)CENTER;
      memcpy(at, window, 64);
      vector = 255;
      if (!sigsetjmp(recover, 1)) enter64();
      uint8_t v = (uint8_t)vector;
      put(&v, 1);
      uint64_t changed = 0;
      state->out[0] = (state->out[0] & 0xffffffffffull);
      state->out[3] = (uint32_t)state->out[3];
      for (int n = 0; n < FXWORDS; n++) {
        if (n >= 4 && n < 20 && n & 1) state->out[n] &= 0xffff;
        if (n != 1 && n != 2 && state->out[n] != state->in[n]) changed |= 1ull << n;
      }
      uint16_t others = 0;
      for (int n = 0; n < 8; n++) if (at[n] != window[n]) others |= 1u << n;
      uint64_t *from = &state->rax, *got = &state->orax;
      got[3] = (got[3] & 0x8d5) | 0x202;
      for (int n = 0; n < 4; n++) if (from[n] != got[n]) others |= 256u << n;
      put(&changed, 8);
      put(&others, 2);
      for (int n = 0; n < FXWORDS; n++) if (changed >> n & 1) put(&state->out[n], 8);
      for (int n = 0; n < 8; n++) if (others >> n & 1) put(&at[n], 8);
      for (int n = 0; n < 4; n++) if (others >> (8 + n) & 1) put(&got[n], 8);
    }
    if (digesting) fwrite(&digest, 4, 1, stdout);
  }
  digesting = 0;
  uint8_t end = 0;
  put(&end, 1);
  return 0;
}
