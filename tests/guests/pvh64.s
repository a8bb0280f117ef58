# A PVH kernel (Xen's x86/HVM direct boot ABI): entered in 32-bit protected mode, it checks the start-info magic,
# switches to 64-bit mode, prints the command line on the debug console and leaves with status (0x13 << 1) | 1 = 39.
	.intel_syntax noprefix
	.section .note.pvh, "a", @note
	.long 4, 4, 18                  # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long _start
	.text
	.code32
	.globl _start
_start:	mov esp, offset stack_top
	cmp dword ptr [ebx], 0x336ec578
	jne fail
	mov edi, offset tables          # identity map of the first 2 MiB
	mov dword ptr [edi], offset tables + 0x1000 + 3
	mov dword ptr [edi + 0x1000], offset tables + 0x2000 + 3
	mov ecx, 0
1:	mov eax, ecx
	shl eax, 21
	or eax, 0x83
	mov [edi + 0x2000 + ecx * 8], eax
	inc ecx
	cmp ecx, 512
	jb 1b
	mov cr3, edi
	mov eax, cr4
	or eax, 0x20
	mov cr4, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x100
	wrmsr
	mov eax, cr0
	or eax, 0x80000001
	mov cr0, eax
	lgdt [gdtr]
	.byte 0xea                      # far jump to the 64-bit segment
	.long long_mode
	.word 8
fail:	mov al, 0x7f
	out 0xf4, al
1:	hlt
	jmp 1b
	.code64
long_mode:
	mov rsi, offset hello
	call print
	mov ebx, ebx
	mov rsi, [rbx + 24]             # cmdline_paddr
	call print
	mov rax, 0x1122334455667788     # 64-bit registers are there
	shr rax, 32
	cmp eax, 0x11223344
	jne 2f
	mov al, 0x13
	out 0xf4, al
2:	hlt
	jmp 2b
print:	lodsb
	test al, al
	jz 1f
	out 0xe9, al
	jmp print
1:	ret
hello:	.asciz "Hello from 64-bit mode: "
	.balign 8
gdt:	.quad 0, 0x00af9a000000ffff
gdtr:	.word 15
	.long gdt
	.bss
	.balign 4096
tables:	.skip 0x3000
	.skip 4096
stack_top:
