# A 64 KiB ROM for scripts/bench: COUNT times writes, then reads a byte of port 80h, and leaves through isa-debug-exit.
# The count is the four bytes at offset 0; the port the two bytes at offset 4.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
count:	.long 0
port:	.word 0x80
begin:	mov ecx, cs:[count]
	mov dx, cs:[port]
	test ecx, ecx
	jz 2f
1:	out dx, al
	in al, dx
	dec ecx
	jnz 1b
2:	xor al, al
	out 0xf4, al
3:	hlt
	jmp 3b
	.org 0xfff0
	ljmp 0xf000, offset begin
	.org 0x10000 - 1
	.byte 0
