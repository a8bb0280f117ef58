# A boot sector that waits for the power button as an ACPI system does: it enables the event in PM1, halts until the
# system control interrupt (IRQ 9), says so on the debug console, and powers off through S5.
	.intel_syntax noprefix
	.code16
	.text
	.org 0
start:	ljmp 0, offset 0x7c00 + (begin - start)
begin:	cli
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7c00
	mov word ptr [0x71 * 4], offset 0x7c00 + (sci - start)
	mov word ptr [0x71 * 4 + 2], ax
	mov al, 0xfb            # only the second interrupt controller
	out 0x21, al
	mov al, 0xfd            # and only IRQ 9 there
	out 0xa1, al
	mov eax, 0x80000b40     # 00:01.3, PMBA
	mov dx, 0xcf8
	out dx, eax
	mov dx, 0xcfc
	in ax, dx
	and ax, 0xffc0
	mov [base], ax
	mov dx, ax
	mov ax, 0x0100          # PWRBTN_STS of an earlier press
	out dx, ax
	add dx, 2
	out dx, ax              # PWRBTN_EN
	mov si, offset 0x7c00 + (ready - start)
	call print
wait:	sti
	hlt
	cli
	test byte ptr [heard], 1
	jz wait
	mov si, offset 0x7c00 + (pressed - start)
	call print
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
print:	lodsb
	test al, al
	jz 1f
	out 0xe9, al
	jmp print
1:	ret
	.set base, 0x9000
	.set heard, 0x9002
ready:	.asciz "Waiting. "
pressed: .asciz "The power button was pressed."
	.org 510
	.byte 0x55, 0xaa
