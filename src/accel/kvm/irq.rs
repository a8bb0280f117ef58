//! The in-kernel interrupt controllers and the eventfds that reach them.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_IRQFD_FLAG_DEASSIGN, KVM_IRQFD_FLAG_RESAMPLE, KvmIrqRouting, kvm_enable_cap,
    kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch, kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi, kvm_irqchip, kvm_irqfd, kvm_msi,
    kvm_pit_state2,
};
use kvm_ioctls::VmFd;

use crate::accel::{AccelError, IoEvent};
use crate::bus::{LineSink, MsiSink};

use super::{host_error, io_error, sys};

/// Pins of the I/O APIC.
const IOAPIC_PINS: u32 = 24;

/// Which interrupt controllers the kernel has (`kernel-irqchip=`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IrqChip {
    /// All, and the PIT.
    #[default]
    On,
    /// The local APICs.
    Split,
    /// None.
    Off,
}

impl IrqChip {
    /// From the option's value.
    #[must_use]
    pub fn named(value: &str) -> Option<Self> {
        Some(match value {
            "on" => Self::On,
            "split" => Self::Split,
            "off" => Self::Off,
            _ => return None,
        })
    }
}

/// Leaves only the local APICs to the kernel.
pub(super) fn split(vm: &VmFd) -> Result<(), AccelError> {
    let cap = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args: [IOAPIC_PINS.into(), 0, 0, 0], ..Default::default() };
    vm.enable_cap(&cap).map_err(|e| host_error("KVM_CAP_SPLIT_IRQCHIP", e))
}

/// The kernel's local APICs with the machine's I/O APIC.
pub(super) struct KernelApics {
    pub(super) vm: Arc<VmFd>,
}

/// A message as two halves of its address, and its data.
fn halves(address: u64) -> (u32, u32) {
    ((address & 0xffff_ffff) as u32, (address >> 32) as u32)
}

impl MsiSink for KernelApics {
    fn send(&self, address: u64, data: u32) {
        let (address_lo, address_hi) = halves(address);
        let message = kvm_msi { address_lo, address_hi, data, ..Default::default() };
        // Nobody there to take it is an answer, too.
        if let Err(error) = self.vm.signal_msi(message) {
            log::error!("KVM_SIGNAL_MSI {address:#x} {data:#x}: {error}");
        }
    }

    /// The kernel exits for the EOIs of level-triggered routes only.
    fn set_level_routes(&self, routes: &[Option<(u64, u32)>]) {
        let entry = |(gsi, route): (u32, &Option<(u64, u32)>)| {
            let (address, data) = (*route)?;
            let (address_lo, address_hi) = halves(address);
            let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
            entry.u.msi = kvm_irq_routing_msi { address_lo, address_hi, data, ..Default::default() };
            Some(entry)
        };
        let entries: Vec<_> = (0u32..).zip(routes).filter_map(entry).collect();
        let Ok(table) = KvmIrqRouting::from_entries(&entries) else { return };
        if let Err(error) = self.vm.set_gsi_routing(&table) {
            log::error!("KVM_SET_GSI_ROUTING: {error}");
        }
    }
}

/// KVM's PICs and I/O APIC: input n is global system interrupt n.
pub(super) struct KernelIrqChip {
    pub(super) vm: Arc<VmFd>,
}

impl LineSink for KernelIrqChip {
    fn set_level(&self, input: u32, high: bool) {
        if let Err(error) = self.vm.set_irq_line(input, high) {
            log::error!("KVM_IRQ_LINE {input}: {error}");
        }
    }
}

/// One route of a global system interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    gsi: u32,
    chip: u32,
    pin: u32,
}

/// The PC's wiring: ISA interrupts reach both the PICs and the I/O APIC, where the timer's IRQ 0 is on pin 2 (the
/// override that the MADT announces); pins 16-23 belong to the I/O APIC alone.
fn pc_routes() -> impl Iterator<Item = Route> {
    let master = (0..8).map(|irq| Route { gsi: irq, chip: KVM_IRQCHIP_PIC_MASTER, pin: irq });
    let slave = (0..8).map(|pin| Route { gsi: 8 + pin, chip: KVM_IRQCHIP_PIC_SLAVE, pin });
    let ioapic = (0..IOAPIC_PINS).filter(|gsi| *gsi != 2).map(|gsi| Route {
        gsi,
        chip: KVM_IRQCHIP_IOAPIC,
        pin: if gsi == 0 { 2 } else { gsi },
    });
    master.chain(slave).chain(ioapic)
}

/// Tells the kernel the PC's routes.
pub(super) fn set_pc_routes(vm: &VmFd) -> Result<(), AccelError> {
    let entries: Vec<_> = pc_routes()
        .map(|route| {
            let mut entry =
                kvm_irq_routing_entry { gsi: route.gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
            entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: route.chip, pin: route.pin };
            entry
        })
        .collect();
    let table = KvmIrqRouting::from_entries(&entries)
        .map_err(|_| AccelError::Unsupported("KVM_SET_GSI_ROUTING: too many routes".to_owned()))?;
    vm.set_gsi_routing(&table).map_err(|e| host_error("KVM_SET_GSI_ROUTING", e))
}

/// The state of the chips that the kernel holds.
pub(super) struct Chips {
    /// Master PIC, slave PIC, I/O APIC.
    controllers: [kvm_irqchip; 3],
    pit: kvm_pit_state2,
}

impl Chips {
    /// Takes the state of a virtual machine's chips.
    pub(super) fn read(vm: &VmFd) -> Result<Self, AccelError> {
        let mut controllers = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC]
            .map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for controller in &mut controllers {
            vm.get_irqchip(controller).map_err(|e| host_error("KVM_GET_IRQCHIP", e))?;
        }
        let pit = vm.get_pit2().map_err(|e| host_error("KVM_GET_PIT2", e))?;
        Ok(Self { controllers, pit })
    }

    /// Gives the chips this state.
    pub(super) fn write(&self, vm: &VmFd) -> Result<(), AccelError> {
        for controller in &self.controllers {
            vm.set_irqchip(controller).map_err(|e| host_error("KVM_SET_IRQCHIP", e))?;
        }
        vm.set_pit2(&self.pit).map_err(|e| host_error("KVM_SET_PIT2", e))
    }
}

/// Attaches an interrupt eventfd.
pub(super) fn add_irqfd(
    vm: &VmFd,
    gsi: u32,
    fd: BorrowedFd<'_>,
    resample: Option<BorrowedFd<'_>>,
) -> Result<(), AccelError> {
    let mut request = kvm_irqfd { fd: sys::raw(fd).cast_unsigned(), gsi, ..Default::default() };
    if let Some(resample) = resample {
        request.flags = KVM_IRQFD_FLAG_RESAMPLE;
        request.resamplefd = sys::raw(resample).cast_unsigned();
    }
    sys::irqfd(vm, &request).map_err(|e| io_error("KVM_IRQFD", e))
}

/// Detaches an interrupt eventfd.
pub(super) fn remove_irqfd(vm: &VmFd, gsi: u32, fd: BorrowedFd<'_>) -> Result<(), AccelError> {
    let request =
        kvm_irqfd { fd: sys::raw(fd).cast_unsigned(), gsi, flags: KVM_IRQFD_FLAG_DEASSIGN, ..Default::default() };
    sys::irqfd(vm, &request).map_err(|e| io_error("KVM_IRQFD", e))
}

/// Attaches or detaches an eventfd that takes guest writes.
pub(super) fn ioeventfd(vm: &VmFd, event: IoEvent, fd: BorrowedFd<'_>, attach: bool) -> Result<(), AccelError> {
    let (addr, len, value, port) = match event {
        IoEvent::Port { port, len, value } => (u64::from(port), len, value, true),
        IoEvent::Mmio { gpa, len, value } => (gpa, len, value, false),
    };
    let bit = |set: bool, number: u32| if set { 1 << number } else { 0 };
    let request = kvm_ioeventfd {
        datamatch: value.unwrap_or(0),
        addr,
        len: u32::from(len),
        fd: sys::raw(fd),
        flags: bit(port, kvm_ioeventfd_flag_nr_pio)
            | bit(value.is_some(), kvm_ioeventfd_flag_nr_datamatch)
            | bit(!attach, kvm_ioeventfd_flag_nr_deassign),
        ..Default::default()
    };
    sys::ioeventfd(vm, &request).map_err(|e| io_error("KVM_IOEVENTFD", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_on_pin_2_of_the_io_apic() {
        let routes: Vec<_> = pc_routes().collect();
        assert!(routes.contains(&Route { gsi: 0, chip: KVM_IRQCHIP_IOAPIC, pin: 2 }));
        assert!(!routes.iter().any(|route| route.chip == KVM_IRQCHIP_IOAPIC && route.gsi == 2));
        assert!(routes.contains(&Route { gsi: 9, chip: KVM_IRQCHIP_PIC_SLAVE, pin: 1 }));
        assert_eq!(routes.len(), 16 + 23);
    }
}
