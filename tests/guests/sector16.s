# A boot sector in 16-bit real mode: says so on the screen (INT 10h) and on the debug console (port e9h), reads its
# second sector through INT 13h, prints that, and leaves through isa-debug-exit with status (0x10 << 1) | 1 = 33.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
start:	ljmp 0, offset 0x7c00 + (begin - start)
begin:	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	mov si, offset 0x7c00 + (hello - start)
	call print
	mov ax, 0x0201          # read one sector
	mov cx, 0x0002          # cylinder 0, sector 2
	mov dh, 0
	mov bx, 0x8000
	int 0x13
	jc fail
	mov si, 0x8000
	call print
	mov al, 0x10
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
	mov ah, 0x0e
	mov bx, 7
	int 0x10
	jmp print
1:	ret
hello:	.asciz "Hello from 16-bit mode. "
	.org 510
	.byte 0x55, 0xaa
	.asciz "Sector two was read.\r\n"
	.org 1024
