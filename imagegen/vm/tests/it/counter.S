# A boot sector that counts its boots in the second sector of its disk and tells on the serial
# port. Then it does what is typed: `r` resets, `p` prints "pong", anything else is ignored.
.code16
.org 0
start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive - start + 0x7c00
    movw $0x4200, %ax                   # extended read
    call disk
    jc failed
    movb 0x8000, %al
    incb %al
    movb %al, 0x8000
    addb $'0', %al
    movb %al, digit - start + 0x7c00
    movw $0x4300, %ax                   # extended write
    call disk
    jc failed
    movw $(counted - start + 0x7c00), %si
    call print
    jmp listen
failed:
    movw $(error - start + 0x7c00), %si
    call print
listen:
    movw $0x3fd, %dx                    # line status
    inb %dx, %al
    testb $1, %al
    jz listen
    movw $0x3f8, %dx
    inb %dx, %al
    cmpb $'r', %al
    je reset
    cmpb $'p', %al
    jne listen
    movw $(pong - start + 0x7c00), %si
    call print
    jmp listen
reset:
    movw $0xcf9, %dx                    # reset control of the chipset
    movb $6, %al
    outb %al, %dx
    jmp reset
disk:
    movb drive - start + 0x7c00, %dl
    movw $(packet - start + 0x7c00), %si
    sti
    int $0x13
    ret
print:
    movw $0x3f8, %dx
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  ret
drive: .byte 0
counted: .ascii "boot "
digit: .asciz "? counted\r\n"
error: .asciz "disk error\r\n"
pong: .asciz "pong\r\n"
.align 4
packet: .byte 16, 0
    .word 1, 0x8000, 0                  # one sector to 0000:8000
    .quad 1                             # LBA
.org 510
    .word 0xaa55
