# A multiboot (version 1) kernel that programs the flash chip at FFFB0000h (64 KiB below a BIOS of 256 KiB): finds it by
# its query, erases its second block, programs "kept" there and reads it back as array. It leaves with status
# (0x13 << 1) | 1 = 39, or with the number of the check that failed.
	.intel_syntax noprefix
	.code32
	.text
	.globl _start
	.balign 4
	.long 0x1badb002, 0, -0x1badb002
_start:	mov ebx, 0xfffb0000
	mov al, 1
	cmp dword ptr [ebx], 0x30696d44 # the array: "Dmi0"
	jne leave
	mov byte ptr [ebx + 0x55], 0x98 # query
	mov al, 2
	cmp byte ptr [ebx + 0x10], 'Q'
	jne leave
	cmp byte ptr [ebx + 0x12], 'Y'
	jne leave
	mov byte ptr [ebx + 0x1000], 0x20       # erase, confirm
	mov byte ptr [ebx + 0x1000], 0xd0
	mov al, 3
	cmp byte ptr [ebx], 0x80        # status: ready, no error
	jne leave
	mov esi, offset text
	xor ecx, ecx
1:	mov byte ptr [ebx + 0x1000], 0x40       # program
	mov al, [esi + ecx]
	mov [ebx + ecx + 0x1000], al
	inc ecx
	cmp ecx, 4
	jne 1b
	mov byte ptr [ebx], 0xff        # array
	mov al, 4
	cmp dword ptr [ebx + 0x1000], 0x7470656b
	jne leave
	mov al, 5
	cmp byte ptr [ebx + 0x1004], 0xff
	jne leave
	mov al, 0x13
leave:	out 0xf4, al
stop:	hlt
	jmp stop
text:	.ascii "kept"
