# A boot sector that draws in graphics modes; for comparing pictures with another machine's. After the key `2` it draws
# mode 12h, after any other key mode 13h again. It says on the debug console when a picture is complete.
#
# Mode 13h: a palette of its own and a ramp. Mode 12h: planes through write modes 0 to 3, set/reset, rotation, the
# logical functions and the bit mask.
	.code16
	.globl	_start
_start:
	ljmp	$0, $1f + 0x7c00
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	cld
thirteen:
	movw	$0x13, %ax
	int	$0x10
	movw	$0x3c8, %dx		# 256 colours: red rises, green falls, blue twice as fast
	xorw	%ax, %ax
	outb	%al, %dx
	incw	%dx
	xorw	%cx, %cx
1:	movb	%cl, %al
	shrb	$2, %al
	outb	%al, %dx
	xorb	$0x3f, %al
	outb	%al, %dx
	movb	%cl, %al
	shrb	$1, %al
	andb	$0x3f, %al
	outb	%al, %dx
	incb	%cl
	jnz	1b
	movw	$0xa000, %ax
	movw	%ax, %es
	xorw	%di, %di
	movw	$200, %bx
2:	movw	$320, %cx
	movb	%bl, %al
3:	stosb
	incb	%al
	loop	3b
	decw	%bx
	jnz	2b
	call	key
	cmpb	$'2', %al
	jne	thirteen

	movw	$0x12, %ax
	int	$0x10
	xorw	%di, %di
	movw	$0x3ce, %dx
	movw	$0x0f00, %bp		# set/reset: all planes
	movw	$0x0f01, %ax		# enable set/reset: mode 0 writes colours
	outw	%ax, %dx
	xorw	%bx, %bx
1:	movb	%bl, %ah		# 16 bars of 8 lines
	movb	$0, %al
	outw	%ax, %dx
	movw	$640, %cx
	movb	$0xff, %al
	rep stosb
	incb	%bl
	cmpb	$16, %bl
	jne	1b
	movw	$0x0001, %ax
	outw	%ax, %dx

	movw	$programs + 0x7c00, %si	# each: registers 3, 5, 8, map mask, latch offset; then 40 lines
	movw	$5, %bx
2:	lodsb
	movb	%al, %ah
	movb	$3, %al			# rotation and function
	outw	%ax, %dx
	lodsb
	movb	%al, %ah
	movb	$5, %al			# write mode
	outw	%ax, %dx
	lodsb
	movb	%al, %ah
	movb	$8, %al			# bit mask
	outw	%ax, %dx
	lodsb
	movb	%al, %ah
	movb	$2, %al			# map mask
	movb	$0xc4, %dl
	outw	%ax, %dx
	movb	$0xce, %dl
	movw	$0x0500, %ax		# set/reset, for write mode 3
	outw	%ax, %dx
	movw	$3200, %cx
	xorw	%bp, %bp
3:	movb	%es:(%bp), %al		# the latches
	movw	%bp, %ax
	addb	%ah, %al
	stosb
	addw	$3, %bp
	loop	3b
	decw	%bx
	jnz	2b
	call	key
	jmp	thirteen
key:	movb	$'.', %al
	outb	%al, $0xe9
	xorw	%ax, %ax
	int	$0x16
	ret
programs:
	.byte	0x03, 0, 0xff, 0x0f	# rotated by 3
	.byte	0x18, 0, 0xf3, 0x05	# XOR with the latches, bit mask, planes 0 and 2
	.byte	0x00, 1, 0xff, 0x0f	# the latches
	.byte	0x10, 2, 0x7e, 0x0f	# a colour, OR
	.byte	0x0d, 3, 0x3f, 0x0f	# the byte as a mask, rotated, AND
	.org	510
	.word	0xaa55
