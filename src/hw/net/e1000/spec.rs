//! Registers, bits and descriptors (8254x Family of Gigabit Ethernet Controllers Software Developer's Manual, 13).

/// Register offsets (table 13-2).
pub mod reg {
    pub const CTRL: u32 = 0x0000;
    pub const CTRL_DUP: u32 = 0x0004;
    pub const STATUS: u32 = 0x0008;
    pub const EECD: u32 = 0x0010;
    pub const EERD: u32 = 0x0014;
    pub const MDIC: u32 = 0x0020;
    pub const VET: u32 = 0x0038;
    pub const ICR: u32 = 0x00c0;
    pub const ITR: u32 = 0x00c4;
    pub const ICS: u32 = 0x00c8;
    pub const IMS: u32 = 0x00d0;
    pub const IMC: u32 = 0x00d8;
    pub const RCTL: u32 = 0x0100;
    pub const TCTL: u32 = 0x0400;
    pub const TIPG: u32 = 0x0410;
    pub const LEDCTL: u32 = 0x0e00;
    pub const PBA: u32 = 0x1000;
    pub const RDBAL: u32 = 0x2800;
    pub const RDBAH: u32 = 0x2804;
    pub const RDLEN: u32 = 0x2808;
    pub const RDH: u32 = 0x2810;
    pub const RDT: u32 = 0x2818;
    pub const TDBAL: u32 = 0x3800;
    pub const TDBAH: u32 = 0x3804;
    pub const TDLEN: u32 = 0x3808;
    pub const TDH: u32 = 0x3810;
    pub const TDT: u32 = 0x3818;
    /// First statistics register.
    pub const STATISTICS: u32 = 0x4000;
    /// The word behind the last one.
    pub const STATISTICS_END: u32 = 0x4128;
    pub const RXCSUM: u32 = 0x5000;
    pub const MTA: u32 = 0x5200;
    pub const RA: u32 = 0x5400;
    pub const VFTA: u32 = 0x5600;
    /// Flexible filters end here; nothing is behind them.
    pub const LAST: u32 = 0x9fff;
}

/// Device control (13.4.1).
pub mod ctrl {
    pub const FD: u32 = 1 << 0;
    pub const RST: u32 = 1 << 26;
    pub const VME: u32 = 1 << 30;
    pub const PHY_RST: u32 = 1 << 31;
}

/// Device status (13.4.2).
pub mod status {
    pub const FD: u32 = 1 << 0;
    pub const LU: u32 = 1 << 1;
    /// 1000 Mb/s, found by the PHY as well.
    pub const SPEED_1000: u32 = 2 << 6 | 2 << 8;
}

/// EEPROM/flash control (13.4.3).
pub mod eecd {
    pub const SK: u32 = 1 << 0;
    pub const CS: u32 = 1 << 1;
    pub const DI: u32 = 1 << 2;
    pub const DO: u32 = 1 << 3;
    pub const FWE: u32 = 3 << 4;
    pub const REQ: u32 = 1 << 6;
    pub const GNT: u32 = 1 << 7;
    pub const PRES: u32 = 1 << 8;
}

/// Interrupt causes (13.4.17).
pub mod cause {
    pub const TXDW: u32 = 1 << 0;
    pub const TXQE: u32 = 1 << 1;
    pub const LSC: u32 = 1 << 2;
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXT0: u32 = 1 << 7;
    pub const MDAC: u32 = 1 << 9;
    /// Set by no event of its own.
    pub const ASSERTED: u32 = 1 << 31;
}

/// Receive control (13.4.22).
pub mod rctl {
    pub const EN: u32 = 1 << 1;
    pub const UPE: u32 = 1 << 3;
    pub const MPE: u32 = 1 << 4;
    pub const LPE: u32 = 1 << 5;
    pub const LBM: u32 = 3 << 6;
    pub const BAM: u32 = 1 << 15;
    pub const VFE: u32 = 1 << 18;
    pub const BSEX: u32 = 1 << 25;
    pub const SECRC: u32 = 1 << 26;
}

/// Transmit control (13.4.33).
pub mod tctl {
    pub const EN: u32 = 1 << 1;
    pub const PSP: u32 = 1 << 3;
}

/// Receive checksum control (13.4.41).
pub mod rxcsum {
    pub const IPOFL: u32 = 1 << 8;
    pub const TUOFL: u32 = 1 << 9;
}

/// Receive descriptors (3.2.3).
pub mod rx {
    pub const DD: u8 = 1 << 0;
    pub const EOP: u8 = 1 << 1;
    pub const IXSM: u8 = 1 << 2;
    pub const VP: u8 = 1 << 3;
    pub const TCPCS: u8 = 1 << 5;
    pub const IPCS: u8 = 1 << 6;
}

/// Transmit descriptors (3.3): the command byte, the same bits in all three kinds.
pub mod tx {
    pub const EOP: u8 = 1 << 0;
    /// Legacy: insert a checksum.
    pub const IC: u8 = 1 << 2;
    /// Data and context: TCP segmentation.
    pub const TSE: u8 = 1 << 2;
    pub const RS: u8 = 1 << 3;
    pub const DEXT: u8 = 1 << 5;
    pub const VLE: u8 = 1 << 6;
    /// Data: insert the IP checksum.
    pub const IXSM: u8 = 1 << 0;
    /// Data: insert the TCP or UDP checksum.
    pub const TXSM: u8 = 1 << 1;
    /// Status: done.
    pub const DD: u8 = 1 << 0;
}

/// Statistics (13.7), by their place after [`reg::STATISTICS`].
pub mod stat {
    pub const GPRC: usize = 0x74 / 4;
    pub const BPRC: usize = 0x78 / 4;
    pub const MPRC: usize = 0x7c / 4;
    pub const GPTC: usize = 0x80 / 4;
    pub const GORC: usize = 0x88 / 4;
    pub const GOTC: usize = 0x90 / 4;
    pub const ROC: usize = 0xac / 4;
    pub const TOR: usize = 0xc0 / 4;
    pub const TOT: usize = 0xc8 / 4;
    pub const TPR: usize = 0xd0 / 4;
    pub const TPT: usize = 0xd4 / 4;
    pub const MPTC: usize = 0xf0 / 4;
    pub const BPTC: usize = 0xf4 / 4;
    pub const TSCTC: usize = 0xf8 / 4;
    /// How many there are.
    pub const COUNT: usize = 0x128 / 4;
}
