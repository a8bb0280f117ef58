# A boot sector that echoes what is typed, as the BIOS understands it, to the screen and the debug console: characters,
# and the scan codes of keys that have none. Between keys it halts.
	.code16
	.globl	_start
_start:
	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$0x7c00, %sp
	movb	$'>', %al	# a prompt, once
	outb	%al, $0xe9
1:	xorw	%ax, %ax
	int	$0x16
	testb	%al, %al
	jz	2f
	cmpb	$0xe0, %al
	je	2f
	outb	%al, $0xe9
	movw	$7, %bx
	movb	$0x0e, %ah
	pushw	%ax
	int	$0x10
	popw	%ax
	cmpb	$13, %al
	jne	1b
	movw	$0x0e0a, %ax
	int	$0x10
	jmp	1b
2:	movb	%ah, %dl	# a key without a character: its scan code in brackets
	movw	$0x0e5b, %ax
	call	out
	movb	%dl, %al
	shrb	$4, %al
	call	digit
	movb	%dl, %al
	call	digit
	movb	$']', %al
	call	out
	jmp	1b
digit:	andb	$15, %al
	cmpb	$10, %al
	sbbb	$0x69, %al
	das
out:	outb	%al, $0xe9
	movw	$7, %bx
	movb	$0x0e, %ah
	int	$0x10
	ret
	.org 510
	.word	0xaa55
