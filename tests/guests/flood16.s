# A boot sector that writes 96 KiB to the first serial port without asking whether it may, says so on the debug console
# ("Sent."), then waits for ever for the transmitter to be empty; when it is, "Empty." and status (0x11 << 1) | 1 = 35.
	.include "common.inc"
	boot_sector
	mov bp, 4
1:	mov si, 0
	mov cx, 0x6000
	mov dx, 0x3f8
	rep outsb
	dec bp
	jnz 1b
	say sent
	mov dx, 0x3fd           # line status
2:	in al, dx
	test al, 0x40           # transmitter empty
	jz 2b
	say empty
	leave_with 0x11
stop:	hlt
	jmp stop
	printer
sent:	.asciz "Sent. "
empty:	.asciz "Empty."
	boot_signature
