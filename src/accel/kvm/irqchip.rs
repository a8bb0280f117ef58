//! The registers of the in-kernel interrupt controllers, for monitors.

use kvm_bindings::{KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_irqchip};
use kvm_ioctls::VmFd;

use crate::bus::{IoApicRegisters, IrqChipState, PicRegisters};

/// KVM's I/O APIC has no EOI register.
const VERSION: u8 = 0x11;

/// All of them, if the host tells.
pub(super) fn state(vm: &VmFd) -> Option<IrqChipState> {
    Some(IrqChipState {
        pics: [pic(vm, KVM_IRQCHIP_PIC_MASTER)?, pic(vm, KVM_IRQCHIP_PIC_SLAVE)?],
        ioapic: ioapic(vm)?,
    })
}

fn get(vm: &VmFd, chip_id: u32) -> Option<kvm_irqchip> {
    let mut chip = kvm_irqchip { chip_id, ..Default::default() };
    vm.get_irqchip(&mut chip).ok()?;
    Some(chip)
}

fn pic(vm: &VmFd, chip_id: u32) -> Option<PicRegisters> {
    let chip = get(vm, chip_id)?;
    // SAFETY: KVM_GET_IRQCHIP fills in the member that `chip_id` names, here a PIC; it is plain bytes throughout.
    let pic = unsafe { chip.chip.pic };
    Some(PicRegisters {
        irr: pic.irr,
        imr: pic.imr,
        isr: pic.isr,
        priority_add: pic.priority_add,
        irq_base: pic.irq_base,
        read_isr: pic.read_reg_select != 0,
        elcr: pic.elcr,
        special_fully_nested: pic.special_fully_nested_mode != 0,
    })
}

fn ioapic(vm: &VmFd) -> Option<IoApicRegisters> {
    let chip = get(vm, KVM_IRQCHIP_IOAPIC)?;
    // SAFETY: as above, for the I/O APIC.
    let ioapic = unsafe { chip.chip.ioapic };
    // SAFETY: both members of an entry are plain bits.
    let redirections = ioapic.redirtbl.iter().map(|entry| unsafe { entry.bits }).collect();
    let select = u8::try_from(ioapic.ioregsel & 0xff).unwrap_or(0);
    let id = u8::try_from(ioapic.id & 0xff).unwrap_or(0);
    Some(IoApicRegisters { version: VERSION, id, select, redirections, irr: ioapic.irr })
}
