# A boot sector that reads and writes pseudo-random ports with pseudo-random values and widths for ever, half of them
# below 400h. It leaves out the ports that end or restart a machine as they should: 64h and 92h (reset), b2h (SMI),
# cf9h (reset), 604h (sleep control). Every 256 accesses it writes '.' to the debug console.
# The four bytes at offset 4 are the generator's start.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
start:	jmp begin
	.org 4
seed:	.long 0x12345678
begin:	cli
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7c00
	mov ebx, [0x7c00 + (seed - start)]
	xor bp, bp
next:	imul ebx, ebx, 1664525          # a linear congruence modulo 2^32
	add ebx, 1013904223
	mov edx, ebx
	shr edx, 12
	test ebx, 0x800000
	jz 1f
	and dx, 0x3ff
1:	cmp dx, 0x64
	je next
	cmp dx, 0x92
	je next
	cmp dx, 0xb2
	je next
	mov cx, dx
	and cx, 0xfffc
	cmp cx, 0xf4
	je next
	cmp cx, 0xcf8
	je config
	cmp cx, 0x604
	je next
	cmp cx, 0x600
	je next
	imul ebx, ebx, 1664525
	add ebx, 1013904223
	mov eax, ebx
	mov ecx, ebx
	shr ecx, 29
	jz w1
	dec cx
	jz w2
	dec cx
	jz w4
	dec cx
	jz r1
	dec cx
	jz r2
	dec cx
	jz r4
w1:	out dx, al
	jmp beat
w2:	out dx, ax
	jmp beat
w4:	out dx, eax
	jmp beat
r1:	in al, dx
	jmp beat
r2:	in ax, dx
	jmp beat
r4:	in eax, dx
beat:	inc bp
	test bp, 0xff
	jnz next
	mov al, '.'
	out 0xe9, al
	jmp next
config:	imul ebx, ebx, 1664525          # the PCI address register, then any value to any register of slots 0 to 3
	add ebx, 1013904223
	mov eax, ebx
	shr eax, 8
	and eax, 0x1ffc
	or eax, 0x80000000
	# Not the power management function's registers, which can move the sleep port to any other.
	mov ecx, eax
	and ecx, 0xff00
	cmp ecx, 0x0b00
	je next
	mov dx, 0xcf8
	out dx, eax
	mov dx, 0xcfc
	mov eax, ebx
	out dx, eax
	in eax, dx
	jmp beat
	.org 510
	.byte 0x55, 0xaa
	.org 1024
