//! Devices and how they are wired: the device trait, interrupt lines, address dispatch, PCI, and the board that owns
//! them all.

mod apic;
mod board;
mod device;
mod irqchip;
mod pci;
mod pirq;
mod ports;
mod posted;
mod wire;

pub use apic::{Acknowledge, CpuPins, EoiSink, LocalApic, MsiSink};
pub use board::{Board, BoardCell, DeviceRef, GuestBus, MapStats, MmioTarget, RegionHandle};
pub use device::{At, Decode, Device, DeviceId, Region, Reset, Token, Width};
pub use irqchip::{IoApicRegisters, IrqChipState, PicRegisters};
pub use pci::{
    Bar, BarKind, CAP_LIST, COMMAND_BUS_MASTER, COMMAND_INTX_DISABLE, COMMAND_IO, COMMAND_MEMORY, ConfigChange,
    ConfigSpace, PciAddress, PciFunction,
};
pub use pirq::{PirqRouter, PirqWiring};
pub use posted::{PostedRange, PostedWrite, PostedWrites};
pub use wire::{A20Gate, IrqLine, LineSink, OrGate, PowerRequest, PowerSink, Probe};
