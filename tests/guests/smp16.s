# A boot sector that starts CPU 1 by INIT and start-up IPIs, lets both count in RAM, and reports on the debug console:
# "CPU 1 ran." and status (0x11 << 1) | 1 = 35, or "CPU 1 is missing." and status 255.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
start:	ljmp 0, offset 0x7c00 + (begin - start)
begin:	cli
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	# The application processor starts at 0x8000: copy its code there.
	mov si, offset 0x7c00 + (ap - start)
	mov di, 0x8000
	mov cx, offset ap_end - ap
	cld
	rep movsb
	mov word ptr [0x9000], 0
	# Unreal mode: 32-bit addresses for the local APIC at fee00000h.
	lgdt [0x7c00 + (gdtr - start)]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp 1f
1:	mov bx, 8
	mov fs, bx
	and al, 0xfe
	mov cr0, eax
	xor bx, bx
	mov esi, 0xfee00300
	mov dword ptr fs:[esi + 0x10], 0x01000000       # ICR high: APIC id 1
	mov dword ptr fs:[esi], 0x00004500              # INIT
	mov cx, 2000
2:	in al, 0x80
	loop 2b
	mov dword ptr fs:[esi + 0x10], 0x01000000
	mov dword ptr fs:[esi], 0x00004608              # start-up, page 8
	mov cx, 2000
3:	in al, 0x80
	loop 3b
	mov dword ptr fs:[esi + 0x10], 0x01000000
	mov dword ptr fs:[esi], 0x00004608
	mov ecx, 0x00100000
4:	inc word ptr [0x9002]
	cmp word ptr [0x9000], 0x1000
	jae ok
	in al, 0x80
	dec ecx
	jnz 4b
	mov si, offset 0x7c00 + (missing - start)
	call print
	mov al, 0x7f
	out 0xf4, al
	jmp stop
ok:	mov si, offset 0x7c00 + (ran - start)
	call print
	mov al, 0x11
	out 0xf4, al
stop:	hlt
	jmp stop
print:	lodsb
	test al, al
	jz 1f
	out 0xe9, al
	jmp print
1:	ret
ap:	xor ax, ax
	mov ds, ax
1:	inc word ptr [0x9000]
	cmp word ptr [0x9000], 0x2000
	jb 1b
2:	cli
	hlt
	jmp 2b
ap_end:
	.balign 8
gdt:	.quad 0, 0x00cf92000000ffff
gdtr:	.word 15
	.long 0x7c00 + (gdt - start)
ran:	.asciz "CPU 1 ran."
missing: .asciz "CPU 1 is missing."
	.org 510
	.byte 0x55, 0xaa
