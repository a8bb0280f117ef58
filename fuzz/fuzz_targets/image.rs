//! Any bytes as an image of any format: opening, reading, writing and checking it must neither panic nor take memory
//! without bound. The first byte chooses the format. Run by `scripts/fuzz`.
#![no_main]

use dromaius::block::{Kind, NodeOptions, OpenFlags, Repair, driver, open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let formats: Vec<&str> =
        driver::DRIVERS.iter().filter(|driver| driver.kind() == Kind::Format).map(|driver| driver.name()).collect();
    let path = format!("/dev/shm/dromaius-fuzz-{}", std::process::id());
    if std::fs::write(&path, bytes).is_err() {
        return;
    }
    let node = NodeOptions::file(path.as_str()).format(formats[usize::from(*choice) % formats.len()]);
    let flags = OpenFlags { no_backing: true, ..OpenFlags::default() };
    if let Ok((image, _)) = open(&node, flags) {
        let len = image.node.len().unwrap_or(0);
        let mut buf = [0; 3000];
        for offset in [0, len / 2, len.saturating_sub(3000)] {
            let part = usize::try_from(len.saturating_sub(offset).min(3000)).unwrap_or(0);
            let _ = image.node.read_at(offset, &mut buf[..part]);
            let _ = image.node.write_at(offset, &buf[..part], false);
            let _ = image.node.extent(offset, part as u64);
        }
        if let Some(ops) = image.ops() {
            let _ = ops.details();
            let _ = ops.check(Some(Repair::All));
        }
    }
    let _ = std::fs::remove_file(&path);
});
