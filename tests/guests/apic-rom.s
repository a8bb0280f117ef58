# A 64 KiB ROM that takes interrupts each way a PC has, and says a letter on port e9h after each:
# P the timer through the 8259, E the timer through the I/O APIC, L the clock as a level that comes again at its EOI,
# T the local APIC's timer, S an interrupt to itself that the task priority holds back. Leaves through isa-debug-exit
# with status (0x12 << 1) | 1 = 37, or with 255 if an interrupt came that may not.
	.include "common.inc"
	.code16
	.text
	.org 0
	.set LAPIC, 0xfee00000
	.set IOAPIC, 0xfec00000
	.set COUNT, 0x600               # interrupts since the last letter
begin:	cli
	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7000
	unreal cs:[gdtr]
	ljmp 0xf000, offset 2f
2:	mov di, 8 * 4
	mov si, offset on_pic
	call vector
	mov di, 0x30 * 4
	mov si, offset on_apic
	call vector
	mov di, 0x31 * 4
	mov si, offset on_level
	call vector
	mov di, 0x32 * 4
	mov si, offset on_apic
	call vector
	mov di, 0x43 * 4
	mov si, offset on_apic
	call vector

	mov esi, LAPIC
	mov dword ptr fs:[esi + 0xf0], 0x1ff
	mov dword ptr fs:[esi + 0x350], 0x700           # LINT0: the 8259s
	# The 8259s: vectors 8 and 70h, only IRQ 0 open.
	mov si, offset pics
	xor dx, dx
3:	mov dl, cs:[si]
	mov al, cs:[si + 1]
	out dx, al
	add si, 2
	cmp si, offset pics_end
	jb 3b
	mov al, 0x34                    # the timer: 1 kHz
	out 0x43, al
	mov al, 0xa9
	out 0x40, al
	mov al, 0x04
	out 0x40, al
	call five
	mov al, 0xff
	out 0x21, al
	mov al, 'P'
	call say

	mov esi, LAPIC
	mov dword ptr fs:[esi + 0x350], 0x10000
	mov ecx, 0x14                   # pin 2
	mov edx, 0x30
	call route
	call five
	mov edx, 0x10000
	call route
	mov al, 'E'
	call say

	mov ecx, 0x20                   # pin 8, a level
	mov edx, 0x8031
	call route
	mov ax, 0x260a                  # 1024 Hz
	call clock
	mov ax, 0x420b                  # periodic interrupts
	call clock
	call five
	mov ax, 0x020b
	call clock
	mov edx, 0x10000
	call route
	mov al, 0x0c
	out 0x70, al
	in al, 0x71
	mov al, 'L'
	call say

	mov dword ptr fs:[esi + 0x3e0], 0xb
	mov dword ptr fs:[esi + 0x320], 0x20032
	mov dword ptr fs:[esi + 0x380], 1000000
	call five
	mov dword ptr fs:[esi + 0x380], 0
	mov dword ptr fs:[esi + 0x320], 0x10000
	mov al, 'T'
	call say

	mov dword ptr fs:[esi + 0x80], 0x40
	mov dword ptr fs:[esi + 0x310], 0
	mov dword ptr fs:[esi + 0x300], 0x40043
	call while
	cmp word ptr [COUNT], 0
	jne fail
	mov dword ptr fs:[esi + 0x80], 0x30
	call while
	cmp word ptr [COUNT], 1
	jne fail
	mov al, 'S'
	call say
	leave_with 0x12
	jmp 4f                          # the machine ends a little later
fail:	leave_with 0x7f
4:	hlt
	jmp 4b

say:	out 0xe9, al
	mov word ptr [COUNT], 0
	ret
vector:	mov [di], si
	mov word ptr [di + 2], 0xf000
	ret
clock:	out 0x70, al
	mov al, ah
	out 0x71, al
	ret
	# Redirection register ecx of the I/O APIC, low half: edx. The high half is 0.
route:	mov edi, IOAPIC
	mov fs:[edi], ecx
	mov fs:[edi + 0x10], edx
	ret
	# Lets interrupts come for a while.
while:	mov cx, 100
	sti
7:	in al, 0x80
	loop 7b
	cli
	ret
	# Waits for five interrupts.
five:	cli
	cmp word ptr [COUNT], 5
	jae 5f
	sti
	hlt
	jmp five
5:	ret

on_pic:	push ax
	inc word ptr [COUNT]
	mov al, 0x20
	out 0x20, al
	pop ax
	iret
on_level: push ax
	inc word ptr [COUNT]
	cmp word ptr [COUNT], 3         # three times the level stays
	jb 6f
	mov al, 0x0c
	out 0x70, al
	in al, 0x71
6:	mov dword ptr fs:[esi + 0xb0], 0
	pop ax
	iret
on_apic: inc word ptr [COUNT]
	mov dword ptr fs:[esi + 0xb0], 0
	iret
pics:	.byte 0x20, 0x11, 0x21, 0x08, 0x21, 0x04, 0x21, 0x01, 0x21, 0xfe
	.byte 0xa0, 0x11, 0xa1, 0x70, 0xa1, 0x02, 0xa1, 0x01, 0xa1, 0xff
pics_end:
	gdt_pointer 0x00cf93000000ffff, 0xffff0000 + (gdt - begin)     # accessed already: a ROM cannot be marked
	.org 0xfff0
	ljmp 0xf000, offset begin
	.org 0x10000 - 1
	.byte 0
