/*
 * A small guest that passes through all modes: real, protected, long, compatibility, ring 3, interrupts, faults,
 * SYSCALL, self-modifying code. It writes what it saw to quadwords from RESULTS and halts. Loaded at BASE, entered in
 * real mode at BASE with CS = 0.
 */
.set BASE, 0x1000
.set RESULTS, 0x8000
.set PML4, 0x10000
.set IDT, 0x14000
.set TSS, 0x15000
.set STACK0, 0x18000
.set STACK3, 0x1a000

.macro result n, reg
    mov \reg, RESULTS + 8 * \n
.endm

.text
.code16
start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7000, %sp
    movw $0x1234, RESULTS
    push %ds
    pushw $0x4321
    pop %bx
    pop %es
    mov %bx, RESULTS + 2
    /* A real-mode interrupt through the IVT. */
    movw $(BASE + real_handler - start), 0x21 * 4
    movw $0, 0x21 * 4 + 2
    int $0x21
    lgdtl BASE + gdtr - start
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $8, $(BASE + protected - start)
real_handler:
    movw $0x5678, RESULTS + 4
    iret

.code32
protected:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7000, %esp
    /* One GiB identity-mapped by 2 MiB pages, user-accessible. */
    mov $PML4, %edi
    xor %eax, %eax
    mov $0x3000 / 4, %ecx
    rep stosl
    movl $(PML4 + 0x1007), PML4
    movl $(PML4 + 0x2007), PML4 + 0x1000
    mov $PML4 + 0x2000, %edi
    mov $0x87, %eax
    mov $512, %ecx
1:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    loop 1b
    mov $0x620, %eax            /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x101, %eax             /* LME, SCE */
    wrmsr
    mov %cr0, %eax
    or $0x80010000, %eax        /* PG, WP */
    mov %eax, %cr0
    ljmp $24, $(BASE + long - start)

.code64
long:
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $STACK0, %rsp
    /* IDT: every vector to its stub. */
    mov $IDT, %rdi
    lea stubs(%rip), %rsi
    xor %ecx, %ecx
1:  mov %rsi, %rax
    mov %ax, (%rdi)
    movw $24, 2(%rdi)
    movw $0xee00, 4(%rdi)
    shr $16, %rax
    mov %ax, 6(%rdi)
    shr $16, %rax
    mov %rax, 8(%rdi)
    add $16, %rdi
    add $16, %rsi
    inc %ecx
    cmp $64, %ecx
    jne 1b
    movb $1, IDT + 8 * 16 + 4   /* double faults on IST1 */
    lidt idtr(%rip)
    movq $STACK0, TSS + 4
    movq $STACK0 - 0x1000, TSS + 36
    mov $56, %ax
    ltr %ax
    lea 1f(%rip), %r15
    int3
1:  result 1, %r14
    /* A page fault: not present, read, supervisor. */
    lea 2f(%rip), %r15
    mov 0x40000000, %rax
2:  mov %cr2, %rax
    result 2, %rax
    result 3, %r14              /* vector and error code */
    /* Divide error. */
    lea 3f(%rip), %r15
    xor %ecx, %ecx
    div %ecx
3:  result 4, %r14
    /* Non-canonical address. */
    lea 4f(%rip), %r15
    mov $0x800000000000, %rax
    mov (%rax), %rax
4:  result 5, %r14
    /* Self-modifying code: the immediate of the next MOV. */
    xor %ebx, %ebx
5:  movl $0x11, 6f + 1(%rip)
6:  mov $0x22, %eax
    add %eax, %ebx
    movb $0x33, 7f + 1(%rip)
    jmp 7f
7:  mov $0x44, %eax
    add %eax, %ebx
    result 6, %rbx
    /* Compatibility mode and back. */
    ljmp *compat_target(%rip)
.code32
compat:
    mov $16, %eax               /* a null DS faults here */
    mov %eax, %ds
    mov $-1, %eax
    inc %eax
    dec %eax
    mov %eax, RESULTS + 8 * 7
    movl $0, RESULTS + 8 * 7 + 4
    ljmp $24, $(BASE + back - start)
.code64
back:
    /* FS base by MSR, SWAPGS. */
    mov $0xc0000100, %ecx
    mov $RESULTS, %eax
    xor %edx, %edx
    wrmsr
    movq $0x77, %fs:8 * 8
    mov $0xc0000102, %ecx
    mov $RESULTS, %eax
    wrmsr
    swapgs
    movq $0x99, %gs:8 * 9
    /* Single step: the trap comes after the instruction that follows. */
    lea 8f(%rip), %r15
    pushfq
    orl $0x100, (%rsp)
    popfq
    nop
8:  result 10, %r14
    /* Ring 3 and SYSCALL. */
    mov $0xc0000081, %ecx
    xor %eax, %eax
    mov $(32 << 16 | 24), %edx  /* SYSRET: CS 32 + 16, SS 32 + 8; SYSCALL: CS 24, SS 32 */
    wrmsr
    inc %ecx
    lea system_call(%rip), %rax
    xor %edx, %edx
    wrmsr
    mov $0xc0000084, %ecx
    mov $0x200, %eax
    wrmsr
    pushq $(40 | 3)
    pushq $STACK3
    pushq $0x202
    pushq $(48 | 3)
    lea user(%rip), %rax
    push %rax
    iretq
user:
    mov %cs, %ax
    movzwl %ax, %eax
    result 11, %rax
    syscall
    result 13, %rax
    mov %ss, %ax
    movzwl %ax, %eax
    result 14, %rax
    lea 9f(%rip), %r15
    hlt                         /* #GP in ring 3 */
9:  result 15, %r14
    lea 10f(%rip), %r15
    mov $0xbadc0de, %rbp
    int $0x30
10: ud2
system_call:
    result 12, %r11
    mov $0x5ca11, %eax
    sysretq

/* Common handler: R14 = vector << 32 | error code << 8 | RPL of CS; goes on at R15 with the interrupted privilege. */
common:
    mov (%rsp), %r14
    shl $32, %r14
    mov 8(%rsp), %r13
    shl $8, %r13
    or %r13, %r14
    mov 24(%rsp), %r13
    and $3, %r13
    or %r13, %r14
    cmpq $0x30, (%rsp)
    je finish
    add $16, %rsp
    mov %r15, (%rsp)
    andl $~0x100, 16(%rsp)
    iretq
finish:
    mov %rsp, %rax
    result 16, %rax
    result 17, %rbp
    hlt

.balign 16
stubs:
.set vector, 0
.rept 64
    .balign 16
    .if (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
    .else
    push $0
    .endif
    push $vector
    jmp common
    .set vector, vector + 1
.endr

.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 8: 32-bit code */
    .quad 0x00cf93000000ffff    /* 16: data */
    .quad 0x00af9b000000ffff    /* 24: 64-bit code */
    .quad 0x00cf93000000ffff    /* 32: data for SYSCALL */
    .quad 0x00cff3000000ffff    /* 40: user data */
    .quad 0x00affb000000ffff    /* 48: user code */
    .quad 0x0000890150000067    /* 56: TSS at 0x15000 */
    .quad 0
gdt_end:
gdtr:
    .word gdt_end - gdt - 1
    .long BASE + gdt - start
    .long 0
idtr:
    .word 64 * 16 - 1
    .quad IDT
compat_target:
    .long BASE + compat - start
    .word 8
