# For debuggers: a PVH kernel that enters 64-bit mode and counts for ever, in code and data at fixed addresses.
	.include "common.inc"
	pvh_note
	.globl main, work, counter
_start:	mov esp, offset stack_top
	mov edi, offset tables
	mov dword ptr [edi], offset tables + 0x1000 + 3
	mov dword ptr [edi + 0x1000], offset tables + 0x2000 + 3
	mov dword ptr [edi + 0x2000], 0x83              # 0-2 MiB at their own addresses
	mov dword ptr [edi + 0x2008], 0x83              # and again at 2-4 MiB
	long_mode_at main
	gdt_pointer 0x00af9a000000ffff, gdt
	.code64
	.org 0x1000                     # 0x101000
main:	movabs r8, 0x1122334455667788
again:	call work
	jmp again
	.org 0x1040                     # 0x101040
work:	inc qword ptr [counter]         # 0x101040, 8 bytes
	mov rax, [counter]              # 0x101048
	ret
	.org 0x2000                     # 0x102000
counter: .quad 0
	tables_and_stack
