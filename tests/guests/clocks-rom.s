# A 64 KiB ROM for -icount: it writes what the clocks show, in hexadecimal, to the debug console: 40 times after a tick of
# the PIT (54.9 ms) for which it halts, and with a busy loop between. A line is the time-stamp counter, the PIT's counter,
# and the seconds of the real-time clock. Then it leaves with status (0x13 << 1) | 1 = 39.
	.include "common.inc"
	.code16
	.text
	.org 0
begin:	cli
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7c00
	mov ecx, 0x1b           # no local APIC between the interrupt controller and the processor
	rdmsr
	and ah, 0xf7
	wrmsr
	mov word ptr [8 * 4], offset tick
	mov word ptr [8 * 4 + 2], 0xf000
	mov al, 0x11            # the first interrupt controller: edges, cascaded, vectors from 8
	out 0x20, al
	mov al, 8
	out 0x21, al
	mov al, 4
	out 0x21, al
	mov al, 1
	out 0x21, al
	mov al, 0xfe            # IRQ 0 only
	out 0x21, al
	mov al, 0x34            # counter 0: mode 2, 65536
	out 0x43, al
	xor al, al
	out 0x40, al
	out 0x40, al
	mov al, 0x0b            # the real-time clock goes: 24 hours, binary
	out 0x70, al
	mov al, 0x06
	out 0x71, al
	mov al, 0x0a
	out 0x70, al
	mov al, 0x26
	out 0x71, al
	mov bp, 40
1:	sti
	hlt
	cli
	call show
	mov cx, bp
	shl cx, 6
2:	loop 2b
	call show
	dec bp
	jnz 1b
	leave_with 0x13
3:	hlt
	jmp 3b
show:	rdtsc
	push eax
	mov eax, edx
	call hex8
	pop eax
	call hex8
	mov al, ' '
	out 0xe9, al
	xor al, al              # latch counter 0
	out 0x43, al
	in al, 0x40
	mov bl, al
	in al, 0x40
	call hex2
	mov al, bl
	call hex2
	mov al, ' '
	out 0xe9, al
	xor al, al
	out 0x70, al
	in al, 0x71
	call hex2
	mov al, 10
	out 0xe9, al
	ret
hex8:	mov si, 4
1:	rol eax, 8
	call hex2
	dec si
	jnz 1b
	ret
hex2:	push ax
	shr al, 4
	call digit
	pop ax
	push ax
	and al, 15
	call digit
	pop ax
	ret
digit:	cmp al, 10
	jb 1f
	add al, 7
1:	add al, 48
	out 0xe9, al
	ret
tick:	push ax
	mov al, 0x20
	out 0x20, al
	pop ax
	iret
	.org 0xfff0
	ljmp 0xf000, offset begin
	.org 0x10000 - 1
	.byte 0
