# A multiboot (version 1) kernel in 32-bit protected mode: checks the magic number, prints the command line that it was
# given on the debug console and leaves with status (0x12 << 1) | 1 = 37.
	.include "common.inc"
	.code32
	.text
	.globl _start
	.balign 4
	.long 0x1badb002, 3, -(0x1badb002 + 3)
_start:	mov esp, offset stack_top
	cmp eax, 0x2badb002
	jne fail
	test dword ptr [ebx], 4         # flags: a command line
	jz fail
	mov esi, offset hello
	call print
	mov esi, [ebx + 16]
	call print
	test dword ptr [ebx], 8         # flags: modules
	jz 1f
	cmp dword ptr [ebx + 20], 0
	je 1f
	mov edi, [ebx + 24]
	mov esi, [edi]                  # the first module's start
	call print
1:	leave_with 0x12
stop:	hlt
	jmp stop
fail:	leave_with 0x7f
	jmp stop
	printer
hello:	.asciz "Hello from 32-bit mode: "
	.bss
	.balign 16
	.skip 4096
stack_top:
