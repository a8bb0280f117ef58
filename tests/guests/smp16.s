# A boot sector that starts CPU 1 by INIT and start-up IPIs, lets both count in RAM, and reports on the debug console:
# "CPU 1 ran." and status (0x11 << 1) | 1 = 35, or "CPU 1 is missing." and status 255.
	.include "common.inc"
	boot_sector
	# The application processor starts at 0x8000: copy its code there.
	mov si, offset 0x7c00 + (ap - start)
	mov di, 0x8000
	mov cx, offset ap_end - ap
	cld
	rep movsb
	mov word ptr [0x9000], 0
	# Unreal mode: 32-bit addresses for the local APIC at fee00000h.
	unreal [0x7c00 + (gdtr - start)]
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
	say missing
	leave_with 0x7f
	jmp stop
ok:	say ran
	leave_with 0x11
stop:	hlt
	jmp stop
	printer
ap:	xor ax, ax
	mov ds, ax
1:	inc word ptr [0x9000]
	cmp word ptr [0x9000], 0x2000
	jb 1b
2:	cli
	hlt
	jmp 2b
ap_end:
	gdt_pointer 0x00cf92000000ffff, 0x7c00 + (gdt - start)
ran:	.asciz "CPU 1 ran."
missing: .asciz "CPU 1 is missing."
	boot_signature
