# A boot sector that writes its second disk (81h) through INT 13h for ever: write n puts the number n, repeated, into
# the sector n * 129 modulo 128 Ki, so that a 64 MiB image allocates a cluster with nearly every write. After every 16th
# it has the disk's write cache flushed and reports '.' on the debug console; a failed write is '!', and the end.
	.include "common.inc"
	boot_sector
	sti
	xor ebx, ebx
next:	mov eax, ebx
	mov di, 0x8000
	mov cx, 128
	rep stosd
	imul eax, ebx, 129
	and eax, 0x1ffff
	mov [0x7c00 + (lba - start)], eax
	mov si, offset 0x7c00 + (packet - start)
	mov ax, 0x4300                  # extended write, no verify
	mov dl, 0x81
	push ebx
	int 0x13
	pop ebx
	jc fail
	inc ebx
	test bl, 15
	jnz next
	cli                             # FLUSH CACHE (ATA8-ACS 7.24) to the slave of the first channel
	mov dx, 0x3f6
	mov al, 2                       # without an interrupt
	out dx, al
	mov dx, 0x1f6
	mov al, 0xb0
	out dx, al
	inc dx
	mov al, 0xe7
	out dx, al
1:	in al, dx
	test al, 0x80
	jnz 1b
	test al, 1
	jnz fail
	mov dx, 0x3f6
	mov al, 0
	out dx, al
	sti
	mov al, '.'
	out 0xe9, al
	jmp next
fail:	mov al, '!'
	out 0xe9, al
1:	hlt
	jmp 1b
	.balign 4
packet:	.byte 16, 0
	.word 1, 0x8000, 0              # sectors, offset, segment
lba:	.long 0, 0
	boot_signature
	.org 1024
