# A boot sector that draws in VESA modes through the VGA window: the keys 1 to 7 choose one, `s` then
# widens its lines and scrolls it. For comparing pictures with another machine's.
	.code16
	.globl	_start
_start:
	ljmp	$0, $1f + 0x7c00
1:	xorw	%ax, %ax
	movw	%ax, %ss
	movw	%ax, %ds
	movw	$0x7c00, %sp
	cld
next:	xorw	%ax, %ax
	int	$0x16
	cmpb	$'s', %al
	je	scroll
	subb	$'1', %al
	cmpb	$7, %al
	jae	next
	cbw
	movw	%ax, %bx
	shlw	$1, %bx
	movw	modes + 0x7c00(%bx), %bx
	movw	$0x4f02, %ax
	int	$0x10
	cmpw	$0x004f, %ax
	jne	next
	xorw	%dx, %dx		# four banks of 64 KiB
	xorw	%bp, %bp
2:	pushw	%dx
	movw	$0x4f05, %ax
	xorw	%bx, %bx
	int	$0x10
	popw	%dx
	movw	$0xa000, %ax
	movw	%ax, %es
	xorw	%di, %di
	movw	$0x8000, %cx
3:	movw	%bp, %ax
	stosw
	addw	$0x0407, %bp
	loop	3b
	incw	%dx
	cmpw	$4, %dx
	jne	2b
	jmp	next
scroll:	movw	$0x4f06, %ax		# lines of 1000 pixels, and the picture's start at 13, 7
	xorw	%bx, %bx
	movw	$1000, %cx
	int	$0x10
	movw	$0x4f07, %ax
	xorw	%bx, %bx
	movw	$13, %cx
	movw	$7, %dx
	int	$0x10
	jmp	next
modes:	.word	0x101, 0x10d, 0x110, 0x111, 0x112, 0x142, 0x102
	.org	510
	.word	0xaa55
