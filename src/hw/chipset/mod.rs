//! What is soldered to a PC's board: bridges, power management, firmware configuration and small port devices.

mod acpi_pm;
pub mod debug_exit;
pub mod dma8237;
pub mod fw_cfg;
pub mod i440fx;
pub mod piix3;
pub mod piix4_pm;
pub mod port92;
pub mod q35;
mod smbus;
