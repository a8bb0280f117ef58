# A boot sector that suspends to RAM as an ACPI system does: it finds the firmware's waking vector (RSDP, RSDT, FADT,
# FACS), puts the address of its second half there, and writes sleep type S3. Awake again it checks that its memory kept
# a word and that WAK_STS is set, says "Awake." on the debug console and leaves with status (0x11 << 1) | 1 = 35.
	.include "common.inc"
	boot_sector
	# Unreal mode: 32-bit offsets with fs.
	unreal [0x7c00 + (gdtr - start)]
	# The RSDP is on a 16-byte boundary of the BIOS area.
	mov esi, 0xe0000
2:	cmp dword ptr fs:[esi], 0x20445352      # "RSD "
	jne 3f
	cmp dword ptr fs:[esi + 4], 0x20525450  # "PTR "
	je 4f
3:	add esi, 16
	cmp esi, 0x100000
	jb 2b
	jmp fail
4:	mov esi, fs:[esi + 16]                  # RSDT
	mov ecx, fs:[esi + 4]
	add ecx, esi
	add esi, 36
5:	cmp esi, ecx
	jae fail
	mov edi, fs:[esi]
	add esi, 4
	cmp dword ptr fs:[edi], 0x50434146      # "FACP"
	jne 5b
	mov dx, fs:[edi + 56]                   # PM1a_EVT_BLK
	mov [events], dx
	mov dx, fs:[edi + 64]                   # PM1a_CNT_BLK
	mov edi, fs:[edi + 36]                  # FACS
	mov dword ptr fs:[edi + 12], 0x7c00 + (awake - start)
	mov word ptr [kept], 0x1234
	say asleep
	mov ax, 0x2400          # SLP_EN, type 1: S3
	out dx, ax
stop:	hlt
	jmp stop
	# The firmware jumps to segment address >> 4, offset address & 15.
	.balign 16
awake:	ljmp 0, offset 0x7c00 + (6f - start)
6:	xor ax, ax
	mov ds, ax
	mov ss, ax
	mov sp, 0x7c00
	cmp word ptr [kept], 0x1234
	jne fail
	mov dx, [events]
	in ax, dx
	test ax, 0x8000
	jz fail
	say woken
	leave_with 0x11
	jmp stop
fail:	leave_with 0x7f
	jmp stop
	printer
	.set kept, 0x9000
	.set events, 0x9002
	gdt_pointer 0x00cf92000000ffff, 0x7c00 + (gdt - start)
asleep:	.asciz "Asleep. "
woken:	.asciz "Awake."
	boot_signature
