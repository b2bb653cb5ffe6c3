/*
 * Runs each form of forms.S on this machine's processor with pseudo-random inputs and writes what changed.
 * Linux, x86-64. The inputs are a function of form and case number; packages/hardware/x86/test/native.ts computes the
 * same. Output, little-endian, per form: u8 mode, u8 length, u16 pins, u16 cases, u8 name length, name, code; per case:
 * u8 vector (255 none), and if none u16 changed registers, u64 each, u16 flags, u64 changed memory words, u64 each, and
 * with pin V u16 changed xmm registers, 16 bytes each.
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
#define WINDOW 512

enum { PIN_D = 1, PIN_I = 2, PIN_B = 4, PIN_N = 8, PIN_C = 16, PIN_X = 32, PIN_T = 64, PIN_V = 128, PIN_E = 256, PIN_F = 512 };

struct state {
  uint64_t in[16], inFlags;      /* 0, 128 */
  uint64_t out[16], outFlags;    /* 136, 264 */
  uint64_t savedRsp, entry;      /* 272, 280 */
  uint32_t farOffset; uint16_t farSelector, pad; /* 288 */
  uint64_t back;                 /* 296 */
  uint64_t pad2[2];
  uint8_t xmmIn[16][16];         /* 320 */
  uint8_t xmmOut[16][16];        /* 576 */
};
static struct state *const state = (struct state *)(uintptr_t)STATE;
extern uint8_t forms[];
void enter64(void);
void enter32(void);
extern char back64[], back32[];

#define LOADX(n) "movdqu " #n "*16+0x30000140, %xmm" #n "\n"
#define SAVEX(n) "movdqu %xmm" #n ", " #n "*16+0x30000240\n"
#define ALLX(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)
#define LOADREGS \
  "mov 0x30000000, %rax\n mov 0x30000008, %rcx\n mov 0x30000010, %rdx\n mov 0x30000018, %rbx\n" \
  "mov 0x30000028, %rbp\n mov 0x30000030, %rsi\n mov 0x30000038, %rdi\n mov 0x30000040, %r8\n" \
  "mov 0x30000048, %r9\n mov 0x30000050, %r10\n mov 0x30000058, %r11\n mov 0x30000060, %r12\n" \
  "mov 0x30000068, %r13\n mov 0x30000070, %r14\n mov 0x30000078, %r15\n"
#define PROLOGUE \
  "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n" \
  "mov %rsp, 0x30000110\n" ALLX(LOADX) "pushq 0x30000080\n popfq\n" LOADREGS "mov 0x30000020, %rsp\n"
#define EPILOGUE \
  "mov %rax, 0x30000088\n mov %rcx, 0x30000090\n mov %rdx, 0x30000098\n mov %rbx, 0x300000a0\n" \
  "mov %rsp, 0x300000a8\n mov %rbp, 0x300000b0\n mov %rsi, 0x300000b8\n mov %rdi, 0x300000c0\n" \
  "mov %r8, 0x300000c8\n mov %r9, 0x300000d0\n mov %r10, 0x300000d8\n mov %r11, 0x300000e0\n" \
  "mov %r12, 0x300000e8\n mov %r13, 0x300000f0\n mov %r14, 0x300000f8\n mov %r15, 0x30000100\n" \
  "mov 0x30000110, %rsp\n pushfq\n popq 0x30000108\n cld\n" ALLX(SAVEX) \
  "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
__asm__(".text\n.globl enter64\nenter64:\n" PROLOGUE "jmp *0x30000118\n.globl back64\nback64:\n" EPILOGUE
        ".globl enter32\nenter32:\n" PROLOGUE "ljmp *0x30000120\n");

static uint32_t seed;
static uint32_t rnd(void) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed * 0x9e3779b1u;
}
static const uint32_t special[8] = {0, 1, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fffffff, 0x80000000};
static uint64_t value(void) {
  uint32_t kind = rnd() >> 29, low = rnd(), high = rnd();
  switch (kind) {
    case 0: return special[low >> 29];
    case 1: return (uint64_t)(int64_t)-(int32_t)special[low >> 29];
    case 2: return (uint64_t)special[low >> 29] << 32 | special[high >> 29];
    case 3: return low >> 24;
    case 4: return (uint64_t)(int64_t)(int32_t)low;
    case 5: return low;
    default: return (uint64_t)high << 32 | low;
  }
}

static sigjmp_buf recover;
static volatile int vector;
static void handler(int sig, siginfo_t *info, void *context) {
  ucontext_t *u = context;
  (void)info;
  (void)sig;
  vector = (int)u->uc_mcontext.gregs[REG_TRAPNO];
  siglongjmp(recover, 1);
}
static void put(const void *p, size_t n) { fwrite(p, 1, n, stdout); }

int main(void) {
  for (uint32_t at = CODE; at <= STATE; at += 0x10000000)
    if (mmap((void *)(uintptr_t)at, 0x2000, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return 1;
  stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&alt, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGTRAP};
  for (unsigned i = 0; i < 5; i++) sigaction(signals[i], &action, 0);
  __asm__ volatile("mov %0, %%ds\n mov %0, %%es" ::"r"(0x2b));

  const uint8_t *f = forms;
  for (uint32_t number = 0; *f; number++) {
    uint8_t mode = f[0], length = f[1], nameLength = f[6];
    uint16_t pins, cases;
    memcpy(&pins, f + 2, 2);
    memcpy(&cases, f + 4, 2);
    const uint8_t *name = f + 7, *code = name + nameLength;
    f = code + length;
    put(&mode, 1); put(&length, 1); put(&pins, 2); put(&cases, 2); put(&nameLength, 1);
    put(name, nameLength);
    put(code, length);
    uint8_t *to = (uint8_t *)(uintptr_t)CODE;
    memcpy(to, code, length);
    if (mode == 64) {
      memcpy(to + length, "\xff\x24\x25\x28\x01\x00\x30", 7); /* jmp *STATE+296 */
      state->back = (uint64_t)(uintptr_t)back64;
      state->entry = CODE;
    } else {
      uint32_t target = (uint32_t)(uintptr_t)back64;
      to[length] = 0xea;
      memcpy(to + length + 1, &target, 4);
      memcpy(to + length + 5, "\x33\x00", 2);
      state->farOffset = CODE;
      state->farSelector = 0x23;
    }
    for (uint32_t i = 0; i < cases; i++) {
      seed = (number * 1000 + i) * 2654435761u + 1;
      if (!seed) seed = 1;
      rnd(); rnd();
      for (int n = 0; n < 16; n++) state->in[n] = mode == 64 ? value() : (uint32_t)value();
      uint32_t flagBits = rnd() & 0x8d5;
      static uint64_t before[WINDOW / 8];
      for (int n = 0; n < WINDOW / 8; n++) before[n] = value();
      state->in[4] = CENTER - 0x60;
      if (pins & PIN_D) state->in[7] = CENTER;
      if (pins & PIN_I) state->in[6] = CENTER - 64 + (rnd() & 7);
      if (pins & PIN_B) state->in[5] = CENTER + 64;
      if (pins & PIN_N) state->in[5] = rnd() & 7;
      if (pins & PIN_C) state->in[1] = rnd() % 9;
      if (pins & PIN_X) state->in[3] = CENTER - 128;
      if (pins & PIN_T) state->in[2] = (uint64_t)(int64_t)((int32_t)(rnd() & 1023) - 512);
      if (pins & PIN_E) {
        if (rnd() & 1) { before[WINDOW / 16] = mode == 64 && length == 4 ? state->in[0] : (state->in[0] & 0xffffffffu) | state->in[2] << 32; before[WINDOW / 16 + 1] = state->in[2]; }
      }
      if (pins & PIN_F) flagBits |= 0x400;
      state->inFlags = 0x202 | flagBits;
      if (pins & PIN_V) for (int n = 0; n < 16; n++) for (int k = 0; k < 2; k++) { uint64_t v = value(); memcpy(state->xmmIn[n] + 8 * k, &v, 8); }
      uint64_t *window = (uint64_t *)(uintptr_t)(CENTER - WINDOW / 2);
      memcpy(window, before, WINDOW);
      vector = 255;
      if (!sigsetjmp(recover, 1)) {
        if (mode == 64) enter64(); else enter32();
      }
      __asm__ volatile("cld");
      uint8_t v = (uint8_t)vector;
      put(&v, 1);
      if (v != 255) continue;
      uint16_t changed = 0;
      for (int n = 0; n < 16; n++) {
        if (mode == 32) state->out[n] = n < 8 ? (uint32_t)state->out[n] : state->in[n];
        if (state->out[n] != state->in[n]) changed |= 1u << n;
      }
      put(&changed, 2);
      for (int n = 0; n < 16; n++) if (changed >> n & 1) put(&state->out[n], 8);
      uint16_t flags = (uint16_t)state->outFlags;
      put(&flags, 2);
      uint64_t words = 0;
      for (int n = 0; n < WINDOW / 8; n++) if (window[n] != before[n]) words |= 1ull << n;
      put(&words, 8);
      for (int n = 0; n < WINDOW / 8; n++) if (words >> n & 1) put(&window[n], 8);
      if (pins & PIN_V) {
        uint16_t x = 0;
        for (int n = 0; n < 16; n++) if (memcmp(state->xmmIn[n], state->xmmOut[n], 16)) x |= 1u << n;
        put(&x, 2);
        for (int n = 0; n < 16; n++) if (x >> n & 1) put(state->xmmOut[n], 16);
      }
    }
  }
  uint8_t end = 0;
  put(&end, 1);
  return 0;
}
