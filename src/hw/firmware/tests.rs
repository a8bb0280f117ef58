use super::*;

fn bzimage(body: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 1024 + 512];
    image[0x1f1] = 2;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    image[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    image.extend_from_slice(body);
    image
}

fn files(kernel: Vec<u8>) -> KernelFiles {
    KernelFiles { path: "vmlinuz".into(), kernel, append: "console=ttyS0 vga=0x317".into(), modules: vec![] }
}

fn multiboot_image() -> Vec<u8> {
    let mut image = Vec::new();
    let flags = 1u32 << 16 | 3;
    for word in
        [0x1bad_b002, flags, 0u32.wrapping_sub(0x1bad_b002 + flags), 0x10_0000, 0x10_0000, 0, 0x10_0100, 0x10_0020]
    {
        image.extend_from_slice(&word.to_le_bytes());
    }
    image.extend_from_slice(&[0xf4; 32]);
    image
}

#[test]
fn a_bzimage_is_split_and_its_header_filled_in() {
    let mut files = files(bzimage(&[0xab; 64]));
    files.modules.push(("initrd".into(), vec![1; 5000]));
    let plan = plan(&files, 128 << 20, 0).unwrap();
    assert_eq!(plan.entry, Entry::RealMode { segment: 0x1000, stack: 0xfff0 });
    let [setup, cmdline, kernel, initrd] = &plan.pieces[..] else { panic!("four pieces") };
    assert_eq!((kernel.address, &kernel.bytes[..]), (0x10_0000, &[0xab; 64][..]));
    assert_eq!(cmdline.bytes, b"console=ttyS0 vga=0x317\0");
    assert_eq!(u32_at(&setup.bytes, 0x228), Some(cmdline.address));
    assert_eq!((u32_at(&setup.bytes, 0x218), u32_at(&setup.bytes, 0x21c)), (Some(initrd.address), Some(5000)));
    assert_eq!(u16_at(&setup.bytes, 0x1fa), Some(0x317));
    assert!(u64::from(initrd.address) + 5000 <= (128 << 20) - FIRMWARE_RESERVED);
}

#[test]
fn an_initrd_that_does_not_fit_is_refused_by_name() {
    let mut files = files(bzimage(&[0; 64]));
    files.modules.push(("initrd".into(), vec![0; 8 << 20]));
    let error = plan(&files, 8 << 20, 0).unwrap_err().to_string();
    assert_eq!(error, "kernel 'vmlinuz': the initrd does not fit into 8 MiB of memory");
}

#[test]
fn a_multiboot_image_with_addresses_is_placed_by_them() {
    let mut files = files(multiboot_image());
    files.modules.push(("mod one".into(), b"data".to_vec()));
    let plan = plan(&files, 64 << 20, 0).unwrap();
    assert_eq!(plan.entry, Entry::Flat { eip: 0x10_0020, eax: 0x2bad_b002, ebx: 0x2_0000, esi: 0 });
    assert_eq!((plan.pieces[0].address, plan.pieces[0].bytes.len()), (0x10_0000, 0x100));
    let info = &plan.pieces[2].bytes;
    let cmdline = (u32_at(info, 16).unwrap() - 0x2_0000) as usize;
    assert!(info[cmdline..].starts_with(b"vmlinuz console=ttyS0"));
}

#[test]
fn rubbish_is_refused() {
    assert!(matches!(plan(&files(vec![0; 4096]), 64 << 20, 0), Err(KernelError::Unknown(_))));
    assert!(plan(&files(b"\x7fELF".to_vec()), 64 << 20, 0).is_err());
}

#[test]
fn no_truncation_or_bit_flip_panics() {
    for sample in [bzimage(&[0; 64]), multiboot_image()] {
        for len in 0..sample.len() {
            let _ = plan(&files(sample[..len].to_vec()), 64 << 20, 0);
        }
        for bit in 0..sample.len() * 8 {
            let mut flipped = sample.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = plan(&files(flipped), 64 << 20, 0);
        }
    }
}
