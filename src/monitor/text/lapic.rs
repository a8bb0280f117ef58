//! `info lapic`: the registers of a local APIC (Intel SDM volume 3, chapter 11) as QEMU prints them.

use std::fmt::Write;

const LVTS: [(&str, usize); 6] =
    [("LVT0", 0x350), ("LVT1", 0x360), ("LVTPC", 0x340), ("LVTERR", 0x370), ("LVTTHMR", 0x330), ("LVTT", 0x320)];

/// A register of the page.
fn word(page: &[u8], offset: usize) -> u32 {
    let bytes = page.get(offset..offset + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

/// The APIC id that a register page tells, in whichever of the two places a mode puts it.
#[must_use]
pub fn lapic_id(page: &[u8]) -> u32 {
    let id = word(page, 0x20);
    if id & 0x00ff_ffff == 0 { id >> 24 } else { id }
}

fn delivery(register: u32) -> &'static str {
    ["Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT"][(register >> 8 & 7) as usize]
}

fn local_vector(out: &mut String, name: &str, value: u32) {
    let set = |bit: u32| value & 1 << bit != 0;
    let polarity = if set(13) { "active-lo" } else { "active-hi" };
    let trigger = if set(15) { "level" } else { "edge" };
    let masked = if set(16) { "masked" } else { "" };
    let pending = if set(12) { "pending" } else { "" };
    let mode = match (name, value >> 17 & 3) {
        ("LVTT", 0) => "one-shot",
        ("LVTT", 1) => "periodic",
        ("LVTT", 2) => "tsc-deadline",
        _ => "",
    };
    let delivery = delivery(value);
    let _ =
        write!(out, "{name}\t 0x{value:08x} {polarity} {trigger:<5} {masked:<6} {pending:<7} {mode:<12} {delivery:<6}");
    if delivery != "NMI" {
        let _ = write!(out, " (vec {})", value & 0xff);
    }
    out.push('\n');
}

fn command(out: &mut String, low: u32, high: u32, x2apic: bool) {
    let logical = low & 1 << 11 != 0;
    let mode = if logical { "logical" } else { "physical" };
    let trigger = if low & 1 << 15 != 0 { "level" } else { "edge" };
    let level = if low & 1 << 14 != 0 { "assert" } else { "de-assert" };
    let shorthand = (low >> 18 & 3) as usize;
    let name = ["no-shorthand", "self", "all-self", "all"][shorthand];
    let _ = write!(out, "ICR\t 0x{low:08x} {mode} {trigger} {level} {name}\nICR2\t 0x{high:08x}");
    if shorthand == 0 {
        let (to, kind) = if x2apic { (high, "X2APIC ID") } else { (high >> 24, "APIC ID") };
        let _ = if logical { write!(out, " mask {to:08x} ({kind})") } else { write!(out, " cpu {to} ({kind})") };
    }
    out.push('\n');
}

fn vectors(out: &mut String, name: &str, page: &[u8], offset: usize) {
    let _ = write!(out, "{name}\t ");
    let has = |base: usize, vector: usize| word(page, base + vector / 32 * 16) >> (vector % 32) & 1 != 0;
    let mut any = false;
    for vector in (0..256).filter(|vector| has(offset, *vector)) {
        any = true;
        let _ = write!(out, "{vector}{} ", if has(0x180, vector) { "(level)" } else { "" });
    }
    out.push_str(if any { "\n" } else { "(none)\n" });
}

/// `info lapic` of CPU `index`, with the register page as KVM_GET_LAPIC lays it out.
#[must_use]
pub fn lapic(index: u32, page: &[u8], x2apic: bool) -> String {
    let mut out = format!("dumping local APIC state for CPU {index} \n\n");
    for (name, offset) in LVTS {
        local_vector(&mut out, name, word(page, offset));
    }
    let divide = word(page, 0x3e0);
    let divisor = 1 << (((divide >> 1 & 4 | divide & 3) + 1) & 7);
    let (initial, current) = (word(page, 0x380), word(page, 0x390));
    let _ = writeln!(
        out,
        "Timer\t DCR=0x{divide:x} (divide by {divisor}) initial_count = {initial} current_count = {current}"
    );
    let spurious = word(page, 0xf0);
    let state = if spurious & 1 << 8 != 0 { "enabled" } else { "disabled" };
    let focus = if spurious & 1 << 9 != 0 { "on" } else { "off" };
    let _ = writeln!(out, "SPIV\t 0x{spurious:08x} APIC {state}, focus={focus}, spurious vec {}", spurious & 0xff);
    command(&mut out, word(page, 0x300), word(page, 0x310), x2apic);
    let _ = writeln!(out, "ESR\t 0x{:08x}", word(page, 0x280));
    vectors(&mut out, "ISR", page, 0x100);
    vectors(&mut out, "IRR", page, 0x200);
    let (apr, tpr, ppr) = (word(page, 0x90), word(page, 0x80), word(page, 0xa0));
    let (dfr, ldr) = (word(page, 0xe0) >> 28, if x2apic { word(page, 0xd0) } else { word(page, 0xd0) >> 24 });
    let _ = writeln!(out, "\nAPR 0x{apr:02x} TPR 0x{tpr:02x} DFR 0x{dfr:02x} LDR 0x{ldr:02x} PPR 0x{ppr:02x}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(registers: &[(usize, u32)]) -> Vec<u8> {
        let mut page = vec![0; 1024];
        for (offset, value) in registers {
            page[*offset..*offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        page
    }

    /// QEMU 10.0.2's words (TCG): SeaBIOS's local vectors, and a ROM with a level in service and another requested.
    #[test]
    fn the_text_is_qemus() {
        let page = page(&[
            (0x320, 0x1_0000),
            (0x330, 0x1_0000),
            (0x340, 0x1_0000),
            (0x350, 0x8700),
            (0x360, 0x8400),
            (0x370, 0x1_0000),
            (0xf0, 0x1ff),
            (0x300, 0xc822),
            (0x310, 0x0100_0000),
            (0x110, 1 << 17),
            (0x190, 1 << 17 | 1 << 2),
            (0x210, 1 << 2),
            (0xa0, 0x30),
            (0xd0, 0x0100_0000),
            (0xe0, 0xffff_ffff),
        ]);
        let expected = "\
dumping local APIC state for CPU 0 \n\n\
LVT0\t 0x00008700 active-hi level                             ExtINT (vec 0)\n\
LVT1\t 0x00008400 active-hi level                             NMI   \n\
LVTPC\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n\
LVTERR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n\
LVTTHMR\t 0x00010000 active-hi edge  masked                      Fixed  (vec 0)\n\
LVTT\t 0x00010000 active-hi edge  masked         one-shot     Fixed  (vec 0)\n\
Timer\t DCR=0x0 (divide by 2) initial_count = 0 current_count = 0\n\
SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255\n\
ICR\t 0x0000c822 logical level assert no-shorthand\n\
ICR2\t 0x01000000 mask 00000001 (APIC ID)\n\
ESR\t 0x00000000\n\
ISR\t 49(level) \n\
IRR\t 34(level) \n\n\
APR 0x00 TPR 0x00 DFR 0x0f LDR 0x01 PPR 0x30\n";
        assert_eq!(lapic(0, &page, false), expected);
    }

    #[test]
    fn a_command_with_a_shorthand_names_nobody() {
        let text = lapic(1, &page(&[(0x300, 0x4_0043)]), false);
        assert!(text.contains("ICR\t 0x00040043 physical edge de-assert self\nICR2\t 0x00000000\n"), "{text}");
    }

    #[test]
    fn ids_are_found_in_both_places_and_short_pages_do_no_harm() {
        assert_eq!((lapic_id(&page(&[(0x20, 3 << 24)])), lapic_id(&page(&[(0x20, 0x123)]))), (3, 0x123));
        assert!(lapic(0, &[], true).contains("SPIV\t 0x00000000"));
    }
}
