# A boot sector that waits for the power button as an ACPI system does: it enables the event in PM1, halts until the
# system control interrupt (IRQ 9), says so on the debug console, and powers off through S5.
	.include "common.inc"
	boot_sector
	mov word ptr [0x71 * 4], offset 0x7c00 + (sci - start)
	mov word ptr [0x71 * 4 + 2], ax
	only_second_pic 0xfd            # and only IRQ 9 there
	power_base
	mov [base], ax
	mov dx, ax
	mov ax, 0x0100          # PWRBTN_STS of an earlier press
	out dx, ax
	add dx, 2
	out dx, ax              # PWRBTN_EN
	say ready
wait:	sti
	hlt
	cli
	test byte ptr [heard], 1
	jz wait
	say pressed
	mov dx, [base]
	add dx, 4
	mov ax, 0x2000          # SLP_EN, type 0: S5
	out dx, ax
stop:	hlt
	jmp stop
sci:	push ax
	push dx
	mov dx, [base]
	in ax, dx
	test ax, 0x0100
	jz 1f
	mov ax, 0x0100
	out dx, ax
	mov byte ptr [heard], 1
1:	mov al, 0x20
	out 0xa0, al
	out 0x20, al
	pop dx
	pop ax
	iret
	printer
	.set base, 0x9000
	.set heard, 0x9002
ready:	.asciz "Waiting. "
pressed: .asciz "The power button was pressed."
	boot_signature
