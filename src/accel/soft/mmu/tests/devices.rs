//! What is not RAM, and changes of the map.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::bus::LocalApic;
use crate::mem::{RamBlock, RamRange};

use super::super::PhysicalMap;
use super::*;

const DEVICE: u64 = 0xf000_0000;

#[test]
fn devices_see_the_width_of_an_access() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    assert_eq!(b.cpu.read_linear::<u32>(DEVICE + 4, Privilege::Current), Ok(0x0706_0504));
    b.cpu.write_linear(DEVICE + 8, 0x1234u16, Privilege::Current).unwrap();
    assert_eq!(notes.take(), [Seen::Read(DEVICE + 4, 4), Seen::Write(DEVICE + 8, vec![0x34, 0x12])]);
}

#[test]
fn an_access_across_ram_and_a_device_is_split() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    b.load(Bench::RAM - 2, &[0xaa, 0xbb]);
    assert_eq!(b.cpu.read_linear::<u32>(Bench::RAM - 2, Privilege::Current), Ok(0x0100_bbaa));
    b.cpu.write_linear(Bench::RAM - 2, 0x4433_2211u32, Privilege::Current).unwrap();
    assert_eq!((b.ram.byte(Bench::RAM - 2), b.ram.byte(Bench::RAM - 1)), (0x11, 0x22));
    assert_eq!(notes.take(), [Seen::Read(Bench::RAM, 2), Seen::Write(Bench::RAM, vec![0x33, 0x44])]);
}

#[test]
fn a_locked_change_of_a_device_reads_and_writes_once() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    b.cpu.load_registers(&unreal());
    assert_eq!(b.cpu.update::<u8, true>(3, DEVICE + 3, |x| x + 1), Ok(3));
    assert_eq!(notes.take(), [Seen::Read(DEVICE + 3, 1), Seen::Write(DEVICE + 3, vec![4])]);
}

/// Real mode with a data segment of 4 GiB.
fn unreal() -> crate::cpu::CpuState {
    let mut state = crate::cpu::CpuState::power_on(0);
    state.segments[3].limit = u32::MAX;
    state
}

fn range(gpa: u64, block: &Arc<RamBlock>, read_only: bool) -> RamRange {
    RamRange { gpa, len: 0x1000, block: Arc::clone(block), offset: 0, read_only }
}

#[test]
fn writes_to_rom_go_to_the_bus() {
    let mut b = Bench::max();
    let rom = RamBlock::anonymous("rom", 0x1000).unwrap();
    rom.write(0, &[1, 2, 3, 4]);
    b.cpu.attach_memory(Arc::new(PhysicalMap::new(&[range(0x1000, &rom, true)]).unwrap()));
    let notes = with_notes(&mut b);
    assert_eq!(b.cpu.read_linear::<u32>(0x1000, Privilege::Current), Ok(0x0403_0201));
    b.cpu.write_linear(0x1000, 9u8, Privilege::Current).unwrap();
    assert_eq!(b.cpu.read_linear::<u8>(0x1000, Privilege::Current), Ok(1));
    assert_eq!(notes.take(), [Seen::Write(0x1000, vec![9])]);
}

#[test]
fn a_map_that_an_access_changes_holds_for_the_next_one() {
    let mut b = Bench::max();
    let (old, new) = (RamBlock::anonymous("old", 0x1000).unwrap(), RamBlock::anonymous("new", 0x1000).unwrap());
    old.write(0, &[1]);
    new.write(0, &[2]);
    let map = Arc::new(PhysicalMap::new(&[range(0x1000, &old, false)]).unwrap());
    b.cpu.attach_memory(Arc::clone(&map));
    let notes = with_notes(&mut b);
    assert_eq!(b.cpu.read_linear::<u8>(0x1000, Privilege::Current), Ok(1));
    let newer = [range(0x1000, &new, false)];
    *notes.at_write.lock().unwrap() = Some(Box::new(move || map.set_ranges(&newer)));
    b.cpu.write_linear(DEVICE, 0u8, Privilege::Current).unwrap();
    assert_eq!(b.cpu.read_linear::<u8>(0x1000, Privilege::Current), Ok(2));
    assert_eq!(b.cpu.mmu.events, super::super::events::MAP_CHANGED);
}

#[test]
fn a_map_that_a_port_changes_holds_for_the_next_access() {
    let mut b = Bench::max();
    let map = Arc::new(PhysicalMap::new(&[]).unwrap());
    b.cpu.attach_memory(Arc::clone(&map));
    let notes = with_notes(&mut b);
    let new = RamBlock::anonymous("new", 0x1000).unwrap();
    new.write(1, &[0x42]);
    let newer = [range(0x1000, &new, false)];
    *notes.at_write.lock().unwrap() = Some(Box::new(move || map.set_ranges(&newer)));
    b.cpu.port_write(0x92, Width::B1, 2);
    assert_eq!(b.cpu.read_linear::<u8>(0x1001, Privilege::Current), Ok(0x42));
    assert_eq!(b.cpu.port_read(0x61, Width::B1), 0x61);
}

#[test]
fn a_borrowed_bus_is_gone_after_the_call() {
    let mut b = Bench::max();
    let notes = Notes::default();
    let kept = b.cpu.with_bus(&notes, |cpu| {
        cpu.write_linear(DEVICE, 5u8, Privilege::Current).unwrap();
        cpu.mmu.bus.clone().unwrap()
    });
    assert_eq!(notes.take(), [Seen::Write(DEVICE, vec![5])]);
    kept.mmio_write(DEVICE, &[6]);
    assert_eq!(notes.take(), []);
    assert_eq!(b.cpu.read_linear::<u8>(DEVICE, Privilege::Current), Ok(0xff));
}

#[test]
fn logged_memory_marks_its_pages() {
    let mut b = Bench::max();
    let vram = RamBlock::tracked("vram", 0x4000).unwrap();
    let whole = RamRange { gpa: 0xa_0000, len: 0x4000, block: Arc::clone(&vram), offset: 0, read_only: false };
    b.cpu.attach_memory(Arc::new(PhysicalMap::new(&[whole]).unwrap()));
    b.cpu.read_linear::<u8>(0xa_0000, Privilege::Current).unwrap();
    assert!(!vram.dirty().take(0, 0x4000));
    b.cpu.write_linear(0xa_1fff, 0u16, Privilege::Current).unwrap();
    b.cpu.write_linear(0xa_1ffe, 0u16, Privilege::Current).unwrap();
    let mut dirty = Vec::new();
    vram.dirty().take_each(0, 0x4000, |offset| dirty.push(offset));
    assert_eq!(dirty, [0x1000, 0x2000]);
    b.cpu.write_linear(0xa_1ffe, 0u16, Privilege::Current).unwrap();
    assert!(vram.dirty().take(0x1000, 1));
}

/// A local APIC with one register that counts.
struct Apic {
    base: u64,
    last: AtomicU32,
}

impl LocalApic for Apic {
    fn read(&self, offset: u16) -> u32 {
        self.last.load(Ordering::Relaxed) << 16 | u32::from(offset)
    }

    fn write(&self, offset: u16, value: u32) {
        self.last.store(u32::from(offset) << 8 | value, Ordering::Relaxed);
    }

    fn base(&self) -> u64 {
        self.base
    }

    fn set_base(&self, _value: u64) -> bool {
        false
    }

    fn read_msr(&self, _msr: u32) -> Option<u64> {
        None
    }

    fn write_msr(&self, _msr: u32, _value: u64) -> bool {
        false
    }

    fn task_priority(&self) -> u8 {
        0
    }

    fn set_task_priority(&self, _priority: u8) {}

    fn acknowledge(&self) -> Option<u8> {
        None
    }

    fn set_tsc_offset(&self, _offset: u64) {}

    fn init(&self) {}

    fn registers(&self) -> Vec<u8> {
        Vec::new()
    }
}

#[test]
fn the_local_apic_answers_32_bits_at_its_own_page() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    b.cpu.apic = Some(Arc::new(Apic { base: 0x8900, last: AtomicU32::new(0) }));
    assert_eq!(b.cpu.read_linear::<u32>(0x8030, Privilege::Current), Ok(0x30));
    b.cpu.write_linear(0x8080, 1u32, Privilege::Current).unwrap();
    assert_eq!(b.cpu.read_linear::<u32>(0x8020, Privilege::Current), Ok(0x8001_0020));
    assert_eq!(b.cpu.read_linear::<u8>(0x8020, Privilege::Current), Ok(0));
    b.cpu.write_linear(0x8020, 1u8, Privilege::Current).unwrap();
    assert_eq!(b.cpu.read_linear::<u32>(0x8020, Privilege::Current), Ok(0x8001_0020));
    assert_eq!(notes.take(), []);
}

#[test]
fn a_local_apic_in_x2apic_mode_has_no_page() {
    let mut b = Bench::max();
    let notes = with_notes(&mut b);
    b.cpu.apic = Some(Arc::new(Apic { base: 0xfee0_0d00, last: AtomicU32::new(0) }));
    b.cpu.read_linear::<u32>(0xfee0_0030, Privilege::Current).unwrap();
    assert_eq!(notes.take(), [Seen::Read(0xfee0_0030, 4)]);
}
