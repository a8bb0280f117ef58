//! What is on the screen.

use super::*;

#[test]
fn text_shows_glyphs_in_their_colours() {
    let mut b = Bench::text_mode();
    b.outw(0x3d4, 0x0a, 0x20);
    b.poke(0xb8000, &[0x81, 0x1e, 0xdf, 0x24]);
    assert_eq!(b.refresh(), Refresh::Resized);
    assert_eq!((b.surface.width(), b.surface.height()), (720, 400));
    let (ink, back) = (0xa8_a800, 0x00_00a8);
    // Line 0 of character 81h is 10000001b.
    assert_eq!(b.surface.line(0)[..9], [ink, back, back, back, back, back, back, ink, back]);
    // Character DFh is a line drawing one: the ninth column repeats the eighth.
    let (ink, back) = (0xa8_0000, 0x00_a800);
    assert_eq!(b.surface.line(0)[9..18], [ink, ink, back, ink, ink, ink, ink, ink, ink]);
}

#[test]
fn only_changed_cells_are_reported() {
    let mut b = Bench::text_mode();
    b.refresh();
    assert_eq!(b.refresh(), changed(NOTHING));
    b.poke(0xb8000 + 2 * (80 * 3 + 10), b"x\x07y\x07");
    assert_eq!(b.refresh(), changed(&[(90, 48, 18, 16)]));
    b.poke(0xb8000 + 2 * (80 * 3 + 10), b"x\x07y\x07");
    assert_eq!(b.refresh(), changed(NOTHING));
}

#[test]
fn the_cursor_blinks_and_moving_it_shows_it() {
    let mut b = Bench::text_mode();
    b.poke(0xb8000, &[0, 7].repeat(2000));
    b.refresh();
    assert_eq!([0, 13, 14].map(|y| b.pixel(8, y)), [0, 0xa8_a8a8, 0xa8_a8a8]);
    b.clock.advance(NS_PER_SEC * 9 / 70);
    assert_eq!(b.refresh(), changed(&[(0, 0, 9, 16)]));
    assert_eq!(b.pixel(8, 13), 0);
    b.outw(0x3d4, 0x0f, 81);
    assert_eq!(b.refresh(), changed(&[(9, 16, 9, 16)]));
    assert_eq!(b.pixel(17, 16 + 13), 0xa8_a8a8);
    b.outw(0x3d4, 0x0a, 0x2d);
    assert_eq!(b.refresh(), changed(&[(9, 16, 9, 16)]));
}

#[test]
fn the_blink_attribute_blinks_or_is_a_bright_background() {
    let mut b = Bench::text_mode();
    b.outw(0x3d4, 0x0a, 0x20);
    b.poke(0xb8000, &[0xff, 0x87]);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0xa8_a8a8);
    b.clock.advance(NS_PER_SEC * 17 / 70);
    assert_eq!(b.refresh(), changed(&[(0, 0, 9, 16)]));
    assert_eq!(b.pixel(0, 0), 0);
    b.attr(0x10, 0x04);
    b.outb(0x3c0, 0x20);
    b.refresh();
    assert_eq!(b.pixel(8, 0), 0);
    b.poke(0xb8001, &[0x9f]);
    b.refresh();
    assert_eq!(b.pixel(8, 0), 0x00_00a8);
}

#[test]
fn a_changed_font_is_drawn_again() {
    let mut b = Bench::text_mode();
    b.poke(0xb8000, &[0, 7]);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0);
    b.vram.set_byte(2, 0x80);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0xa8_a8a8);
}

#[test]
fn attribute_bit_3_selects_the_second_font() {
    let mut b = Bench::text_mode();
    b.outw(0x3d4, 0x0a, 0x20);
    // Set A at 8 KiB, set B at 0.
    b.outw(0x3c4, 3, 0x20);
    b.vram.set_byte(0x2000 * 4 + 2, 0xff);
    b.poke(0xb8000, &[0, 7, 0, 15]);
    b.refresh();
    assert_eq!((b.pixel(0, 0), b.pixel(9, 0)), (0, 0xa8_a8a8));
}

#[test]
fn line_compare_splits_text() {
    let mut b = Bench::text_mode();
    b.outw(0x3d4, 0x0a, 0x20);
    b.poke(0xb8000, &[0xff, 0x07]);
    b.outw(0x3d4, 0x0d, 80);
    // Rows from 80 on above, row 0 from scan line 200 on.
    b.outw(0x3d4, 0x18, 199);
    b.outw(0x3d4, 0x07, 0x0f);
    b.outw(0x3d4, 0x09, 0x0f);
    b.refresh();
    assert_eq!([0, 199, 200].map(|y| b.pixel(0, y)), [0, 0, 0xa8_a8a8]);
}

#[test]
fn sixteen_colours_come_from_four_planes() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.vram.write(0, &[0b1000_0001, 0b0100_0001, 0b0010_0001, 0b0001_0001]);
    b.refresh();
    assert_eq!((b.surface.width(), b.surface.height()), (640, 480));
    assert_eq!(b.surface.line(0)[..8], [0x00_00a8, 0x00_a800, 0xa8_0000, 0, 0, 0, 0, 0xa8_a8a8]);
    b.poke(0xa0000 + 80 * 479 + 79, &[0x01]);
    assert_eq!(b.refresh(), changed(&[(639, 479, 1, 1)]));
}

#[test]
fn panning_moves_the_picture_by_pixels() {
    let mut b = Bench::new();
    b.set_mode(&PLANAR);
    b.vram.write(0, &[0x10, 0, 0, 0, 0x80, 0x80, 0x80, 0x80]);
    b.attr(0x13, 3);
    b.outb(0x3c0, 0x20);
    b.refresh();
    assert_eq!((b.pixel(0, 0), b.pixel(5, 0)), (0x00_00a8, 0xa8_a8a8));
}

#[test]
fn cga_lines_alternate_between_two_banks() {
    let mut b = Bench::new();
    b.set_mode(&CGA);
    b.poke(0xb8000, &[0b00_01_10_11]);
    b.poke(0xba000, &[0b11_00_00_00]);
    b.refresh();
    assert_eq!((b.surface.width(), b.surface.height()), (640, 400));
    let [black, one, two, three] = [0, 0x00_00a8, 0x00_a800, 0x00_a8a8];
    assert_eq!(b.surface.line(0)[..8], [black, black, one, one, two, two, three, three]);
    assert_eq!(b.surface.line(1)[..8], *b.surface.line(0).split_at(8).0);
    assert_eq!(b.surface.line(2)[..4], [three, three, black, black]);
}

#[test]
fn mode_13h_doubles_pixels_and_lines() {
    let mut b = Bench::new();
    b.set_mode(&CHAIN_4);
    b.poke(0xa0000, &[1, 2]);
    b.poke(0xa0000 + 320, &[4]);
    b.refresh();
    assert_eq!((b.surface.width(), b.surface.height()), (640, 400));
    assert_eq!(b.surface.line(1)[..5], [0x00_00a8, 0x00_00a8, 0x00_a800, 0x00_a800, 0]);
    assert_eq!(b.surface.line(2)[..3], [0xa8_0000, 0xa8_0000, 0]);
}

#[test]
fn unchained_256_colours_take_a_pixel_of_each_plane() {
    let mut b = Bench::new();
    b.set_mode(&CHAIN_4);
    b.outw(0x3c4, 4, 0x06);
    b.outw(0x3d4, 0x14, 0);
    b.outw(0x3d4, 0x17, 0xe3);
    b.outw(0x3c4, 2, 0x04);
    b.poke(0xa0000 + 80, &[2]);
    b.outw(0x3d4, 0x0d, 80);
    b.refresh();
    assert_eq!(b.surface.line(0)[..8], [0, 0, 0, 0, 0x00_a800, 0x00_a800, 0, 0]);
}

#[test]
fn linear_modes_show_every_depth() {
    let mut b = Bench::linear_mode(64, 32, 32);
    b.vram.write(4, &[0x11, 0x22, 0x33, 0xff]);
    b.refresh();
    assert_eq!((b.surface.width(), b.surface.height(), b.pixel(1, 0)), (64, 32, 0x33_2211));
    let mut b = Bench::linear_mode(64, 32, 24);
    b.vram.write(3, &[0x11, 0x22, 0x33]);
    b.refresh();
    assert_eq!((b.pixel(1, 0), b.pixel(2, 0)), (0x33_2211, 0));
    let mut b = Bench::linear_mode(64, 32, 16);
    b.vram.write(2, &0xfc1fu16.to_le_bytes());
    b.refresh();
    assert_eq!(b.pixel(1, 0), 0xff_82ff);
    let mut b = Bench::linear_mode(64, 32, 15);
    b.vram.write(2, &0x7e1fu16.to_le_bytes());
    b.refresh();
    assert_eq!(b.pixel(1, 0), 0xff_84ff);
    let mut b = Bench::linear_mode(64, 32, 8);
    b.dispi(4, 0x61);
    b.outb(0x3c8, 5);
    for part in [0x12, 0x34, 0xff] {
        b.outb(0x3c9, part);
    }
    b.vram.set_byte(1, 5);
    b.refresh();
    assert_eq!(b.pixel(1, 0), 0x12_34ff);
    let mut b = Bench::linear_mode(64, 32, 4);
    b.attr(1, 1);
    b.attr(0x12, 15);
    b.outb(0x3c0, 0x20);
    b.outb(0x3c8, 1);
    for part in [63, 0, 0] {
        b.outb(0x3c9, part);
    }
    b.vram.write(8 * 4, &[0x80]);
    b.refresh();
    assert_eq!((b.pixel(0, 1), b.pixel(1, 1)), (0xff_0000, 0));
}

#[test]
fn a_virtual_screen_scrolls_by_its_offsets() {
    let mut b = Bench::linear_mode(640, 480, 32);
    b.dispi(6, 1024);
    b.dispi(8, 8);
    b.dispi(9, 100);
    b.vram.write((100 * 1024 + 8) * 4, &[1, 2, 3]);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0x03_0201);
}

#[test]
fn the_horizontal_offset_counts_whole_words() {
    let mut b = Bench::linear_mode(640, 480, 16);
    b.dispi(6, 1000);
    b.dispi(8, 13);
    b.vram.write(12 * 2, &[0x00, 0xf8, 0x1f, 0x00]);
    b.refresh();
    assert_eq!((b.pixel(0, 0), b.pixel(1, 0)), (0xff_0000, 0x00_00ff));
}

#[test]
fn linear_changes_are_reported_where_they_are() {
    let mut b = Bench::linear_mode(1024, 768, 32);
    assert_eq!(b.refresh(), Refresh::Resized);
    assert_eq!(b.refresh(), changed(NOTHING));
    b.vram.write((100 * 1024 + 7) * 4, &[1]);
    b.vram.write((101 * 1024 + 9) * 4, &[1]);
    b.vram.write((700 * 1024) * 4, &[1]);
    assert_eq!(b.refresh(), changed(&[(7, 100, 3, 2), (0, 700, 1, 1)]));
    // A page that was written with what it held.
    b.vram.write((700 * 1024) * 4, &[1]);
    assert_eq!(b.refresh(), changed(NOTHING));
}

#[test]
fn the_palette_does_not_matter_to_true_colours() {
    let mut b = Bench::linear_mode(64, 32, 32);
    b.refresh();
    b.outb(0x3c8, 0);
    for part in [1, 2, 3] {
        b.outb(0x3c9, part);
    }
    assert_eq!(b.refresh(), changed(NOTHING));
}

#[test]
fn turning_the_screen_off_blanks_it() {
    let mut b = Bench::text_mode();
    b.poke(0xb8000, &[0xff, 0x77]);
    b.refresh();
    b.outw(0x3c4, 1, 0x20);
    assert_eq!(b.refresh(), changed(&[(0, 0, 720, 400)]));
    assert_eq!(b.pixel(0, 0), 0);
    b.outw(0x3c4, 1, 0x00);
    b.refresh();
    assert_eq!(b.pixel(0, 0), 0xa8_a8a8);
}

/// Fills the display memory with a pattern and draws it.
fn golden(mut b: Bench) -> (u32, u32, u64) {
    let pattern: Vec<u8> = (0..VGA_PATTERN).map(|i| (i.wrapping_mul(i) >> 7) as u8 ^ i as u8).collect();
    b.vram.write(0, &pattern);
    b.refresh();
    (b.surface.width(), b.surface.height(), b.hash())
}

const VGA_PATTERN: u32 = 256 << 10;

/// The renderer was compared with QEMU's screendumps in these modes (`examples/vga-replay.rs`); the hashes keep it.
#[test]
fn pictures_stay_as_they_were_compared_with_qemu() {
    let vga = |mode: &Mode| {
        let mut b = Bench::new();
        b.set_mode(mode);
        golden(b)
    };
    let linear = |bits| {
        let mut b = Bench::new();
        b.set_mode(&PLANAR);
        for (index, value) in [(1, 320), (2, 200), (3, bits), (4, 0x41)] {
            b.dispi(index, value);
        }
        golden(b)
    };
    let shown = [&TEXT, &CGA, &PLANAR, &CHAIN_4].map(vga);
    assert_eq!(
        shown,
        [
            (720, 400, 0xba6e_86bd_00a3_a3cd),
            (640, 400, 0xa5f3_8a13_a7db_80bd),
            (640, 480, 0x2098_d266_efeb_1a2d),
            (640, 400, 0xd331_71c3_12eb_02c1)
        ]
    );
    let shown = [4, 8, 15, 16, 24, 32].map(linear);
    assert_eq!(
        shown,
        [
            (320, 200, 0xd1e4_112d_459e_e38d),
            (320, 200, 0xc188_8b23_220e_a428),
            (320, 200, 0xc69f_607c_2562_c075),
            (320, 200, 0x8318_6d30_b336_9675),
            (320, 200, 0xd0e4_7dfe_fb53_dad5),
            (320, 200, 0xa84f_e583_f7ff_57d5)
        ]
    );
}
