# A multiboot (version 1) kernel in 32-bit protected mode: checks the magic number, prints the command line that it was
# given on the debug console and leaves with status (0x12 << 1) | 1 = 37.
	.intel_syntax noprefix
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
1:	mov al, 0x12
	out 0xf4, al
stop:	hlt
	jmp stop
fail:	mov al, 0x7f
	out 0xf4, al
	jmp stop
print:	lodsb
	test al, al
	jz 1f
	out 0xe9, al
	jmp print
1:	ret
hello:	.asciz "Hello from 32-bit mode: "
	.bss
	.balign 16
	.skip 4096
stack_top:
