//! MSI-X: the capability, the table of messages and the pending bits.
//!
//! Documents: PCI Local Bus Specification 3.0 (6.8.2). Guests read and write the table through a base address register
//! of the function; [`MsixVectors::raise`] may be called from any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{At, COMMAND_BUS_MASTER, ConfigChange, ConfigSpace, MsiSink, Width};

/// Capability id.
const CAP_ID: u8 = 0x11;
/// Bytes of a table entry: message address (8), message data (4), vector control (4).
const ENTRY_LEN: u64 = 16;
/// Message control: MSI-X enable.
const ENABLE: u16 = 1 << 15;
/// Message control: all vectors are masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control: this vector is masked.
const VECTOR_MASK: u32 = 1;
/// Vectors of a function at most (6.8.2.3).
pub const MAX_VECTORS: u16 = 2048;

/// Where table and pending bits lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixLayout {
    /// Base address register of the table.
    pub table_bar: u8,
    /// Offset of the table in it, a multiple of 8.
    pub table_offset: u32,
    /// Base address register of the pending bits.
    pub pba_bar: u8,
    /// Offset of the pending bits in it, a multiple of 8.
    pub pba_offset: u32,
}

impl MsixLayout {
    /// A base address register of its own for `vectors` vectors: the layout and the register's length in bytes.
    #[must_use]
    pub fn exclusive(bar: u8, vectors: u16) -> (Self, u64) {
        let table = u32::from(vectors) * 16;
        let pba_offset = table.max(2048);
        let pba_len = u32::from(vectors).div_ceil(64) * 8;
        let len = u64::from((pba_offset + pba_len).next_power_of_two().max(4096));
        (Self { table_bar: bar, table_offset: 0, pba_bar: bar, pba_offset }, len)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

impl Entry {
    /// After reset every vector is masked (6.8.2.9).
    const COLD: Self = Self { address: 0, data: 0, control: VECTOR_MASK };
}

struct State {
    entries: Vec<Entry>,
    /// One bit a vector.
    pending: Vec<u64>,
    control: u16,
    bus_master: bool,
}

impl State {
    fn is_open(&self, vector: usize) -> bool {
        self.control & FUNCTION_MASK == 0 && self.entries.get(vector).is_some_and(|e| e.control & VECTOR_MASK == 0)
    }

    fn take_pending(&mut self, vector: usize) -> bool {
        let Some(word) = self.pending.get_mut(vector / 64) else { return false };
        let bit = 1 << (vector % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// The messages of pending vectors that nothing masks any more.
    fn released(&mut self) -> Vec<Entry> {
        let mut out = Vec::new();
        if self.control & ENABLE == 0 || self.pending.iter().all(|word| *word == 0) {
            return out;
        }
        for vector in 0..self.entries.len() {
            if self.is_open(vector) && self.take_pending(vector) && self.bus_master {
                out.push(self.entries[vector]);
            }
        }
        out
    }
}

/// The vectors: what raises interrupts. A leaf: it takes a lock of its own and the interrupt controller's, no other.
pub struct MsixVectors {
    state: Mutex<State>,
    sink: Arc<dyn MsiSink>,
}

impl std::fmt::Debug for MsixVectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MsixVectors({})", self.len())
    }
}

impl MsixVectors {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u16 {
        u16::try_from(self.state().entries.len()).unwrap_or(u16::MAX)
    }

    /// Whether there are none: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the guest switched MSI-X on: the function then must not use its interrupt pin.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.state().control & ENABLE != 0
    }

    /// Sends the message of `vector`, or notes it while the vector is masked. Nothing happens while MSI-X is off, for
    /// vectors that do not exist, and (to the message) while the function may not be a bus master.
    pub fn raise(&self, vector: u16) {
        let mut state = self.state();
        let index = usize::from(vector);
        if state.control & ENABLE == 0 || index >= state.entries.len() {
            return;
        }
        if !state.is_open(index) {
            state.pending[index / 64] |= 1 << (index % 64);
            return;
        }
        if !state.bus_master {
            return;
        }
        let Entry { address, data, .. } = state.entries[index];
        drop(state);
        self.sink.send(address, data);
    }

    fn send(&self, messages: &[Entry]) {
        for message in messages {
            self.sink.send(message.address, message.data);
        }
    }
}

/// The guest's side of MSI-X: capability and registers. It belongs to the function.
#[derive(Debug)]
pub struct Msix {
    vectors: Arc<MsixVectors>,
    capability: u8,
    layout: MsixLayout,
}

impl Msix {
    /// Adds the capability at `offset` of the configuration space; `vectors` is 1 to [`MAX_VECTORS`].
    #[must_use]
    pub fn add(config: &mut ConfigSpace, offset: u8, vectors: u16, layout: MsixLayout, sink: Arc<dyn MsiSink>) -> Self {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(layout.table_offset | u32::from(layout.table_bar)).to_le_bytes());
        body[6..].copy_from_slice(&(layout.pba_offset | u32::from(layout.pba_bar)).to_le_bytes());
        config.add_capability(offset, CAP_ID, &body);
        config.allow_write(usize::from(offset) + 2, &(ENABLE | FUNCTION_MASK).to_le_bytes());
        let count = usize::from(vectors);
        let state = State {
            entries: vec![Entry::COLD; count],
            pending: vec![0; count.div_ceil(64)],
            control: 0,
            bus_master: false,
        };
        Self { vectors: Arc::new(MsixVectors { state: Mutex::new(state), sink }), capability: offset, layout }
    }

    /// What raises interrupts.
    #[must_use]
    pub fn vectors(&self) -> &Arc<MsixVectors> {
        &self.vectors
    }

    /// Bytes of configuration space that the capability takes.
    pub const CAPABILITY_LEN: u8 = 12;

    /// A guest wrote the configuration space: enable bit, function mask and bus master enable.
    pub fn config_written(&self, config: &ConfigSpace, change: ConfigChange) {
        let control = usize::from(self.capability) + 2;
        let ours = u16::from(self.capability) + 3;
        if !change.touches(ours) && !change.touches(ours - 1) && !change.touches(4) {
            return;
        }
        let mut state = self.vectors.state();
        state.control = config.u16(control);
        state.bus_master = config.command() & COMMAND_BUS_MASTER != 0;
        let released = state.released();
        drop(state);
        self.vectors.send(&released);
    }

    /// Reads the table or the pending bits; `bar` is the base address register. Reserved bytes are zero.
    #[must_use]
    pub fn read(&self, bar: u8, at: At) -> u64 {
        let state = self.vectors.state();
        let dword = |offset: u64| -> u64 { u64::from(self.dword(&state, bar, offset)) };
        let aligned = at.offset & !3;
        let low = dword(aligned) >> (8 * (at.offset & 3));
        let value = if at.width == Width::B8 { low | dword(aligned + 4) << 32 } else { low };
        value & at.width.ones()
    }

    fn dword(&self, state: &State, bar: u8, offset: u64) -> u32 {
        let MsixLayout { table_bar, table_offset, pba_bar, pba_offset } = self.layout;
        let halves = |value: u64, upper: bool| (if upper { value >> 32 } else { value } & 0xffff_ffff) as u32;
        if bar == pba_bar
            && let Some(inside) = offset.checked_sub(pba_offset.into())
            && let Some(word) = state.pending.get(usize::try_from(inside / 8).unwrap_or(usize::MAX))
        {
            return halves(*word, inside & 4 != 0);
        }
        let Some(inside) = offset.checked_sub(table_offset.into()).filter(|_| bar == table_bar) else { return 0 };
        let Some(entry) = state.entries.get(usize::try_from(inside / ENTRY_LEN).unwrap_or(usize::MAX)) else {
            return 0;
        };
        match inside % ENTRY_LEN / 4 {
            0 => halves(entry.address, false),
            1 => halves(entry.address, true),
            2 => entry.data,
            _ => entry.control,
        }
    }

    /// Writes the table; pending bits are read-only. Narrow writes change the bytes that they name.
    pub fn write(&self, bar: u8, at: At, value: u64) {
        let Some(inside) =
            at.offset.checked_sub(self.layout.table_offset.into()).filter(|_| bar == self.layout.table_bar)
        else {
            return;
        };
        let mut state = self.vectors.state();
        for byte in 0..at.width.bytes() {
            let offset = inside + byte;
            let index = usize::try_from(offset / ENTRY_LEN).unwrap_or(usize::MAX);
            let Some(entry) = state.entries.get_mut(index) else { break };
            let new = (value >> (8 * byte) & 0xff) as u8;
            set_byte(entry, offset % ENTRY_LEN, new);
        }
        let released = state.released();
        drop(state);
        self.vectors.send(&released);
    }

    /// Back to the power-on state: off, all vectors masked, nothing pending.
    pub fn reset(&self) {
        let mut guard = self.vectors.state();
        let State { entries, pending, control, bus_master } = &mut *guard;
        entries.fill(Entry::COLD);
        pending.fill(0);
        *control = 0;
        *bus_master = false;
    }
}

fn set_byte(entry: &mut Entry, offset: u64, value: u8) {
    let put = |field: u64, at: u64| field & !(0xff << (8 * at)) | u64::from(value) << (8 * at);
    let put32 = |field: u32, at: u64| (put(u64::from(field), at) & 0xffff_ffff) as u32;
    match offset {
        // The two lowest bits of an address are zero (6.8.2.7).
        0 => entry.address = put(entry.address, 0) & !3,
        1..=7 => entry.address = put(entry.address, offset),
        8..=11 => entry.data = put32(entry.data, offset - 8),
        // Bits 31-1 of vector control are reserved.
        12 => entry.control = put32(entry.control, 0) & VECTOR_MASK,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Region;
    use crate::hw::bench::MessageProbe;

    struct Bench {
        probe: Arc<MessageProbe>,
        config: ConfigSpace,
        msix: Msix,
    }

    const REGION: Region = Region(0);

    impl Bench {
        fn new(vectors: u16) -> Self {
            let probe = MessageProbe::new();
            let mut config = ConfigSpace::new(0x1af4, 0x1000, 0, 0);
            let (layout, _) = MsixLayout::exclusive(1, vectors);
            let msix = Msix::add(&mut config, 0x98, vectors, layout, probe.clone());
            config.set_power_on();
            Self { probe, config, msix }
        }

        fn config(&mut self, offset: u16, value: u16) {
            self.config.guest_write(offset, 2, value.into());
            self.msix.config_written(&self.config, ConfigChange { offset, len: 2 });
        }

        fn enable(&mut self) {
            self.config(4, COMMAND_BUS_MASTER);
            self.config(0x9a, ENABLE);
        }

        fn write(&self, offset: u64, width: Width, value: u64) {
            self.msix.write(1, At { region: REGION, offset, width }, value);
        }

        fn read(&self, offset: u64, width: Width) -> u64 {
            self.msix.read(1, At { region: REGION, offset, width })
        }

        fn program(&self, vector: u64, address: u64, data: u64) {
            self.write(16 * vector, Width::B8, address);
            self.write(16 * vector + 8, Width::B4, data);
            self.write(16 * vector + 12, Width::B4, 0);
        }

        fn raise(&self, vector: u16) -> Vec<(u64, u32)> {
            self.msix.vectors().raise(vector);
            self.probe.take()
        }
    }

    #[test]
    fn the_capability_tells_the_layout() {
        let bench = Bench::new(200);
        assert_eq!(bench.config.u16(0x98), 0x0011);
        assert_eq!(bench.config.u16(0x9a), 199);
        assert_eq!((bench.config.u32(0x9c), bench.config.u32(0xa0)), (1, 0xc81));
        assert_eq!(MsixLayout::exclusive(1, 2).1, 4096);
    }

    #[test]
    fn an_open_vector_sends_its_message() {
        let mut bench = Bench::new(4);
        bench.program(2, 0xfee0_1000, 0x4041);
        assert_eq!(bench.raise(2), []);
        bench.enable();
        assert_eq!(bench.raise(2), [(0xfee0_1000, 0x4041)]);
        assert_eq!(bench.raise(9), []);
    }

    #[test]
    fn a_masked_vector_waits_in_the_pending_bits() {
        let mut bench = Bench::new(4);
        bench.enable();
        bench.program(3, 0xfee0_0000, 7);
        bench.write(60, Width::B4, 1);
        assert_eq!(bench.raise(3), []);
        assert_eq!(bench.read(2048, Width::B8), 8);
        bench.write(60, Width::B4, 0);
        assert_eq!(bench.probe.take(), [(0xfee0_0000, 7)]);
        assert_eq!(bench.read(2048, Width::B4), 0);
    }

    #[test]
    fn the_function_mask_holds_all_vectors() {
        let mut bench = Bench::new(2);
        bench.enable();
        bench.program(0, 0xfee0_0000, 1);
        bench.config(0x9a, ENABLE | FUNCTION_MASK);
        assert_eq!(bench.raise(0), []);
        bench.config(0x9a, ENABLE);
        assert_eq!(bench.probe.take(), [(0xfee0_0000, 1)]);
    }

    #[test]
    fn narrow_accesses_reach_their_bytes() {
        let bench = Bench::new(2);
        bench.write(1, Width::B1, 0x12);
        bench.write(18, Width::B2, 0xfee0);
        assert_eq!(bench.read(0, Width::B4), 0x1200);
        assert_eq!(bench.read(16, Width::B8), 0xfee0_0000);
        assert_eq!(bench.read(18, Width::B1), 0xe0);
        assert_eq!(bench.read(12, Width::B4), 1);
        assert_eq!(bench.read(0x300, Width::B4), 0);
    }

    #[test]
    fn reset_masks_everything() {
        let mut bench = Bench::new(2);
        bench.enable();
        bench.program(0, 0xfee0_0000, 1);
        bench.msix.reset();
        assert!(!bench.msix.vectors().is_enabled());
        assert_eq!((bench.read(0, Width::B8), bench.read(12, Width::B4)), (0, 1));
    }

    #[test]
    fn without_bus_mastering_messages_are_lost() {
        let mut bench = Bench::new(1);
        bench.program(0, 0xfee0_0000, 1);
        bench.config(0x9a, ENABLE);
        assert_eq!(bench.raise(0), []);
        bench.enable();
        assert_eq!(bench.probe.take(), []);
    }
}
