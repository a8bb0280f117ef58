//! The chips of the `q35` machine: MCH and ICH9. PCI slots are QEMU's: 0 host bridge, 31 ICH9 (functions: 0 LPC, 2 SATA,
//! 3 SMBus).

use std::sync::Arc;

use crate::bus::{Board, Decode, PciAddress, RegionHandle};
use crate::hw::ahci::{self, Ahci};
use crate::hw::chipset::i440fx::PamSegment;
use crate::hw::chipset::q35::lpc::{self, Ich9Lpc};
use crate::hw::chipset::q35::mch::{self, EcamBase, Mch};
use crate::hw::chipset::q35::smbus::{self, Ich9Smbus};
use crate::hw::ide::FaultSink;

use super::layout::RamLayout;
use super::pc::{PcOptions, South, Wiring, priority};

const HOST_BRIDGE: PciAddress = PciAddress::new(0, 0);
const LPC: PciAddress = PciAddress::new(31, 0);
const SATA: PciAddress = PciAddress::new(31, 2);
const SMBUS: PciAddress = PciAddress::new(31, 3);

/// Adds the memory controller hub.
pub(super) fn add_mch(
    board: &mut Board,
    options: &PcOptions,
    layout: RamLayout,
    segments: [PamSegment; 13],
    smram: RegionHandle,
    ecam_base: &EcamBase,
) {
    let id = board.reserve("mch");
    let ecam = board.map_ecam(mch::ECAM_LEN, priority::ROM);
    let tsegs = mch::tseg_lengths(options.extended_tseg_mib).map(|len| {
        let len = len.min(layout.below_4g);
        let start = layout.below_4g - len;
        let tseg = board.map_mmio(id, mch::TSEG, Decode::UP_TO_8, start, len, priority::SMRAM);
        tseg.set_enabled(false);
        tseg
    });
    let wires = mch::Wires { segments, smram, tsegs, ecam, ecam_base: Arc::clone(ecam_base) };
    board.install(id, Mch::new(options.extended_tseg_mib, wires));
    board.plug_pci(HOST_BRIDGE, id, Decode::UP_TO_4, &[]);
}

/// Adds the ICH9.
pub(super) fn add_south(board: &mut Board, wiring: &Wiring, options: &PcOptions, faults: FaultSink) -> South {
    let id = board.reserve("ICH9-LPC");
    let pm_ports = board.map_ports(id, lpc::PM, Decode::UP_TO_4, 0, lpc::PM_LEN);
    pm_ports.set_enabled(false);
    let rcrb = board.map_mmio(id, lpc::RCRB, Decode::UP_TO_4, 0, lpc::RCRB_LEN, priority::ROM);
    rcrb.set_enabled(false);
    board.map_ports(id, lpc::APM, Decode::BYTES, 0xb2, 2);
    board.map_ports(id, lpc::RESET_CONTROL, Decode::BYTES, 0xcf9, 1);
    let wires = lpc::Wires {
        sci: wiring.irqs.isa(9),
        clock: wiring.clock.clone(),
        pm_timer: wiring.timer(id, lpc::PM_TIMER_TOKEN),
        tco_timer: wiring.timer(id, lpc::TCO_TOKEN),
        power: Arc::clone(&wiring.power),
        router: Arc::clone(wiring.irqs.router()),
        pm_ports,
        rcrb,
    };
    let chip = lpc::Options {
        disable_s3: options.chips.disable_s3 != 0,
        disable_s4: options.chips.disable_s4 != 0,
        s4_type: options.chips.s4_type,
        no_reboot: options.chips.tco_no_reboot,
    };
    let lpc = board.install(id, Ich9Lpc::new(wires, chip));
    board.plug_pci(LPC, id, Decode::UP_TO_4, &[]);

    let wires = ahci::Wires {
        irq: wiring.irqs.router().line(SATA.device, 0),
        msi: Arc::clone(&wiring.messages),
        ram: wiring.ram.clone(),
        faults,
    };
    let ahci = board.add("ich9-ahci", Ahci::new(wires, true));
    board.plug_pci(SATA, ahci.id(), ahci::DECODE, &[]);

    let smbus = board.add("ICH9-SMB", Ich9Smbus::new(vec![[0; 256]; 8]));
    board.plug_pci(SMBUS, smbus.id(), smbus::DECODE, &[]);
    South::Ich9 { lpc, ahci }
}
