/*
 * Runs x87 instructions on this machine's processor from pseudo-random states and writes what they made of them.
 * Linux, x86-64. Reads forms from standard input, each: u8 length, code, u8 kind, u16 cases, u8 length of the name,
 * name; a length of 0 ends them. The states are a function of form and case number;
 * packages/hardware/x86/test/native-x87.ts computes the same.
 *
 * Output, little-endian: per form what was read; per case u8 vector (255 none), and if none u16 control, status, tag
 * word, u8 mask of changed physical registers, 10 bytes each, u16 flags, u16 AX, u16 mask of changed quadwords of
 * memory, 8 bytes each. The state comes from FNSAVE, which raises nothing: what an unmasked exception leaves is seen
 * before it is reported.
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
#define WINDOW 128

struct __attribute__((packed)) image {
  uint16_t cw, p0, sw, p1, tw, p2;
  uint32_t fip;
  uint16_t fcs, fop;
  uint32_t fdp;
  uint16_t fds, p3;
  uint8_t st[8][10];
};
struct state {
  struct image in;    /* 0 */
  uint8_t pad[20];
  struct image out;   /* 128 */
  uint8_t pad2[20];
  uint64_t inFlags, outFlags, outRax, back; /* 256 264 272 280 */
};
static struct state *const state = (struct state *)(uintptr_t)STATE;
void enter(void);
extern char back[];
__asm__(".text\n.globl enter\nenter:\n push %rbx\n push %rbp\n"
        "mov $0x20000000, %edi\n mov $0x1234, %eax\n frstor 0x30000000\n"
        "pushq 0x30000100\n popfq\n mov $0x10000000, %edx\n jmp *%rdx\n.globl back\nback:\n"
        "pushfq\n popq 0x30000108\n mov %rax, 0x30000110\n fnsave 0x30000080\n cld\n pop %rbp\n pop %rbx\n ret\n");

static uint32_t seed;
static uint32_t rnd(void) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed * 0x9e3779b1u;
}
struct real { uint32_t low, high, exponent; };
/* An 80-bit operand: all classes, and bit patterns at which rounding turns. */
static struct real real(void) {
  uint32_t r = rnd(), low = rnd(), high = rnd(), exponent, sign = r & 1;
  int special = 0;
  switch (r >> 4 & 7) {
    case 0: exponent = 0x3fff + (r >> 8 & 15) - 8; break;
    case 1: exponent = 0x3fff + (r >> 8 & 127) - 64; break;
    case 2: exponent = 0x3fff + (r >> 8 & 63); break;
    case 3: exponent = 0x3fff + (r >> 8 & 2047) - 1024; break;
    case 4: exponent = 0x3fff + (r >> 8 & 511) - 256; break;
    case 5: exponent = r & 0x100 ? r >> 9 & 127 : 0x7ffe - (r >> 9 & 127); break;
    case 6: exponent = r >> 8 & 0x7fff; break;
    default: exponent = 0; special = 1; break;
  }
  if (special) {
    switch (r >> 8 & 15) {
      case 0: case 14: high = low = 0; break;
      case 1: exponent = 0x7fff; high = 0x80000000; low = 0; break;
      case 2: exponent = 0x7fff; high = 0xc0000000; low = 0; break;
      case 3: exponent = 0x7fff; high |= 0xc0000000; break;
      case 4: exponent = 0x7fff; high = 0x80000000 | (high & 0x3fffffff); low |= 1; break;
      case 5: high &= 0x7fffffff; break;
      case 6: high = 0; low = (low & 0xff) | 1; break;
      case 7: high |= 0x80000000; break;
      case 8: exponent = r >> 12 & 0x7fff; high &= 0x7fffffff; break;
      case 9: exponent = 0x7fff; high = low = 0; break;
      case 10: exponent = 0x7fff; high &= 0x7fffffff; break;
      case 11: exponent = 0x3fff; high = low = 0; break;
      case 12: exponent = 1; high = 0x80000000; low = 0; break;
      case 13: exponent = 0x7ffe; high = low = 0xffffffff; break;
      default: exponent = 0x3fff; high = 0x80000000; low = 0; break;
    }
  } else {
    switch (r >> 1 & 7) {
      case 0: high = low = 0; break;
      case 1: high = low = 0xffffffff; break;
      case 2: high &= 0xffffff00; low = 0; break;
      case 3: low &= 0xfffff800; break;
      case 4: high = 0; low &= 0xff; break;
      case 5: low = (low & 0xfffff800) | 0x400; break;
      default: break;
    }
    high |= 0x80000000;
  }
  return (struct real){low, high, exponent | sign << 15};
}
/* A number in a memory format of so many bits of exponent and fraction. */
static uint64_t ieee(int exponentBits, int fractionBits) {
  uint32_t r = rnd(), low = rnd(), high = rnd();
  uint32_t all = (1u << exponentBits) - 1, bias = all >> 1, exponent;
  uint64_t top = 1ull << (fractionBits - 1), mask = top * 2 - 1, fraction = ((uint64_t)high << 32 | low) & mask;
  switch (r >> 20 & 3) {
    case 0: fraction = 0; break;
    case 1: fraction &= mask << (fractionBits - 8) & mask; break;
    default: break;
  }
  switch (r >> 1 & 7) {
    case 0:
      exponent = 0;
      switch (r >> 8 & 7) {
        case 0: fraction = 0; break;
        case 1: exponent = all; fraction = 0; break;
        case 2: exponent = all; fraction |= top; break;
        case 3: exponent = all; fraction = (fraction & (top - 1)) | 1; break;
        case 4: fraction = ((uint64_t)high << 32 | low) & mask; break;
        case 5: fraction = (low & 15) + 1; break;
        case 6: exponent = all - 1; fraction = mask; break;
        default: exponent = 1; fraction = 0; break;
      }
      break;
    case 1: case 2: case 3: exponent = bias + (r >> 8 & 15) - 8; break;
    case 4: exponent = bias + (r >> 8 & 63) - 32; break;
    default: exponent = r >> 8 & all; break;
  }
  return (uint64_t)(r & 1) << (exponentBits + fractionBits) | (uint64_t)(exponent & all) << fractionBits | fraction;
}
static uint64_t integer(int bits) {
  uint32_t r = rnd(), low = rnd(), high = rnd();
  uint64_t v;
  switch (r & 7) {
    case 0: v = 0; break;
    case 1: v = 1ull << (bits - 1); break;
    case 2: v = (uint64_t)(r >> 3 & 1) - 1; break;
    case 3: v = (r >> 3 & 15) - 8ull; break;
    case 4: v = (uint64_t)(int64_t)(int32_t)low; break;
    default: v = (uint64_t)high << 32 | low; break;
  }
  return v;
}
static uint16_t controlWord(void) {
  uint32_t r = rnd(), pc = r >> 8 & 7;
  uint32_t masks = r & 3 ? 0x3f : r >> 2 & 0x3f;
  return masks | 0x40 | (pc < 4 ? 3 : pc < 6 ? 2 : 0) << 8 | (r >> 11 & 3) << 10 | ((r >> 13 & 7) == 0) << 12;
}
static uint16_t statusWord(void) {
  uint32_t r = rnd();
  uint32_t exceptions = (r >> 7 & 15) == 0 ? r >> 11 & 0x7f : 0;
  return (r & 7) << 11 | (r >> 3 & 7) << 8 | (r >> 6 & 1) << 14 | exceptions;
}
static uint16_t tagWord(void) {
  uint32_t r = rnd(), tag = 0;
  for (int n = 0; n < 8; n++) if ((r >> 4 * n & 15) == 0) tag |= 3u << 2 * n;
  return tag;
}
static void putReal(uint8_t *at, struct real v) {
  memcpy(at, &v.low, 4);
  memcpy(at + 4, &v.high, 4);
  memcpy(at + 8, &v.exponent, 2);
}
/* Most operands of functions with a narrow domain should lie in it. */
static void narrow(struct real *x, uint8_t kind) {
  uint32_t r = rnd();
  if ((r & 7) == 0) return;
  uint32_t sign = x->exponent & 0x8000, e = r >> 8;
  x->high |= 0x80000000;
  switch (kind) {
    case 't': x->exponent = sign | (0x3fff - 20 + (e & 127) % 86); break;
    case 'x': x->exponent = sign | (0x3ffe - (e & 3 ? e >> 2 & 7 : e >> 2 & 127)); break;
    case 'y': x->exponent = r & 0x40 ? 0x3ffe + (e & 1) : e & 3 ? 0x3fff - 32 + (e >> 2 & 63) : e >> 2 & 0x7fff; break;
    case 'z': x->exponent = sign | (0x3ffd - (e & 3 ? e >> 2 & 7 : e >> 2 & 127)); break;
    default: break;
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
    if (mmap((void *)(uintptr_t)at, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return 1;
  stack_t alt = {.ss_sp = malloc(65536), .ss_size = 65536};
  sigaltstack(&alt, 0);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGTRAP};
  for (unsigned i = 0; i < 5; i++) sigaction(signals[i], &action, 0);
  state->back = (uint64_t)(uintptr_t)back;

  static uint32_t number, i; /* not in registers: longjmp */
  for (number = 0;; number++) {
    int length = getchar();
    if (length <= 0) break;
    uint8_t *to = (uint8_t *)(uintptr_t)CODE;
    struct __attribute__((packed)) { uint8_t kind; uint16_t cases; uint8_t nameLength; } form;
    char name[256];
    if (fread(to, 1, length, stdin) != (size_t)length || fread(&form, sizeof form, 1, stdin) != 1 || fread(name, 1, form.nameLength, stdin) != form.nameLength) return 1;
    uint8_t kind = form.kind, head = (uint8_t)length;
    put(&head, 1); put(to, length); put(&form, sizeof form); put(name, form.nameLength);
    memcpy(to + length, "\xff\x24\x25\x18\x01\x00\x30", 7); /* jmp *STATE+280 */
    for (i = 0; i < form.cases; i++) {
      seed = (number * 8192 + i) * 2654435761u + 1;
      if (!seed) seed = 1;
      rnd(); rnd();
      struct image *in = &state->in;
      memset(in, 0, sizeof *in);
      in->cw = controlWord();
      in->sw = statusWord();
      in->tw = tagWord();
      in->fip = 0x11223344; in->fcs = 0; in->fop = 0x567; in->fdp = 0x55667788; in->fds = 0;
      struct real st[8];
      for (int n = 0; n < 8; n++) st[n] = real();
      uint32_t relation = rnd();
      if ((relation & 7) == 0) {
        st[1] = st[0];
        st[1].low ^= relation >> 4 & 1;
        st[1].exponent ^= (relation >> 5 & 1) << 15;
        if (relation & 0x40) st[1].exponent = (st[1].exponent & 0x8000) | ((st[1].exponent + (relation >> 8 & 63) - 32) & 0x7fff);
      }
      if (kind == 'P' || kind == 't') {
        /* Pushes: the register above the top is mostly empty. */
        int above = ((in->sw >> 11) - 1) & 7;
        in->tw = (in->tw & ~(3u << 2 * above)) | (relation >> 28 ? 3u << 2 * above : 0);
      }
      narrow(&st[0], kind);
      for (int n = 0; n < 8; n++) putReal(in->st[n], st[n]);
      uint32_t flags = rnd() & 0x8d5;
      state->inFlags = 0x202 | flags;
      static uint64_t before[WINDOW / 8];
      memset(before, 0, WINDOW);
      if (to[length - 1] < 0xc0) for (int n = 0; n < WINDOW / 8; n++) { before[n] = rnd(); before[n] |= (uint64_t)rnd() << 32; }
      uint8_t *m = (uint8_t *)before;
      uint64_t v = 0;
      struct real x;
      switch (kind) {
        case 's': v = ieee(8, 23); memcpy(m, &v, 4); break;
        case 'd': v = ieee(11, 52); memcpy(m, &v, 8); break;
        case 'e': x = real(); putReal(m, x); break;
        case '2': v = integer(16); memcpy(m, &v, 2); break;
        case '4': v = integer(32); memcpy(m, &v, 4); break;
        case '8': v = integer(64); memcpy(m, &v, 8); break;
        case 'b': {
          uint32_t bad = rnd();
          if (bad & 7) for (int n = 0; n < 9; n++) m[n] = (m[n] >> 4) % 10 << 4 | (m[n] & 15) % 10;
          if (bad & 8) m[9] &= 0x80;
          break;
        }
        case 'n': case 'o': {
          /* An environment, of 32 or 16 bits, perhaps with registers behind it. */
          int step = kind == 'n' ? 4 : 2, at = kind == 'n' ? 28 : 14;
          uint16_t w[3];
          w[0] = controlWord(); w[1] = statusWord(); w[2] = tagWord();
          for (int n = 0; n < 3; n++) memcpy(m + n * step, &w[n], 2);
          for (int n = 0; n < 8; n++) { x = real(); putReal(m + at + 10 * n, x); }
          break;
        }
        default: break;
      }
      uint64_t *window = (uint64_t *)(uintptr_t)DATA;
      memcpy(window, before, WINDOW);
      vector = 255;
      if (!sigsetjmp(recover, 1)) enter();
      __asm__ volatile("cld; fninit");
      uint8_t w = (uint8_t)vector;
      put(&w, 1);
      if (w != 255) continue;
      struct image *out = &state->out;
      put(&out->cw, 2); put(&out->sw, 2); put(&out->tw, 2);
      uint8_t changed = 0;
      int inTop = in->sw >> 11 & 7, outTop = out->sw >> 11 & 7;
      for (int n = 0; n < 8; n++) if (memcmp(out->st[(n - outTop) & 7], in->st[(n - inTop) & 7], 10)) changed |= 1u << n;
      put(&changed, 1);
      for (int n = 0; n < 8; n++) if (changed >> n & 1) put(out->st[(n - outTop) & 7], 10);
      uint16_t ax = (uint16_t)state->outRax, f = (uint16_t)state->outFlags, words = 0;
      put(&f, 2); put(&ax, 2);
      for (int n = 0; n < WINDOW / 8; n++) if (window[n] != before[n]) words |= 1u << n;
      put(&words, 2);
      for (int n = 0; n < WINDOW / 8; n++) if (words >> n & 1) put(&window[n], 8);
    }
  }
  putchar(0);
  return 0;
}
