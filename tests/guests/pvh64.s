# A PVH kernel (Xen's x86/HVM direct boot ABI): entered in 32-bit protected mode, it checks the start-info magic,
# switches to 64-bit mode, prints the command line on the debug console and leaves with status (0x13 << 1) | 1 = 39.
	.include "common.inc"
	pvh_note
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
	long_mode_at long_mode
fail:	leave_with 0x7f
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
	leave_with 0x13
2:	hlt
	jmp 2b
	printer
hello:	.asciz "Hello from 64-bit mode: "
	gdt_pointer 0x00af9a000000ffff, gdt
	tables_and_stack
