# A boot sector that lets 1024 Hz interrupts of the real-time clock be lost: twenty times it keeps interrupts off for 50 ms
# by the ACPI timer. Then it counts on: "Made up for." and status (0x11 << 1) | 1 = 35 if the count comes up to the time
# that has passed, "Lost." and status 255 if it has not after 8 seconds.
	.include "common.inc"
	boot_sector
	mov word ptr [0x70 * 4], offset 0x7c00 + (tick - start)
	mov word ptr [0x70 * 4 + 2], ax
	mov [ticks], eax
	mov [elapsed], eax
	only_second_pic 0xfe            # and only IRQ 8 there
	power_base
	add ax, 8
	mov [timer], ax
	mov ax, 0x260a          # register A: 32768 Hz crystal, 1024 Hz
	call cmos
	mov ax, 0x420b          # register B: periodic interrupts, 24 hours
	call cmos
	mov al, 0x0c
	out 0x70, al
	in al, 0x71
	mov dx, [timer]
	in eax, dx
	mov [last], eax
	mov cx, 20
1:	mov ebx, [elapsed]
	add ebx, 178977         # 50 ms of 3.579545 MHz
2:	call pass
	cmp [elapsed], ebx
	jb 2b
	sti                     # one interrupt gets through
	nop
	nop
	cli
	loop 1b
	sti
3:	call pass
	mov eax, [elapsed]
	cmp eax, 28636360       # 8 s
	ja lost
	xor edx, edx
	mov ebx, 3496           # ticks of the timer in one of the clock's
	div ebx
	sub eax, [ticks]
	cmp eax, 100
	jge 3b
	say made_up
	mov al, 0x11
	jmp leave
lost:	say missing
	mov al, 0x7f
leave:	out 0xf4, al
stop:	hlt
	jmp stop
	# Adds the time since the last call to `elapsed`.
pass:	mov dx, [timer]
	in eax, dx
	mov edx, eax
	sub eax, [last]
	and eax, 0xffffff
	add [elapsed], eax
	mov [last], edx
	ret
cmos:	out 0x70, al
	mov al, ah
	out 0x71, al
	ret
tick:	push ax
	mov al, 0x0c
	out 0x70, al
	in al, 0x71
	inc dword ptr [ticks]
	mov al, 0x20
	out 0xa0, al
	out 0x20, al
	pop ax
	iret
	printer
	.set ticks, 0x9000
	.set elapsed, 0x9004
	.set last, 0x9008
	.set timer, 0x900c
made_up: .asciz "Made up for."
missing: .asciz "Lost."
	boot_signature
