//! The software CPU in the state that the host's process is in: user code in long or compatibility mode.

use std::sync::Arc;

use dromaius::accel::soft::mmu::PhysicalMap;
use dromaius::accel::soft::{Cpu, Flow, vector};
use dromaius::cpu::{CpuModel, CpuState, Segment, Table, Topology, resolve};
use dromaius::event::Clock;
use dromaius::mem::{RamBlock, RamRange};

use crate::native::{CODE, DATA, DATA_LEN, GS_BASE, READ_ONLY, Registers, Stop};

const RAM: u64 = 4 << 20;
const CODE_GPA: u64 = 0x10_0000;
const DATA_GPA: u64 = 0x11_0000;
const READ_ONLY_GPA: u64 = 0x12_0000;

/// A processor with the test's pages.
pub struct Emulator {
    cpu: Box<Cpu>,
    ram: Arc<RamBlock>,
    /// What it shows.
    pub model: Arc<CpuModel>,
}

/// How an instruction ended.
pub enum End {
    /// It completed.
    Done,
    /// It faulted.
    Fault(Stop),
}

fn entry(ram: &RamBlock, table: u64, index: u64, value: u64) {
    ram.write(table + index * 8, &value.to_le_bytes());
}

/// The maker of this host's processor: where they differ, the guest's shall be as this one.
fn host_vendor() -> String {
    let answer = std::arch::x86_64::__cpuid(0);
    let bytes = [answer.ebx, answer.edx, answer.ecx].map(u32::to_le_bytes).concat();
    String::from_utf8(bytes).unwrap()
}

impl Emulator {
    /// Model `max`, paging on, XCR0 as given.
    pub fn new(xcr0: u64) -> Self {
        let ram = RamBlock::anonymous("test", RAM).unwrap();
        const PRESENT: u64 = 1;
        const WRITE: u64 = 2;
        const USER: u64 = 4;
        const NO_EXECUTE: u64 = 1 << 63;
        entry(&ram, 0x1000, 0, 0x2000 | PRESENT | WRITE | USER);
        entry(&ram, 0x2000, CODE >> 30, 0x3000 | PRESENT | WRITE | USER);
        entry(&ram, 0x3000, 0, 0x4000 | PRESENT | WRITE | USER);
        entry(&ram, 0x3000, 1, 0x5000 | PRESENT | WRITE | USER);
        entry(&ram, 0x4000, 0, CODE_GPA | PRESENT | USER);
        for page in 0..DATA_LEN as u64 >> 12 {
            entry(
                &ram,
                0x4000,
                ((DATA - CODE) >> 12) + page,
                (DATA_GPA + (page << 12)) | PRESENT | WRITE | USER | NO_EXECUTE,
            );
        }
        entry(&ram, 0x5000, READ_ONLY >> 12 & 511, READ_ONLY_GPA | PRESENT | USER | NO_EXECUTE);
        let host = vector::host_cpu();
        let vendor = [("vendor".to_owned(), host_vendor())];
        let model = Arc::new(resolve(Some("max"), &vendor, Topology::default(), &host).unwrap().model);
        let mut cpu = Cpu::new(0, Arc::clone(&model), Clock::manual());
        let range = RamRange { gpa: 0, len: RAM, block: Arc::clone(&ram), offset: 0, read_only: false };
        cpu.attach_memory(Arc::new(PhysicalMap::new(&[range]).unwrap()));
        let mut state = CpuState::power_on(0);
        // PE MP ET NE WP AM PG; PAE MCE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE UMIP; SCE LME LMA NXE.
        state.cr0 = 0x8005_0033;
        state.cr3 = 0x1000;
        state.cr4 = 0x0005_06e0 | 1 << 11;
        // Where the host's kernel uses protection keys (OSPKE).
        if std::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 4 != 0 && model.has("pku") {
            state.cr4 |= 1 << 22;
        }
        state.efer = 0xd01;
        state.xcr0 = xcr0;
        state.gdtr = Table { base: 0, limit: 0 };
        // No gate: Linux's are closed to programs, which is the same #GP.
        state.idtr = Table { base: 0, limit: 0 };
        // Too short for an I/O bitmap: no port is open.
        state.tr.limit = 0x60;
        cpu.load_state(&state);
        Self { cpu, ram, model }
    }

    /// Runs one instruction; `data` is the data pages' content before, and after.
    pub fn run(
        &mut self,
        before: &Registers,
        code: &[u8],
        compat: bool,
        data: &mut [u8],
        after: &mut Registers,
    ) -> End {
        self.ram.write(CODE_GPA, code);
        self.ram.write(DATA_GPA, data);
        let code = Segment {
            selector: if compat { 0x23 } else { 0x33 },
            base: 0,
            limit: 0xffff_ffff,
            attributes: if compat { 0xc0fb } else { 0xa0fb },
        };
        let flat = Segment { selector: 0x2b, base: 0, limit: 0xffff_ffff, attributes: 0xc0f3 };
        let null = Segment { selector: 0, base: 0, limit: 0, attributes: 1 << 16 };
        let gs = Segment { base: GS_BASE, ..null };
        let other = if compat { flat } else { null };
        let cpu = &mut self.cpu;
        cpu.gpr[..16].copy_from_slice(&before.gpr);
        cpu.rip = before.rip;
        cpu.set_rflags(before.flags);
        for (register, loaded) in cpu.segments.iter_mut().zip([other, code, flat, other, null, gs]) {
            register.loaded = loaded;
        }
        cpu.mode_changed();
        cpu.load_xsave(&before.xsave);
        let mut end = End::Done;
        // A repeated string instruction comes back to be interrupted.
        for _ in 0..1000 {
            match cpu.try_step() {
                Ok(Flow::Again) => {}
                Ok(_) => break,
                Err(_) => {
                    let exception = cpu.exception;
                    end = End::Fault(Stop {
                        vector: u64::from(exception.vector),
                        error: u64::from(exception.error.unwrap_or(0)),
                        address: exception.payload,
                    });
                    break;
                }
            }
        }
        after.gpr.copy_from_slice(&cpu.gpr[..16]);
        after.rip = cpu.rip;
        after.flags = cpu.rflags();
        after.xsave.fill(0);
        let image = cpu.save_xsave();
        let len = image.len().min(after.xsave.len());
        after.xsave[..len].copy_from_slice(&image[..len]);
        self.ram.read(DATA_GPA, data);
        end
    }
}
