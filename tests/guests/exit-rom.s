# A 64 KiB ROM whose first instruction leaves through isa-debug-exit (port f4h) with status 1 (code 0 -> 0*2+1).
	.intel_syntax noprefix
	.code16
	.text
	.org 0xfff0
	xor al, al
	out 0xf4, al
1:	hlt
	jmp 1b
	.org 0x10000 - 1
	.byte 0
