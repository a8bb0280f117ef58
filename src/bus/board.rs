//! The board: owns the devices, dispatches accesses to them, and keeps the maps.
//!
//! One lock, [`BoardCell::lock`], covers everything here. Whoever holds it must not wait for another thread.

mod dispatch;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::mem::{Backing, FlatRange, MappingId, MemoryMap, PAGE_SIZE, RamBlock, RamRange, RomWrites};

use super::device::{Decode, Device, DeviceId, Region, Reset, Token, Width};
use super::pci::{Bar, BarKind, ConfigChange, ConfigSpace, PciAddress};
use super::ports::{PortId, PortMap, PortRange, PortTarget};
use super::posted::{PostedRange, PostedWrites, Queue};

/// What answers in a memory-mapped range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmioTarget {
    /// The device.
    pub device: DeviceId,
    /// Its region.
    pub region: Region,
    /// The widths it decodes.
    pub decode: Decode,
}

/// What is behind a base address register.
#[derive(Clone, Debug)]
enum BarMapping {
    Port(PortId),
    Memory(MappingId),
}

/// A typed name of a device of a board.
pub struct DeviceRef<T> {
    id: DeviceId,
    kind: PhantomData<fn() -> T>,
}

impl<T> DeviceRef<T> {
    /// The untyped name.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.id
    }
}

impl<T> Clone for DeviceRef<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for DeviceRef<T> {}

impl<T> fmt::Debug for DeviceRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(f)
    }
}

struct Slot {
    name: String,
    device: Option<Box<dyn Device>>,
    pci: Option<PciSlot>,
}

struct PciSlot {
    address: PciAddress,
    bars: [Option<BarMapping>; 7],
}

enum Change {
    MemoryEnabled(MappingId, bool),
    MemoryStart(MappingId, u64),
    MemoryBacking(MappingId, Backing<MmioTarget>),
    PortsEnabled(PortId, bool),
    PortsBase(PortId, u16),
}

#[derive(Default)]
struct Changes {
    any: AtomicBool,
    queue: Mutex<Vec<Change>>,
}

impl Changes {
    fn push(&self, change: Change) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.any.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Change> {
        if !self.any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets a device move, hide or replace a mapping of its own. Changes made during an access take effect when the
/// access returns.
#[derive(Clone)]
pub struct RegionHandle {
    target: RegionTarget,
    changes: Arc<Changes>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RegionTarget {
    Memory(MappingId),
    Ports(PortId),
    None,
}

impl fmt::Debug for RegionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

impl RegionHandle {
    /// A handle on nothing, for tests of devices.
    #[must_use]
    pub fn unconnected() -> Self {
        Self { target: RegionTarget::None, changes: Arc::default() }
    }

    /// Shows or hides the mapping.
    pub fn set_enabled(&self, enabled: bool) {
        match self.target {
            RegionTarget::Memory(id) => self.changes.push(Change::MemoryEnabled(id, enabled)),
            RegionTarget::Ports(id) => self.changes.push(Change::PortsEnabled(id, enabled)),
            RegionTarget::None => {}
        }
    }

    /// Moves the mapping to another address or port; a port above FFFFh hides it.
    pub fn move_to(&self, start: u64) {
        match self.target {
            RegionTarget::Memory(id) => self.changes.push(Change::MemoryStart(id, start)),
            RegionTarget::Ports(id) => match u16::try_from(start) {
                Ok(base) => self.changes.push(Change::PortsBase(id, base)),
                Err(_) => self.changes.push(Change::PortsEnabled(id, false)),
            },
            RegionTarget::None => {}
        }
    }

    /// Replaces what answers in a memory mapping.
    pub fn set_backing(&self, backing: Backing<MmioTarget>) {
        if let RegionTarget::Memory(id) = self.target {
            self.changes.push(Change::MemoryBacking(id, backing));
        }
    }
}

/// How many ranges the maps have; for monitors and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapStats {
    /// Flat memory ranges.
    pub memory: usize,
    /// Port ranges.
    pub ports: usize,
}

/// Takes the RAM and ROM ranges whenever they change.
pub type MemoryListener = Box<dyn FnMut(&[RamRange]) + Send>;

/// All devices of a machine and how they are reached.
#[derive(Default)]
pub struct Board {
    slots: Vec<Slot>,
    memory: MemoryMap<MmioTarget>,
    flat: Vec<FlatRange<MmioTarget>>,
    memory_stale: bool,
    ports: PortMap,
    pci: BTreeMap<PciAddress, DeviceId>,
    /// The bridges to the buses behind the root: bus `index + 1` is behind bridge `index`.
    pci_bridges: Vec<DeviceId>,
    pci_config_address: u32,
    changes: Arc<Changes>,
    listener: Option<MemoryListener>,
    posted: Vec<PostedRange>,
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({} devices)", self.slots.len())
    }
}

impl Board {
    /// An empty board.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // -- construction --------------------------------------------------------------------------------------------

    /// Names a device that is about to be built, so that its timers and lines can know it.
    pub fn reserve(&mut self, name: &str) -> DeviceId {
        self.slots.push(Slot { name: name.to_owned(), device: None, pci: None });
        DeviceId(u32::try_from(self.slots.len() - 1).expect("a board has few devices"))
    }

    /// Puts the device in its place.
    pub fn install<T: Device>(&mut self, id: DeviceId, device: T) -> DeviceRef<T> {
        self.slots[id.0 as usize].device = Some(Box::new(device));
        DeviceRef { id, kind: PhantomData }
    }

    /// [`Board::reserve`] and [`Board::install`] for a device that needs no name beforehand.
    pub fn add<T: Device>(&mut self, name: &str, device: T) -> DeviceRef<T> {
        let id = self.reserve(name);
        self.install(id, device)
    }

    /// Maps `len` ports from `base` to a region of a device, starting at `offset` in the region.
    pub fn map_ports_at(
        &mut self,
        device: DeviceId,
        region: Region,
        decode: Decode,
        base: u16,
        len: u32,
        offset: u64,
    ) -> RegionHandle {
        let name = self.name(device).to_owned();
        let target = PortTarget::Device { device, region, decode };
        let id = self.ports.add(PortRange { name, base, len, offset, enabled: true, target });
        RegionHandle { target: RegionTarget::Ports(id), changes: Arc::clone(&self.changes) }
    }

    /// Maps `len` ports from `base` to a region of a device.
    pub fn map_ports(&mut self, device: DeviceId, region: Region, decode: Decode, base: u16, len: u32) -> RegionHandle {
        self.map_ports_at(device, region, decode, base, len, 0)
    }

    /// Maps PCI configuration mechanism #1 (PCI 3.0, 3.2.2.3.2) at CF8h.
    pub fn map_pci_config_ports(&mut self) {
        self.ports.add(PortRange {
            name: "pci-conf".to_owned(),
            base: 0xcf8,
            len: 8,
            offset: 0,
            enabled: true,
            target: PortTarget::PciConfig,
        });
    }

    /// Maps `len` bytes at `start` to a region of a device.
    pub fn map_mmio(
        &mut self,
        device: DeviceId,
        region: Region,
        decode: Decode,
        start: u64,
        len: u64,
        priority: i32,
    ) -> RegionHandle {
        let name = self.name(device).to_owned();
        let backing = Backing::Device { target: MmioTarget { device, region, decode }, offset: 0 };
        self.map_memory(&name, start, len, priority, backing)
    }

    /// Maps memory or anything else at `start`.
    pub fn map_memory(
        &mut self,
        name: &str,
        start: u64,
        len: u64,
        priority: i32,
        backing: Backing<MmioTarget>,
    ) -> RegionHandle {
        let id = self.memory.add(name, start, len, priority, backing);
        self.memory_stale = true;
        RegionHandle { target: RegionTarget::Memory(id), changes: Arc::clone(&self.changes) }
    }

    /// Maps the memory window on configuration space (PCI Express 3.0, 7.2.2): 1 MiB a bus. It is hidden.
    pub fn map_ecam(&mut self, len: u64, priority: i32) -> RegionHandle {
        let target = MmioTarget { device: DeviceId::ECAM, region: Region(0), decode: Decode::UP_TO_4 };
        let handle = self.map_memory("pcie-mmcfg-mmio", 0, len, priority, Backing::Device { target, offset: 0 });
        handle.set_enabled(false);
        handle
    }

    /// Adds the bus behind a bridge that is plugged in: what [`PciAddress::bus`] calls it, whatever number the guest
    /// gives it.
    pub fn add_pci_bus(&mut self, bridge: DeviceId) -> u8 {
        self.pci_bridges.push(bridge);
        u8::try_from(self.pci_bridges.len()).unwrap_or(u8::MAX)
    }

    /// The bridge to a bus; `None` for the root bus.
    #[must_use]
    pub fn pci_bridge_of(&self, bus: u8) -> Option<DeviceId> {
        self.pci_bridges.get(usize::from(bus).checked_sub(1)?).copied()
    }

    /// The slot and pin (0 is INTA#) of the root bus at which a function's interrupt arrives: each bridge on the way
    /// rotates the pins by the slot (PCI-to-PCI Bridge 1.2, table 9-1).
    #[must_use]
    pub fn pci_root_pin(&self, address: PciAddress, pin: u8) -> (u8, u8) {
        let (mut at, mut pin) = (address, pin);
        while let Some(up) = self.pci_bridge_of(at.bus).and_then(|bridge| self.pci_address(bridge)) {
            pin = (pin + at.device) % 4;
            at = up;
        }
        (at.device, pin)
    }

    /// Plugs a device in as a PCI function. Its base address registers map its regions; those named in `ram` map
    /// that memory instead (the expansion ROM, number 6, read-only). BARs lie below RAM: RAM wins where they overlap.
    ///
    /// # Panics
    /// `device` is not a PCI function: a wiring mistake.
    pub fn plug_pci(&mut self, address: PciAddress, device: DeviceId, decode: Decode, ram: &[(usize, Arc<RamBlock>)]) {
        let name = self.name(device).to_owned();
        let slot = &mut self.slots[device.0 as usize];
        let function = slot.device.as_mut().and_then(|d| d.as_pci()).expect("the device is a PCI function");
        function.config().set_power_on();
        let declared = function.config().bars();
        let mut bars: [Option<BarMapping>; 7] = Default::default();
        for (index, bar) in declared.into_iter().enumerate() {
            let Some(bar) = bar else { continue };
            let block = ram.iter().find(|(i, _)| *i == index).map(|(_, block)| Arc::clone(block));
            let mapping = match (bar.kind, block) {
                (BarKind::Io, _) => {
                    let target = PortTarget::Device { device, region: bar.region, decode };
                    let len = u32::try_from(bar.len).unwrap_or(0);
                    let range = PortRange { name: name.clone(), base: 0, len, offset: 0, enabled: false, target };
                    BarMapping::Port(self.ports.add(range))
                }
                (kind, block) => {
                    let backing = match (kind, block) {
                        (BarKind::Rom, Some(block)) => Backing::Rom { block, offset: 0, writes: RomWrites::Lost },
                        (_, Some(block)) => Backing::Ram { block, offset: 0 },
                        (_, None) => {
                            Backing::Device { target: MmioTarget { device, region: bar.region, decode }, offset: 0 }
                        }
                    };
                    let id = self.memory.add(&name, 0, bar.len, -1, backing);
                    self.memory.set_enabled(id, false);
                    BarMapping::Memory(id)
                }
            };
            bars[index] = Some(mapping);
        }
        self.slots[device.0 as usize].pci = Some(PciSlot { address, bars });
        self.pci.insert(address, device);
        self.memory_stale = true;
        self.update_bars(device);
    }

    /// Tells `listener` the RAM and ROM ranges now and after each change.
    pub fn set_memory_listener(&mut self, listener: MemoryListener) {
        self.listener = Some(listener);
        self.memory_stale = true;
        self.apply_changes();
    }

    /// Lets accelerators post the writes to a range that stays where it is. Another mapping may cover it at times.
    pub fn allow_posting(&mut self, range: PostedRange) {
        self.posted.push(range);
    }

    /// The ranges to which writes may be posted.
    #[must_use]
    pub fn posted_ranges(&self) -> Vec<PostedRange> {
        self.posted.clone()
    }

    // -- devices -------------------------------------------------------------------------------------------------

    /// Calls `f` with a device. A wrong name or type is a programming error and gives `None`.
    pub fn with<T: Device, R>(&mut self, device: &DeviceRef<T>, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let slot = self.slots.get_mut(device.id.0 as usize)?;
        let any: &mut dyn Any = slot.device.as_deref_mut()?;
        let result = any.downcast_mut::<T>().map(f);
        self.apply_changes();
        result
    }

    /// Delivers an event that a device asked for.
    pub fn event(&mut self, device: DeviceId, token: Token) {
        if let Some(device) = self.device(device) {
            device.event(token);
        }
        self.apply_changes();
    }

    fn device(&mut self, id: DeviceId) -> Option<&mut dyn Device> {
        self.slots.get_mut(id.0 as usize)?.device.as_deref_mut()
    }

    /// The name that the device was given.
    #[must_use]
    pub fn name(&self, id: DeviceId) -> &str {
        self.slots.get(id.0 as usize).map_or("", |slot| &slot.name)
    }

    /// Resets every device, in the order they were added.
    pub fn reset(&mut self, kind: Reset) {
        self.pci_config_address = 0;
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if let Some(device) = slot.device.as_deref_mut() {
                if let Some(function) = device.as_pci() {
                    function.config().reset(kind);
                }
                device.reset(kind);
            }
            if slot.pci.is_some() {
                self.update_bars(DeviceId(u32::try_from(index).unwrap_or(u32::MAX)));
            }
        }
        self.apply_changes();
    }

    // -- PCI configuration ---------------------------------------------------------------------------------------

    /// The PCI functions, by address.
    #[must_use]
    pub fn pci_functions(&self) -> Vec<(PciAddress, DeviceId)> {
        self.pci.iter().map(|(address, id)| (*address, *id)).collect()
    }

    /// The address of a PCI function.
    #[must_use]
    pub fn pci_address(&self, device: DeviceId) -> Option<PciAddress> {
        self.slots.get(device.0 as usize)?.pci.as_ref().map(|pci| pci.address)
    }

    /// The base address registers of a function that exist: number, declaration, where it decodes now.
    pub fn pci_bars(&mut self, address: PciAddress) -> Vec<(usize, Bar, Option<u64>)> {
        let Some(id) = self.pci.get(&address).copied() else { return Vec::new() };
        let Some(function) = self.device(id).and_then(Device::as_pci) else { return Vec::new() };
        let config = function.config();
        let bars = config.bars().into_iter().enumerate();
        bars.filter_map(|(index, bar)| Some((index, bar?, config.bar_mapping(index)))).collect()
    }

    /// Reads up to 4 bytes of configuration space; all ones where there is no function.
    pub fn pci_config_read(&mut self, address: PciAddress, offset: u16, len: u16) -> u32 {
        let Some(id) = self.pci.get(&address).copied() else { return u32::MAX >> (32 - 8 * len.clamp(1, 4)) };
        let function = self.device(id).and_then(Device::as_pci);
        function.map_or(u32::MAX, |function| {
            function.config_read(ConfigChange { offset, len });
            function.config().guest_read(offset, len)
        })
    }

    /// Writes up to 4 bytes of configuration space.
    pub fn pci_config_write(&mut self, address: PciAddress, offset: u16, len: u16, value: u32) {
        let Some(id) = self.pci.get(&address).copied() else { return };
        if let Some(function) = self.device(id).and_then(Device::as_pci) {
            function.config().guest_write(offset, len, value);
            function.config_written(ConfigChange { offset, len });
        }
        let change = ConfigChange { offset, len };
        if (0x04..0x06).chain(0x10..0x28).chain(0x30..0x34).any(|byte| change.touches(byte)) {
            self.update_bars(id);
        }
        let windows = (0x04..0x06).chain(0x1c..0x34).any(|byte| change.touches(byte));
        if windows && self.pci_bridges.contains(&id) {
            self.update_all_bars();
        }
        self.apply_changes();
    }

    /// The configuration space of a function.
    fn config_of(&mut self, id: DeviceId) -> Option<&mut ConfigSpace> {
        Some(self.device(id)?.as_pci()?.config())
    }

    /// The numbers that the guest gave the bus behind bridge `index`: secondary, subordinate.
    fn bus_range(&mut self, index: usize) -> Option<(u8, u8)> {
        let bridge = *self.pci_bridges.get(index)?;
        self.config_of(bridge).map(|config| config.bus_range())
    }

    /// The number that the guest gave a bus; 0 for the root bus and for one that has none yet.
    pub fn pci_bus_number(&mut self, bus: u8) -> u8 {
        usize::from(bus).checked_sub(1).and_then(|index| self.bus_range(index)).map_or(0, |(secondary, _)| secondary)
    }

    /// The bus to which configuration accesses for bus `number` go, on the way through the bridges.
    fn bus_of_number(&mut self, number: u8) -> Option<u8> {
        let mut at = 0;
        // Each step goes down one bridge.
        for _ in 0..=self.pci_bridges.len() {
            if number == 0 {
                return Some(0);
            }
            let next = (0..self.pci_bridges.len()).find_map(|index| {
                let here = self.pci_address(self.pci_bridges[index]).is_some_and(|address| address.bus == at);
                let (secondary, subordinate) = self.bus_range(index).filter(|_| here)?;
                let bus = u8::try_from(index + 1).ok()?;
                (secondary != 0 && (secondary..=subordinate).contains(&number)).then_some((bus, secondary))
            });
            let (bus, secondary) = next?;
            if secondary == number {
                return Some(bus);
            }
            at = bus;
        }
        None
    }

    /// Whether every bridge on the way passes an access to the function.
    fn reaches(&mut self, address: PciAddress, kind: BarKind, first: u64, len: u64) -> bool {
        let mut bus = address.bus;
        while let Some(bridge) = self.pci_bridge_of(bus) {
            let last = first.saturating_add(len - 1);
            if !self.config_of(bridge).is_some_and(|config| config.forwards(kind, first, last)) {
                return false;
            }
            bus = self.pci_address(bridge).map_or(0, |address| address.bus);
        }
        true
    }

    /// Where base address register `index` of a function decodes now.
    fn bar_place(&mut self, id: DeviceId, index: usize) -> Option<u64> {
        let config = self.config_of(id)?;
        let bar = config.bars().get(index).copied().flatten()?;
        let first = config.bar_mapping(index)?;
        let address = self.pci_address(id)?;
        self.reaches(address, bar.kind, first, bar.len).then_some(first)
    }

    /// A bridge's windows changed: everything behind bridges may be reached, or no longer.
    fn update_all_bars(&mut self) {
        let behind: Vec<DeviceId> =
            self.pci.iter().filter(|(address, _)| address.bus != 0).map(|(_, id)| *id).collect();
        for id in behind {
            self.update_bars(id);
        }
    }

    fn update_bars(&mut self, id: DeviceId) {
        let Some(pci) = self.slots.get(id.0 as usize).and_then(|slot| slot.pci.as_ref()) else { return };
        let bars = pci.bars.clone();
        for (index, mapping) in bars.iter().enumerate() {
            let address = if mapping.is_some() { self.bar_place(id, index) } else { None };
            match (mapping, address) {
                (Some(BarMapping::Port(id)), Some(address)) => {
                    if let Ok(base) = u16::try_from(address) {
                        self.ports.relocate(*id, base);
                        self.ports.set_enabled(*id, true);
                    }
                }
                (Some(BarMapping::Port(id)), None) => self.ports.set_enabled(*id, false),
                (Some(BarMapping::Memory(id)), Some(address)) => {
                    self.memory_stale |= self.memory.relocate(*id, address);
                    self.memory_stale |= self.memory.set_enabled(*id, true);
                }
                (Some(BarMapping::Memory(id)), None) => self.memory_stale |= self.memory.set_enabled(*id, false),
                (None, _) => {}
            }
        }
    }

    /// The function and register that CF8h selects; `None` while bit 31 is off.
    fn selected_config(&mut self, port_offset: u64) -> Option<(PciAddress, u16)> {
        let address = self.pci_config_address;
        if address & 1 << 31 == 0 {
            return None;
        }
        let [low, function_device, bus, _] = address.to_le_bytes();
        let bus = self.bus_of_number(bus)?;
        let pci = PciAddress { bus, device: function_device >> 3, function: function_device & 7 };
        let byte = u16::try_from(port_offset & 3).unwrap_or(0);
        Some((pci, u16::from(low & 0xfc) | byte))
    }

    /// A read of the memory window on configuration space.
    fn ecam_read(&mut self, offset: u64, len: u64) -> u64 {
        let mut value = 0;
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let step = (4 - (at & 3)).min(len - done);
            let piece = match self.ecam_target(at) {
                Some((address, register)) => {
                    u64::from(self.pci_config_read(address, register, u16::try_from(step).unwrap_or(4)))
                }
                None => u64::MAX >> (64 - 8 * step),
            };
            value |= piece << (8 * done);
            done += step;
        }
        value
    }

    /// A write to the memory window on configuration space.
    fn ecam_write(&mut self, offset: u64, len: u64, value: u64) {
        let mut done = 0;
        while done < len {
            let at = offset + done;
            let step = (4 - (at & 3)).min(len - done);
            if let Some((address, register)) = self.ecam_target(at) {
                let piece = u32::try_from(value >> (8 * done) & 0xffff_ffff).unwrap_or(0);
                self.pci_config_write(address, register, u16::try_from(step).unwrap_or(4), piece);
            }
            done += step;
        }
    }

    /// Bus in bits 27-20, device in 19-15, function in 14-12, register in 11-0 (PCI Express 3.0, table 7-1).
    fn ecam_target(&mut self, offset: u64) -> Option<(PciAddress, u16)> {
        let bits = |shift: u32, mask: u64| u8::try_from(offset >> shift & mask).unwrap_or(0);
        let bus = self.bus_of_number(bits(20, 0xff))?;
        let address = PciAddress { bus, device: bits(15, 31), function: bits(12, 7) };
        Some((address, u16::try_from(offset & 0xfff).unwrap_or(0)))
    }

    fn config_port_read(&mut self, offset: u64, len: u64) -> u64 {
        if offset < 4 {
            return if offset == 0 && len == 4 { u64::from(self.pci_config_address) } else { u64::MAX };
        }
        match self.selected_config(offset) {
            Some((address, register)) => {
                u64::from(self.pci_config_read(address, register, u16::try_from(len).unwrap_or(4)))
            }
            None => u64::MAX,
        }
    }

    fn config_port_write(&mut self, offset: u64, len: u64, value: u64) {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        if offset < 4 {
            if offset == 0 && len == 4 {
                self.pci_config_address = value;
            }
        } else if let Some((address, register)) = self.selected_config(offset) {
            self.pci_config_write(address, register, u16::try_from(len).unwrap_or(4), value);
        }
    }

    // -- maps ----------------------------------------------------------------------------------------------------

    fn apply_changes(&mut self) {
        for change in self.changes.take() {
            match change {
                Change::MemoryEnabled(id, enabled) => self.memory_stale |= self.memory.set_enabled(id, enabled),
                Change::MemoryStart(id, start) => self.memory_stale |= self.memory.relocate(id, start),
                Change::MemoryBacking(id, backing) => {
                    self.memory.set_backing(id, backing);
                    self.memory_stale = true;
                }
                Change::PortsEnabled(id, enabled) => self.ports.set_enabled(id, enabled),
                Change::PortsBase(id, base) => {
                    self.ports.relocate(id, base);
                    self.ports.set_enabled(id, true);
                }
            }
        }
        if self.memory_stale && self.listener.is_some() {
            self.memory_stale = false;
            self.flat = self.memory.flatten();
            let ranges = ram_ranges(&self.flat);
            if let Some(listener) = &mut self.listener {
                listener(&ranges);
            }
        }
    }

    /// The flattened memory map, with the name of each range's mapping.
    #[must_use]
    pub fn flat_memory(&self) -> Vec<(String, FlatRange<MmioTarget>)> {
        self.flat.iter().map(|range| (self.memory.name(range.id).to_owned(), range.clone())).collect()
    }

    /// The memory map before flattening.
    #[must_use]
    pub fn memory_map(&self) -> &MemoryMap<MmioTarget> {
        &self.memory
    }

    /// The enabled port ranges as (name, first, last), sorted.
    #[must_use]
    pub fn port_ranges(&self) -> Vec<(String, u16, u16)> {
        let mut ranges: Vec<_> = self
            .ports
            .ranges()
            .iter()
            .filter(|range| range.enabled && range.len > 0)
            .map(|range| {
                let last = (u32::from(range.base) + range.len - 1).min(0xffff);
                (range.name.clone(), range.base, u16::try_from(last).unwrap_or(u16::MAX))
            })
            .collect();
        ranges.sort_by_key(|(_, first, _)| *first);
        ranges
    }

    /// How many ranges the maps have.
    #[must_use]
    pub fn map_stats(&self) -> MapStats {
        MapStats { memory: self.flat.len(), ports: self.ports.ranges().len() }
    }
}

/// The page-aligned parts of the RAM and ROM ranges that have host memory behind them: an accelerator maps host
/// addresses, so a range that is longer than its block (PAM on a machine with less than 1 MiB) ends with the block.
fn ram_ranges(flat: &[FlatRange<MmioTarget>]) -> Vec<RamRange> {
    flat.iter().filter_map(ram_range).collect()
}

fn ram_range(range: &FlatRange<MmioTarget>) -> Option<RamRange> {
    let (block, offset, read_only) = match &range.backing {
        Backing::Ram { block, offset } => (block, *offset, false),
        Backing::Rom { block, offset, .. } => (block, *offset, true),
        Backing::Device { .. } => return None,
    };
    let len = range.len.min(block.len().checked_sub(offset)?);
    let start = range.start.checked_next_multiple_of(PAGE_SIZE)?;
    let end = range.start.checked_add(len)? & !(PAGE_SIZE - 1);
    let offset = offset.checked_add(start - range.start)?;
    (start < end && offset % PAGE_SIZE == 0).then(|| RamRange {
        gpa: start,
        len: end - start,
        block: Arc::clone(block),
        offset,
        read_only,
    })
}

/// What a running vCPU reaches: ports and memory that are not RAM.
pub trait GuestBus: Send + Sync {
    /// A port read of 1, 2 or 4 bytes.
    fn port_read(&self, port: u16, width: Width) -> u32;
    /// A port write.
    fn port_write(&self, port: u16, width: Width, value: u32);
    /// A string of reads from one port (`rep ins`); `data` holds whole units.
    fn port_read_string(&self, port: u16, width: Width, data: &mut [u8]);
    /// A string of writes to one port (`rep outs`).
    fn port_write_string(&self, port: u16, width: Width, data: &[u8]);
    /// A memory read outside RAM.
    fn mmio_read(&self, gpa: u64, data: &mut [u8]);
    /// A memory write outside RAM, or to ROM.
    fn mmio_write(&self, gpa: u64, data: &[u8]);
}

/// The board behind its lock.
#[derive(Default)]
pub struct BoardCell {
    board: Mutex<Board>,
    posted: Queue,
}

impl fmt::Debug for BoardCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoardCell").field("board", &self.board).finish_non_exhaustive()
    }
}

impl BoardCell {
    /// Wraps a board.
    #[must_use]
    pub fn new(board: Board) -> Arc<Self> {
        Arc::new(Self { board: Mutex::new(board), posted: Queue::new() })
    }

    /// The board lock. Holders do not wait for other threads. The board has seen every write that was posted before.
    ///
    /// # Panics
    /// A device panicked before: that is a bug in it, and its state cannot be trusted.
    pub fn lock(&self) -> MutexGuard<'_, Board> {
        let mut board = self.board.lock().expect("no device panics under the board lock");
        if let Some(queue) = self.posted.get() {
            // Those that come meanwhile are for the next holder: a busy processor does not keep this one here.
            for _ in 0..queue.waiting() {
                let Some(write) = queue.take() else { break };
                board.deliver(write);
            }
        }
        board
    }

    /// Delivers this accelerator's posted writes from now on. The first queue stays.
    pub fn set_posted_writes(&self, queue: Arc<dyn PostedWrites>) {
        // A board has one accelerator.
        let _ = self.posted.set(queue);
    }
}

impl GuestBus for BoardCell {
    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.lock().port_read(port, width)
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        self.lock().port_write(port, width, value);
    }

    fn port_read_string(&self, port: u16, width: Width, data: &mut [u8]) {
        self.lock().port_read_string(port, width, data);
    }

    fn port_write_string(&self, port: u16, width: Width, data: &[u8]) {
        self.lock().port_write_string(port, width, data);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.lock().mmio_read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.lock().mmio_write(gpa, data);
    }
}

#[cfg(test)]
mod tests;
