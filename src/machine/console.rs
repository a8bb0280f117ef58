//! Virtio consoles: the device and the ports on it.

use std::sync::Arc;

use crate::chardev::{CharHandle, Claim};
use crate::hw::virtio::classes::Variant;
use crate::hw::virtio::serial::{Plane, PortOptions, Serial};

use super::build::BuildError;
use super::config::DeviceSpec;
use super::devices::Site;
use super::props::Props;

/// "Not given".
const UNSET: u32 = u32::MAX;
/// Ports of a device at most: each takes two queues, and two are for control.
const MAX_PORTS: u32 = 511;

/// A bus for ports.
#[derive(Clone, Debug)]
pub struct PortBus {
    /// "virtio-serial-bus.N", or "ID.0".
    pub name: String,
    /// Its ports.
    pub plane: Arc<Plane>,
}

impl Site<'_> {
    pub(super) fn virtio_serial(
        &mut self,
        spec: &DeviceSpec,
        variant: Variant,
        mut props: Props<'_>,
        id: &str,
    ) -> Result<(), BuildError> {
        let max_ports = props.u32("max_ports", 31, 0, UNSET)?;
        if max_ports == 0 {
            return Err(props.error("Maximum number of serial ports not specified"));
        }
        if max_ports > MAX_PORTS {
            return Err(props.error(format!("maximum ports supported: {MAX_PORTS}")));
        }
        let emergency = props.flag("emergency-write", true)?;
        let place = self.virtio_place(&spec.driver, variant, &mut props)?;
        props.finish()?;
        let plane = Plane::new(max_ports, emergency);
        let name = match id {
            "" => format!("virtio-serial-bus.{}", self.placed.port_buses.len()),
            id => format!("{id}.0"),
        };
        self.virtio_install(place, id, Box::new(Serial::new(Arc::clone(&plane))), 2);
        self.placed.port_buses.push(PortBus { name, plane });
        Ok(())
    }

    /// `virtconsole`, `virtserialport`.
    pub(super) fn virtio_port(&mut self, spec: &DeviceSpec, mut props: Props<'_>, id: &str) -> Result<(), BuildError> {
        let console = spec.driver == "virtconsole";
        let buses = &self.placed.port_buses;
        let bus = match spec.bus.as_deref() {
            Some(name) => {
                let found = buses.iter().find(|bus| bus.name == name || bus.name == format!("{name}.0"));
                found.cloned().ok_or_else(|| props.error(format!("Bus '{name}' not found")))?
            }
            None => {
                let none = || props.error(format!("No 'virtio-serial-bus' bus found for device '{}'", spec.driver));
                buses.first().cloned().ok_or_else(none)?
            }
        };
        let taken = bus.plane.ports();
        let max = bus.plane.max_ports();
        let number = match props.u32("nr", UNSET, 0, UNSET)? {
            UNSET => {
                let first = u32::from(!console);
                (first..max)
                    .find(|number| !taken.contains(number))
                    .ok_or_else(|| props.error("virtio-serial-bus: Maximum port limit for this device reached"))?
            }
            0 if !console => {
                return Err(props.error(
                    "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.",
                ));
            }
            number if taken.contains(&number) => {
                return Err(props.error(format!("virtio-serial-bus: A port already exists at id {number}")));
            }
            number if number >= max => {
                let text = format!(
                    "virtio-serial-bus: Out-of-range port id specified, max. allowed: {}",
                    max.saturating_sub(1)
                );
                return Err(props.error(text));
            }
            number => number,
        };
        let name = props.text("name").unwrap_or_default().to_owned();
        let chardev = props.text("chardev");
        let claim = self.claim(&props, chardev)?;
        props.finish()?;
        let output = claim.as_ref().map_or_else(CharHandle::unconnected, Claim::handle);
        let sink = bus.plane.add_port(number, PortOptions { console, name: name.clone() }, output);
        if let Some(claim) = claim {
            claim.connect(sink);
        }
        let properties = vec![
            ("nr", format!("{number} ({number:#x})")),
            ("name", format!("{name:?}")),
            ("chardev", format!("{:?}", chardev.unwrap_or_default())),
        ];
        self.remember(&spec.driver, id, "virtio-serial-bus", properties);
        Ok(())
    }
}
