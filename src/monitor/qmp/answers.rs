//! QMP's answers: pure functions from the data of [`crate::monitor::info`] to JSON, as libvirt reads it.

use crate::net::RxFilter;
use serde_json::{Map, Value, json};

use crate::block::Stats;
use crate::chardev::ChardevInfo;
use crate::monitor::info::{
    BlockDevice, BlockStats, CpuDefinition, CpuInfo, CpuPlace, HotpluggableCpu, InsertedMedium, MachineInfo, Mouse,
    PciBar, PciDevice, RunState, VncAddress, VncServer,
};
use crate::monitor::{text, version};

/// Adds a member where there is a value.
fn put(object: &mut Value, name: &str, value: Option<Value>) {
    if let (Some(map), Some(value)) = (object.as_object_mut(), value) {
        map.insert(name.to_owned(), value);
    }
}

pub(super) fn version() -> Value {
    let (major, minor, micro) = version::NUMBERS;
    json!({"qemu": {"micro": micro, "minor": minor, "major": major}, "package": version::PACKAGE})
}

pub(super) fn status(state: RunState) -> Value {
    json!({"status": state.name(), "running": state.is_running()})
}

fn place(place: CpuPlace) -> Value {
    let mut object = json!({"core-id": place.core, "thread-id": place.thread});
    put(&mut object, "die-id", place.die.map(Value::from));
    put(&mut object, "module-id", place.module.map(Value::from));
    put(&mut object, "socket-id", Some(place.socket.into()));
    object
}

pub(super) fn cpus(cpus: &[CpuInfo]) -> Value {
    cpus.iter()
        .map(|cpu| {
            json!({
                "thread-id": cpu.thread_id,
                "props": place(cpu.place),
                "qom-path": cpu.qom_path,
                "cpu-index": cpu.index,
                "target": "x86_64",
            })
        })
        .collect()
}

pub(super) fn hotpluggable_cpus(cpus: &[HotpluggableCpu]) -> Value {
    cpus.iter()
        .map(|cpu| {
            let mut object = json!({"props": place(cpu.place), "vcpus-count": 1});
            put(&mut object, "qom-path", cpu.qom_path.clone().map(Value::from));
            put(&mut object, "type", Some(cpu.kind.clone().into()));
            object
        })
        .collect()
}

pub(super) fn machines(machines: &[MachineInfo]) -> Value {
    machines
        .iter()
        .map(|machine| {
            let mut object = json!({
                "hotpluggable-cpus": machine.hotpluggable_cpus,
                "name": machine.name,
                "numa-mem-supported": machine.numa_mem_supported,
            });
            put(&mut object, "default-cpu-type", machine.default_cpu_type.clone().map(Value::from));
            put(&mut object, "acpi", Some(machine.acpi.into()));
            put(&mut object, "cpu-max", Some(machine.cpu_max.into()));
            put(&mut object, "deprecated", Some(machine.deprecated.into()));
            put(&mut object, "default-ram-id", machine.default_ram_id.clone().map(Value::from));
            put(&mut object, "is-default", machine.is_default.then_some(true.into()));
            put(&mut object, "alias", machine.alias.clone().map(Value::from));
            object
        })
        .collect()
}

pub(super) fn cpu_definitions(models: &[CpuDefinition]) -> Value {
    models
        .iter()
        .map(|model| {
            let mut object = json!({"name": model.name, "typename": model.type_name});
            put(&mut object, "unavailable-features", model.unavailable_features.clone().map(Value::from));
            put(&mut object, "alias-of", model.alias_of.clone().map(Value::from));
            put(&mut object, "static", Some(model.is_static.into()));
            put(&mut object, "migration-safe", Some(model.migration_safe.into()));
            put(&mut object, "deprecated", Some(model.deprecated.into()));
            object
        })
        .collect()
}

pub(super) fn chardevs(devices: &[ChardevInfo]) -> Value {
    devices
        .iter()
        .map(|d| json!({"frontend-open": d.frontend_open, "filename": d.filename, "label": d.label}))
        .collect()
}

pub(super) fn mice(mice: &[Mouse]) -> Value {
    mice.iter()
        .map(|m| json!({"index": m.index, "name": m.name, "current": m.current, "absolute": m.absolute}))
        .collect()
}

fn base_register(bar: &PciBar) -> Value {
    let address = bar.address.map_or(Value::from(-1), Value::from);
    if bar.io {
        return json!({"bar": bar.index, "size": bar.len, "address": address, "type": "io"});
    }
    json!({
        "prefetch": bar.prefetch,
        "mem_type_64": bar.wide,
        "bar": bar.index,
        "size": bar.len,
        "address": address,
        "type": "memory",
    })
}

fn pci_device(device: &PciDevice) -> Value {
    let mut id = json!({"device": device.device, "vendor": device.vendor});
    if let Some((vendor, subsystem)) = device.subsystem {
        put(&mut id, "subsystem-vendor", Some(vendor.into()));
        put(&mut id, "subsystem", Some(subsystem.into()));
    }
    let mut class = json!({"class": device.class});
    put(&mut class, "desc", text::class_name(device.class).map(Value::from));
    let mut object = json!({"irq_pin": device.irq_pin, "bus": device.bus, "qdev_id": device.id});
    put(&mut object, "irq", (device.irq_pin != 0).then(|| device.irq_line.into()));
    put(&mut object, "slot", Some(device.slot.into()));
    put(&mut object, "class_info", Some(class));
    put(&mut object, "id", Some(id));
    put(&mut object, "function", Some(device.function.into()));
    put(&mut object, "regions", Some(device.bars.iter().map(base_register).collect()));
    object
}

pub(super) fn pci(devices: &[PciDevice]) -> Value {
    let mut buses: Vec<u8> = devices.iter().map(|device| device.bus).collect();
    buses.sort_unstable();
    buses.dedup();
    buses
        .into_iter()
        .map(|bus| {
            let on_bus: Value = devices.iter().filter(|device| device.bus == bus).map(pci_device).collect();
            json!({"bus": bus, "devices": on_bus})
        })
        .collect()
}

fn medium(m: &InsertedMedium) -> Value {
    let mut object = json!({
        "iops_rd": 0,
        "detect_zeroes": m.detect_zeroes,
        "active": true,
        "image": m.image,
        "iops_wr": 0,
        "ro": m.read_only,
        "node-name": m.node_name,
        "backing_file_depth": m.backing_depth,
        "drv": m.driver,
        "iops": 0,
        "bps_wr": 0,
        "write_threshold": 0,
    });
    put(&mut object, "backing_file", m.backing_file.clone().map(Value::from));
    put(&mut object, "encrypted", Some(m.encrypted.into()));
    put(&mut object, "bps", Some(0.into()));
    put(&mut object, "bps_rd", Some(0.into()));
    put(&mut object, "cache", Some(json!({"no-flush": m.no_flush, "direct": m.direct, "writeback": m.writeback})));
    put(&mut object, "file", Some(m.file.clone().into()));
    object
}

pub(super) fn block(devices: &[BlockDevice]) -> Value {
    devices
        .iter()
        .map(|d| {
            let mut object = Value::Object(Map::new());
            put(&mut object, "io-status", d.io_status.map(Value::from));
            put(&mut object, "device", Some(d.device.clone().into()));
            put(&mut object, "locked", Some(d.locked.into()));
            put(&mut object, "removable", Some(d.removable.into()));
            put(&mut object, "inserted", d.inserted.as_ref().map(medium));
            put(&mut object, "qdev", d.qdev.clone().map(Value::from));
            put(&mut object, "tray_open", d.tray_open.map(Value::from));
            put(&mut object, "type", Some("unknown".into()));
            object
        })
        .collect()
}

pub(super) fn named_nodes(devices: &[BlockDevice]) -> Value {
    devices.iter().filter_map(|device| device.inserted.as_ref()).map(medium).collect()
}

fn counters(c: &Stats, account: bool) -> Value {
    let mut object = json!({
        "unmap_operations": c.unmap_operations,
        "unmap_merged": 0,
        "failed_zone_append_operations": 0,
        "flush_total_time_ns": c.flush_total_time_ns,
        "wr_highest_offset": c.wr_highest_offset,
        "wr_total_time_ns": c.wr_total_time_ns,
        "failed_wr_operations": c.failed_wr_operations,
        "failed_rd_operations": c.failed_rd_operations,
        "wr_merged": 0,
        "wr_bytes": c.wr_bytes,
        "timed_stats": [],
        "failed_unmap_operations": c.failed_unmap_operations,
        "zone_append_merged": 0,
        "failed_flush_operations": c.failed_flush_operations,
        "account_invalid": account,
        "rd_total_time_ns": c.rd_total_time_ns,
        "invalid_unmap_operations": 0,
        "flush_operations": c.flush_operations,
        "wr_operations": c.wr_operations,
    });
    for (name, value) in [
        ("unmap_bytes", c.unmap_bytes),
        ("rd_merged", 0),
        ("rd_bytes", c.rd_bytes),
        ("unmap_total_time_ns", c.unmap_total_time_ns),
        ("invalid_flush_operations", 0),
        ("zone_append_total_time_ns", 0),
        ("zone_append_operations", 0),
        ("rd_operations", c.rd_operations),
        ("zone_append_bytes", 0),
        ("invalid_zone_append_operations", 0),
        ("invalid_wr_operations", 0),
        ("invalid_rd_operations", 0),
    ] {
        put(&mut object, name, Some(value.into()));
    }
    put(&mut object, "account_failed", Some(account.into()));
    put(&mut object, "idle_time_ns", c.idle_time_ns().map(Value::from));
    object
}

pub(super) fn block_stats(stats: &[BlockStats]) -> Value {
    stats
        .iter()
        .map(|drive| {
            let mut object = json!({"device": drive.device});
            let parent = drive.parent.as_ref().map(|(driver, below)| {
                let mut parent = json!({"stats": counters(below, false)});
                if driver == "file" {
                    let specific = json!({
                        "discard-bytes-ok": below.unmap_bytes,
                        "discard-nb-ok": below.unmap_operations,
                        "driver": "file",
                        "discard-nb-failed": below.failed_unmap_operations,
                    });
                    put(&mut parent, "driver-specific", Some(specific));
                }
                parent
            });
            put(&mut object, "parent", parent);
            put(&mut object, "stats", Some(counters(&drive.counters, true)));
            put(&mut object, "node-name", drive.node_name.clone().map(Value::from));
            put(&mut object, "qdev", drive.qdev.clone().map(Value::from));
            object
        })
        .collect()
}

fn address(address: &VncAddress) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("family".to_owned(), address.family.into());
    map.insert("service".to_owned(), address.service.clone().into());
    map.insert("host".to_owned(), address.host.clone().into());
    map
}

fn clients(server: &VncServer) -> Value {
    server
        .clients
        .iter()
        .map(|client| {
            let mut map = address(client);
            map.insert("websocket".to_owned(), client.websocket.into());
            Value::Object(map)
        })
        .collect()
}

pub(super) fn vnc(servers: &[VncServer]) -> Value {
    let Some((server, listener)) = servers.iter().find_map(|s| s.listeners.first().map(|l| (s, l))) else {
        return json!({"enabled": false});
    };
    let mut object = json!({"enabled": true, "auth": server.auth});
    put(&mut object, "family", Some(listener.family.into()));
    put(&mut object, "clients", Some(clients(server)));
    put(&mut object, "service", Some(listener.service.clone().into()));
    put(&mut object, "host", Some(listener.host.clone().into()));
    object
}

pub(super) fn vnc_servers(servers: &[VncServer]) -> Value {
    servers
        .iter()
        .map(|server| {
            let listeners: Value = server
                .listeners
                .iter()
                .map(|listener| {
                    let mut map = address(listener);
                    map.insert("auth".to_owned(), server.auth.into());
                    map.insert("websocket".to_owned(), listener.websocket.into());
                    Value::Object(map)
                })
                .collect();
            json!({"auth": server.auth, "clients": clients(server), "server": listeners, "id": server.id})
        })
        .collect()
}
/// `query-rx-filter`: a card's name, address and filter.
pub(super) fn rx_filter((name, mac, filter): &(String, [u8; 6], RxFilter)) -> Value {
    let mac_text = |mac: &[u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let state = |all: bool, none: bool| match (all, none) {
        (true, _) => "all",
        (_, true) => "none",
        _ => "normal",
    };
    json!({
        "name": name,
        "promiscuous": filter.promiscuous,
        "multicast": state(filter.all_multicast, filter.no_multicast),
        "unicast": state(filter.all_unicast, filter.no_unicast),
        "vlan": if filter.vlans.is_none() { "all" } else { "normal" },
        "broadcast-allowed": filter.broadcast,
        "multicast-overflow": filter.multicast_overflow,
        "unicast-overflow": filter.unicast_overflow,
        "main-mac": mac_text(mac),
        "vlan-table": filter.vlans.clone().unwrap_or_default(),
        "unicast-table": filter.unicast.iter().map(mac_text).collect::<Vec<_>>(),
        "multicast-table": filter.multicast.iter().map(mac_text).collect::<Vec<_>>(),
    })
}
