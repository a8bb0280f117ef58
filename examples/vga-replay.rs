//! Development tool: shows what our VGA makes of a register program that QEMU recorded.
//!
//! `vga-replay TRACE VRAM OUT [PPM...]` replays QEMU's log of
//! `-trace vga_std_write_io -trace vga_std_read_io -trace vga_vbe_write`, loads a dump of the display memory,
//! writes the picture to OUT (PNG), and says whether it is one of the pictures that QEMU's `screendump` made. Both
//! phases of the cursor are tried. The recipe is in `hw::display::vga`'s documentation.

use std::env;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use dromaius::bus::{Board, PciAddress, Width};
use dromaius::event::Clock;
use dromaius::hw::display::vga::{Options, Vga, Wiring, vram_len};
use dromaius::mem::RamBlock;
use dromaius::ui::{Surface, picture};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [trace, memory, out, references @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: vga-replay TRACE VRAM OUT [PPM...]");
    };
    let vram = RamBlock::tracked("vga.vram", vram_len(16))?;
    let clock = Clock::manual();
    let mut board = Board::new();
    let wiring = Wiring { vram: Arc::clone(&vram), clock: clock.clone(), window_priority: 1 };
    let vga = Vga::add_pci(&mut board, "VGA", PciAddress::new(2, 0), wiring, Options::default(), None);
    board.set_memory_listener(Box::new(|_| ()));
    let mut accesses = 0;
    for line in fs::read_to_string(trace).context("trace")?.lines() {
        let hex = |name: &str| {
            let rest = line.split_once(name)?.1.trim_start().strip_prefix("0x")?;
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            u32::from_str_radix(&digits, 16).ok()
        };
        let Some(value) = hex("val") else { continue };
        if let Some(port) = hex("addr").and_then(|port| u16::try_from(port).ok()) {
            if line.contains("vga_std_read_io") {
                // Reading the status resets the attribute controller's flip-flop.
                board.port_read(port, Width::B1);
            } else {
                board.port_write(port, Width::B1, value);
            }
        } else if let Some(index) = hex("index") {
            board.port_write(0x1ce, Width::B2, index);
            board.port_write(0x1cf, Width::B2, value);
        }
        accesses += 1;
    }
    vram.write(0, &fs::read(memory).context("memory")?);
    let mut surface = Surface::new(1, 1);
    let pictures: Vec<Vec<u8>> = (0..2)
        .map(|phase| {
            clock.advance(phase * 120_000_000);
            board.with(&vga, |vga| vga.refresh(&mut surface, true));
            picture::ppm(&surface)
        })
        .collect();
    fs::write(out, picture::png(&surface)?)?;
    print!("{accesses} accesses, {}x{}", surface.width(), surface.height());
    for reference in references {
        let reference = fs::read(reference)?;
        let differing = pictures
            .iter()
            .map(|ours| {
                let size = ours.len().abs_diff(reference.len());
                size + ours.iter().zip(&reference).filter(|(a, b)| a != b).count()
            })
            .min()
            .unwrap_or(usize::MAX);
        print!(": {}", if differing == 0 { "same as QEMU".to_owned() } else { format!("{differing} bytes differ") });
    }
    println!();
    Ok(())
}
