# For debuggers: a PVH kernel that enters 64-bit mode and counts for ever, in code and data at fixed addresses.
	.intel_syntax noprefix
	.section .note.pvh, "a", @note
	.long 4, 4, 18                  # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long _start
	.text
	.code32
	.globl _start, main, work, counter
_start:	mov esp, offset stack_top
	mov edi, offset tables
	mov dword ptr [edi], offset tables + 0x1000 + 3
	mov dword ptr [edi + 0x1000], offset tables + 0x2000 + 3
	mov dword ptr [edi + 0x2000], 0x83              # 0-2 MiB at their own addresses
	mov dword ptr [edi + 0x2008], 0x83              # and again at 2-4 MiB
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
	.long main
	.word 8
	.balign 8
gdt:	.quad 0, 0x00af9a000000ffff
gdtr:	.word 15
	.long gdt
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
	.bss
	.balign 4096
tables:	.skip 0x3000
	.skip 4096
stack_top:
