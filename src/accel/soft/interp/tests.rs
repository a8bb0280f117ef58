use super::super::bench::Bench;

#[test]
fn a_loop_adds_numbers() {
    let mut b = Bench::max();
    // mov cx, 10; xor ax, ax; l: add ax, cx; loop l; jmp $
    b.load(0x1000, &[0xb9, 10, 0, 0x31, 0xc0, 0x01, 0xc8, 0xe2, 0xfc, 0xeb, 0xfe]);
    b.cpu.segments[1].loaded.base = 0;
    b.cpu.mode_changed();
    b.cpu.rip = 0x1000;
    b.cpu.budget = 40;
    b.cpu.execute();
    assert_eq!(b.cpu.gpr[0], 55);
    assert_eq!(b.cpu.rip, 0x1009);
    assert_eq!(b.cpu.executed, 40);
}
