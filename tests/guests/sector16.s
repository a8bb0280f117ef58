# A boot sector in 16-bit real mode: says so on the screen (INT 10h) and on the debug console (port e9h), reads its
# second sector through INT 13h, prints that, and leaves through isa-debug-exit with status (0x10 << 1) | 1 = 33.
	.include "common.inc"
	boot_sector
	sti
	say hello
	mov ax, 0x0201          # read one sector
	mov cx, 0x0002          # cylinder 0, sector 2
	mov dh, 0
	mov bx, 0x8000
	int 0x13
	jc fail
	mov si, 0x8000
	call print
	leave_with 0x10
stop:	hlt
	jmp stop
fail:	leave_with 0x7f
	jmp stop
print:	lodsb
	test al, al
	jz 1f
	out 0xe9, al
	mov ah, 0x0e
	mov bx, 7
	int 0x10
	jmp print
1:	ret
hello:	.asciz "Hello from 16-bit mode. "
	boot_signature
	.asciz "Sector two was read.\r\n"
	.org 1024
