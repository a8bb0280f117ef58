# A boot sector that writes 96 KiB to the first serial port without asking whether it may, says so on the debug console
# ("Sent."), then waits for ever for the transmitter to be empty; when it is, "Empty." and status (0x11 << 1) | 1 = 35.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
start:	ljmp 0, offset 0x7c00 + (begin - start)
begin:	cli
	cld
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7c00
	mov bp, 4
1:	mov si, 0
	mov cx, 0x6000
	mov dx, 0x3f8
	rep outsb
	dec bp
	jnz 1b
	mov si, offset 0x7c00 + (sent - start)
	call print
	mov dx, 0x3fd           # line status
2:	in al, dx
	test al, 0x40           # transmitter empty
	jz 2b
	mov si, offset 0x7c00 + (empty - start)
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
sent:	.asciz "Sent. "
empty:	.asciz "Empty."
	.org 510
	.byte 0x55, 0xaa
