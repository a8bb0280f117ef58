# The option ROM behind -kernel: an x86 boot entry (Plug and Play BIOS Specification 1.0A, 3.2) that copies prepared
# pieces from fw_cfg's DMA interface to their places in RAM and enters the kernel. The emulator patches the size, the
# checksums and the table at its end; see src/hw/firmware/rom.rs. GNU as, Intel syntax.

	.section .rodata.dromaius_bootrom, "a", @progbits
	.globl dromaius_bootrom_start
	.globl dromaius_bootrom_end
	.code16
dromaius_bootrom_start:
	.byte 0x55, 0xaa
	.byte 0                         # length in 512-byte units: patched
	.byte 0xb8, 0x20, 0x00          # initialisation, called far: mov ax, 20h (an IPL device is attached)
	.byte 0xcb                      # retf
	.skip 0x1a - (. - dromaius_bootrom_start)
	.short 20f - dromaius_bootrom_start
20:	.ascii "$PnP"
	.byte 1, 2                      # revision, length in 16-byte units
	.short 0                        # no next header
	.byte 0, 0                      # reserved, checksum: patched
	.long 0                         # device identifier
	.short 0                        # manufacturer
	.short 21f - dromaius_bootrom_start
	.byte 0, 0, 0                   # device type
	.byte 0xe4                      # IPL device, read cacheable, may be shadowed
	.short 0                        # no boot connection vector
	.short 0                        # no disconnect vector
	.short 22f - dromaius_bootrom_start # boot entry vector
	.short 0, 0
21:	.asciz "Linux kernel"

# The boot entry. The table lies at the ROM's end: word count, word mode, dwords entry, eax, ebx, esi, then for each
# piece: word selector, word 0, dword length, dword address.
22:	cli
	cld
	mov ax, cs
	mov ds, ax
	.byte 0xbe                      # mov si, table
	.short 90f - dromaius_bootrom_start
	mov cx, [si]
	lea di, [si + 20]
	jcxz 40f
30:	mov eax, [di + 8]               # FWCfgDmaAccess on the stack, big-endian: address, length, control
	bswap eax
	push eax
	xor eax, eax
	push eax
	mov eax, [di + 4]
	bswap eax
	push eax
	movzx eax, word ptr [di]
	shl eax, 16
	or al, 0x0a                     # select and read
	bswap eax
	push eax
	mov bp, sp
	xor eax, eax
	mov dx, 0x514
	out dx, eax
	mov ax, ss
	shl eax, 4
	movzx ebx, sp
	add eax, ebx
	bswap eax
	mov dx, 0x518
	out dx, eax
31:	mov eax, [bp]
	bswap eax
	test eax, 0xfffffffe
	jnz 31b
	test al, 1                      # error: let the BIOS try the next device
	jnz 80f
	add sp, 16
	add di, 12
	loop 30b

40:	cmp word ptr [si + 2], 0
	jne 50f
	# Real mode: entry is the segment of the setup code; it starts 512 bytes in (Linux boot protocol).
	mov ax, [si + 4]
	mov bx, [si + 8]                # its stack pointer
	mov ds, ax
	mov es, ax
	mov fs, ax
	mov gs, ax
	mov ss, ax
	mov sp, bx
	add ax, 0x20
	push ax
	xor ax, ax
	push ax
	.byte 0xcb                      # retf with a 16-bit offset; the mnemonic would pop 32 bits

	# Flat 32-bit protected mode, interrupts off (multiboot 3.2, PVH).
50:	xor ebx, ebx
	mov bx, cs
	shl ebx, 4                      # linear address of the ROM
	mov eax, ebx
	.byte 0x66, 0x05                # add eax, offset of the descriptors
	.long 70f - dromaius_bootrom_start
	push eax
	mov ax, 23
	push ax
	mov bp, sp
	lgdt [bp]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	mov eax, ebx
	.byte 0x66, 0x05                # add eax, offset of the 32-bit code
	.long 60f - dromaius_bootrom_start
	.byte 0x66, 0x6a, 0x08          # push dword 8
	push eax
	.byte 0x66, 0xcb                # retf with a 32-bit offset
	.code32
60:	mov ax, 0x10
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov fs, ax
	mov gs, ax
	mov edi, ebx
	.byte 0x81, 0xc7                # add edi, offset of the table
	.long 90f - dromaius_bootrom_start
	mov eax, [edi + 8]
	mov esi, [edi + 16]
	mov ebx, [edi + 12]
	mov edi, [edi + 4]
	jmp edi
	.code16
	.balign 8
70:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
80:	int 0x18
81:	hlt
	jmp 81b
	.balign 4
90:
dromaius_bootrom_end:
	.code64
	.text
