//! Two processors and one memory.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::event::Clock;
use crate::mem::{RamBlock, RamRange};

use super::super::super::bench::cpu_model;
use super::super::super::cpu::Cpu;
use super::super::super::signals::Signals;
use super::super::PhysicalMap;
use super::*;

const DS: u8 = segment::DS as u8;

fn memory(len: u64) -> Arc<PhysicalMap> {
    let block = RamBlock::anonymous("test", len).unwrap();
    Arc::new(PhysicalMap::new(&[RamRange { gpa: 0, len, block, offset: 0, read_only: false }]).unwrap())
}

fn processor(index: u32, map: &Arc<PhysicalMap>) -> Box<Cpu> {
    let mut cpu = Cpu::new(index, cpu_model("max"), Clock::manual());
    cpu.segments[segment::DS].loaded.limit = u32::MAX;
    cpu.mode_changed();
    cpu.attach_memory(Arc::clone(map));
    cpu
}

/// Counts with two processors at one place.
fn count<T: Value>(map: &Arc<PhysicalMap>, address: u64, one_more: fn(T) -> T) {
    thread::scope(|scope| {
        for index in 0..2 {
            scope.spawn(move || {
                let mut cpu = processor(index, map);
                cpu.begin_active();
                for _ in 0..500 {
                    cpu.update::<T, true>(DS, address, one_more).unwrap();
                    if cpu.signals.pending() & Signals::EXCLUSIVE != 0 {
                        cpu.stand_still();
                    }
                }
                cpu.end_active();
            });
        }
    });
}

#[test]
fn locked_changes_are_not_lost() {
    let map = memory(0x4000);
    count::<u8>(&map, 0x1001, |x| x.wrapping_add(1));
    count::<u16>(&map, 0x1011, |x| x + 1);
    count::<u32>(&map, 0x1ffd, |x| x + 1);
    count::<u64>(&map, 0x2028, |x| x + 1);
    count::<u128>(&map, 0x2030, |x| x + (1 << 64));
    let mut cpu = processor(0, &map);
    assert_eq!(cpu.read::<u8>(DS, 0x1001), Ok(1000u32 as u8));
    assert_eq!(cpu.read::<u16>(DS, 0x1011), Ok(1000));
    assert_eq!(cpu.read::<u32>(DS, 0x1ffd), Ok(1000));
    assert_eq!(cpu.read::<u64>(DS, 0x2028), Ok(1000));
    assert_eq!(cpu.read::<u128>(DS, 0x2030), Ok(1000 << 64));
}

#[test]
fn locked_changes_across_pages_that_are_apart_in_the_host_are_not_lost() {
    let (a, b) = (RamBlock::anonymous("a", 0x3000).unwrap(), RamBlock::anonymous("b", 0x1000).unwrap());
    let range = |gpa, block: &Arc<RamBlock>, offset| RamRange {
        gpa,
        len: 0x1000,
        block: Arc::clone(block),
        offset,
        read_only: false,
    };
    let ranges = [range(0, &a, 0x2000), range(0x1000, &b, 0), range(0x2000, &a, 0)];
    let map = Arc::new(PhysicalMap::new(&ranges).unwrap());
    count::<u32>(&map, 0xffe, |x| x + 1);
    assert_eq!(processor(0, &map).read::<u32>(DS, 0xffe), Ok(1000));
    // One of them at a time with the other at a part of the place.
    let map = &map;
    thread::scope(|scope| {
        for (index, address) in [(0, 0x1ffe), (1, 0x2000)] {
            scope.spawn(move || {
                let mut cpu = processor(index, map);
                cpu.begin_active();
                for _ in 0..500 {
                    if index == 0 {
                        cpu.update::<u32, true>(DS, address, |x| x + 0x1_0000).unwrap();
                    } else {
                        cpu.update::<u16, true>(DS, address, |x| x + 1).unwrap();
                    }
                    if cpu.signals.pending() & Signals::EXCLUSIVE != 0 {
                        cpu.stand_still();
                    }
                }
                cpu.end_active();
            });
        }
    });
    assert_eq!(processor(0, map).read::<u16>(DS, 0x2000), Ok(1000));
}

#[test]
fn code_that_another_processor_writes_is_never_taken_for_the_old() {
    const ROUNDS: u32 = 3000;
    let map = memory(0x4000);
    let (round, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        // Stores n at the code's place, and says so by plain memory.
        scope.spawn(|| {
            let mut cpu = processor(1, &map);
            for n in 1..=ROUNDS {
                cpu.write::<u32>(DS, 0x1040, n).unwrap();
                round.store(n, Ordering::Release);
            }
            stop.store(true, Ordering::Release);
        });
        let mut cpu = processor(0, &map);
        let mut decoded = (0, None);
        loop {
            let done = stop.load(Ordering::Acquire);
            let at_least = round.load(Ordering::Acquire);
            let page = cpu.code_page(0x1040).unwrap();
            let known = decoded.1.filter(|&version| page.is_current(version));
            if known.is_none() {
                let version = page.version();
                let mut bytes = [0; 4];
                cpu.fetch(0x1040, &mut bytes).unwrap();
                decoded = (u32::from_le_bytes(bytes), Some(version));
            }
            // What is still current is not older than what the other one said before.
            assert!(decoded.0 >= at_least, "{} is older than {at_least}", decoded.0);
            if done {
                break;
            }
        }
        assert_eq!(decoded.0, ROUNDS);
    });
}

#[test]
fn one_alone_waits_for_those_who_execute_and_not_for_those_who_sleep() {
    let (a, b) = (RamBlock::anonymous("a", 0x2000).unwrap(), RamBlock::anonymous("b", 0x1000).unwrap());
    let first = RamRange { gpa: 0, len: 0x1000, block: a, offset: 0x1000, read_only: false };
    let second = RamRange { gpa: 0x1000, len: 0x1000, block: b, offset: 0, read_only: false };
    let map = Arc::new(PhysicalMap::new(&[first, second]).unwrap());
    let mut sleeper = processor(0, &map);
    sleeper.begin_active();
    sleeper.end_active();
    let mut cpu = processor(1, &map);
    cpu.begin_active();
    assert_eq!(cpu.update::<u32, true>(DS, 0xffe, |x| x + 1), Ok(0));
    assert_ne!(sleeper.signals.pending() & Signals::EXCLUSIVE, 0);
    sleeper.stand_still();
    assert_eq!(sleeper.signals.pending() & Signals::EXCLUSIVE, 0);
}
