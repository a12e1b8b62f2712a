# The guest that the KVM probe boots: a Multiboot kernel (GNU Multiboot 0.6.96, loaded by QEMU's
# -kernel through SeaBIOS) that goes from protected mode to 64-bit mode with paging, runs SSE
# instructions, computes and writes to memory, then ends QEMU with status 33 through
# isa-debug-exit at port 0x501.
#
# Where KVM has to emulate because the hardware below does not really virtualise, the first SSE
# instruction ends in "KVM internal error. Suberror: 1 (emulation failure)", as a Linux kernel's
# would some seconds later.
#
# as -o probe.o probe.S && objcopy -O binary probe.o probe.bin   (a test compares)

.set BASE, 0x100000
.code32
header:
    .long 0x1BADB002                    # magic
    .long 0x00010000                    # flags: the addresses below are valid
    .long -(0x1BADB002 + 0x00010000)    # checksum
    .long BASE                          # header_addr
    .long BASE                          # load_addr
    .long BASE + end - header           # load_end_addr
    .long BASE + 0x4000                 # bss_end_addr: the page tables
    .long BASE + entry - header         # entry_addr
entry:
    cli
    movl $(BASE + 0x10000), %esp
    movl $(BASE + 0x2003), BASE + 0x1000    # PML4[0]
    movl $(BASE + 0x3003), BASE + 0x2000    # PDPT[0]
    xorl %ecx, %ecx
1:  movl %ecx, %eax                         # PD: eight pages of 2 MiB, identity
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, BASE + 0x3000(, %ecx, 8)
    incl %ecx
    cmpl $8, %ecx
    jne 1b
    movl %cr4, %eax
    orl $0x620, %eax                        # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $(BASE + 0x1000), %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx                  # EFER.LME
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax                   # PG
    movl %eax, %cr0
    lgdt BASE + gdtr - header
    ljmp $8, $(BASE + long - header)
.code64
long:
    pxor %xmm0, %xmm0
    pcmpeqd %xmm1, %xmm1
    psubd %xmm1, %xmm0
    pmuludq %xmm0, %xmm0
    cvtsi2sd %ecx, %xmm2
    sqrtsd %xmm2, %xmm2
    movl $1000000, %ecx
2:  imulq $31, %rax, %rax
    rorq $7, %rax
    decl %ecx
    jnz 2b
    movl $8, %edx
3:  movl $0x200000, %edi                    # 8 times 8 MiB
    movl $0x100000, %ecx
    movq %rdx, %rax
    rep stosq
    decl %edx
    jnz 3b
    movw $0x501, %dx
    movb $0x10, %al                         # status 0x10 * 2 + 1 = 33
    outb %al, %dx
4:  hlt
    jmp 4b
.align 8
gdt:
    .quad 0
    .quad 0x00209A0000000000                # 64-bit code
gdtr:
    .word 15
    .long BASE + gdt - header
end:
