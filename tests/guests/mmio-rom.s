# A 64 KiB ROM for scripts/bench: COUNT times reads, then writes four bytes of the HPET's registers at fed00000h in
# 32-bit protected mode, and leaves through isa-debug-exit. The count is the four bytes at offset 0.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
count:	.long 0
begin:	cli
	data32 lgdt cs:[gdtr]           # all 32 bits of the base
	mov eax, cr0
	or al, 1
	mov cr0, eax
	.byte 0x66, 0xea                # far jump to 32-bit code
	.long 0xffff0000 + (main - count)
	.word 8
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff    # accessed already: a ROM cannot be marked
gdtr:	.word 23
	.long 0xffff0000 + (gdt - count)
	.code32
main:	mov ax, 16
	mov ds, ax
	mov esi, 0xfed00000
	mov ecx, ds:[0xffff0000]
	test ecx, ecx
	jz 2f
1:	mov eax, [esi + 0x10]
	mov [esi + 0x20], eax           # general interrupt status: writing zeros does nothing
	dec ecx
	jnz 1b
2:	xor al, al
	out 0xf4, al
3:	hlt
	jmp 3b
	.code16
	.org 0xfff0
	ljmp 0xf000, offset begin
	.org 0x10000 - 1
	.byte 0
