//! `tap`: an Ethernet device of the host, and the scripts that connect it; `bridge`: one that a privileged program has
//! put on a bridge.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use super::packet::{Offloads, Packet};
use super::pump::Medium;
use super::registry::Spec;
use super::vnet;
use crate::host::tap;

/// What is read at once: the longest frame with its header.
const LONGEST: usize = 65536 + 128;

/// A TAP device.
pub struct Tap {
    fd: OwnedFd,
    header: bool,
    offloads: Offloads,
    buffer: Vec<u8>,
    /// Told when it ends.
    down: Option<(String, String)>,
}

impl Tap {
    /// Over an open descriptor, which does not wait. `header`: each frame has a header before it.
    #[must_use]
    pub fn new(fd: OwnedFd, header: bool) -> Self {
        let wanted = Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::ECN;
        // What the guest's side takes is done on the wire: the kernel may hand over long frames.
        let taken = header && tap::set_offload(&fd).is_ok();
        Self {
            fd,
            header,
            offloads: if taken { wanted } else { Offloads::empty() },
            buffer: vec![0; LONGEST],
            down: None,
        }
    }

    /// Runs `script` with the device's name when it ends.
    pub fn set_down_script(&mut self, script: &str, name: &str) {
        self.down = Some((script.to_owned(), name.to_owned()));
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some((script, name)) = self.down.take()
            && let Err(text) = run_script(&script, &name)
        {
            log::warn!("{text}");
        }
    }
}

/// Runs a network script.
///
/// # Errors
/// QEMU's text: it cannot be run or fails.
pub fn run_script(script: &str, name: &str) -> Result<(), String> {
    let status = Command::new(script).arg(name).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("network script {script} failed with status {}", status.code().unwrap_or(-1))),
        Err(error) => {
            eprintln!("{script}: could not launch network script");
            let _ = error;
            Err(format!("network script {script} failed with status 256"))
        }
    }
}

/// Where QEMU looks for the scripts.
const SCRIPT: &str = "/etc/qemu-ifup";
const DOWN_SCRIPT: &str = "/etc/qemu-ifdown";
/// Queues at a time; the kernel's own limit is 256.
const MAX_QUEUES: usize = 256;

/// The devices of `-netdev tap` or `bridge`, one a queue, and what monitors show.
///
/// # Errors
/// QEMU's text.
pub fn open(spec: &Spec) -> Result<(Vec<Tap>, String), String> {
    let on = |key: &str| matches!(spec.get(key), Some("on" | "yes" | "true" | "y"));
    if on("vhost") || on("vhostforce") || spec.get("vhostfd").is_some() || spec.get("vhostfds").is_some() {
        return Err("vhost is not supported by this version".to_owned());
    }
    if spec.get("sndbuf").is_some() {
        return Err("sndbuf= is not supported by this version".to_owned());
    }
    if spec.kind == "bridge" || spec.get("helper").is_some() || (spec.get("br").is_some() && spec.get("fd").is_none()) {
        let bridge = spec.get("br").unwrap_or("br0");
        let helper = spec.get("helper").map_or_else(helper_path, str::to_owned);
        let fd = by_helper(&helper, bridge)?;
        let header = tap::has_header(&fd).unwrap_or(false);
        return Ok((vec![Tap::new(fd, header)], format!("helper={helper},br={bridge}")));
    }
    if let Some(list) = spec.get("fd").or_else(|| spec.get("fds")) {
        return inherited(spec, list);
    }
    created(spec, !matches!(spec.get("vnet_hdr"), Some("off" | "no" | "false" | "n")))
}

fn inherited(spec: &Spec, list: &str) -> Result<(Vec<Tap>, String), String> {
    let own = ["ifname", "script", "downscript", "vnet_hdr", "helper", "queues"];
    if own.iter().any(|key| spec.get(key).is_some()) {
        let key = if spec.get("fd").is_some() { "fd" } else { "fds" };
        let text = "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with";
        return Err(format!("{text} {key}="));
    }
    let mut taps = Vec::new();
    for number in list.split(':') {
        let fault = |error: std::io::Error| {
            format!("{}: Can't use file descriptor {number}: {}", spec.id, crate::host::reason(&error))
        };
        let parsed = number.parse().map_err(|_| format!("File descriptor named '{number}' has not been found"))?;
        let fd = crate::host::fd::take(parsed).map_err(fault)?;
        super::pump::do_not_wait(&fd).map_err(fault)?;
        let header = tap::has_header(&fd).map_err(fault)?;
        taps.push(Tap::new(fd, header));
    }
    let shown = if taps.len() == 1 { format!("fd={list}") } else { format!("fds={list}") };
    Ok((taps, shown))
}

fn created(spec: &Spec, header: bool) -> Result<(Vec<Tap>, String), String> {
    let queues = match spec.get("queues") {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|queues| (1..=MAX_QUEUES).contains(queues))
            .ok_or_else(|| format!("Parameter 'queues' expects a number from 1 to {MAX_QUEUES}"))?,
    };
    let (script, down) = (spec.get("script").unwrap_or(SCRIPT), spec.get("downscript").unwrap_or(DOWN_SCRIPT));
    let mut name = spec.get("ifname").unwrap_or("tap%d").to_owned();
    let mut taps = Vec::new();
    for queue in 0..queues {
        let wanted = tap::Request { name: &name, header, queues: queues > 1 };
        let (fd, given) = tap::create(&wanted).map_err(|error| {
            let shown = spec.get("ifname").unwrap_or("tap");
            format!("could not configure /dev/net/tun ({shown}): {}", crate::host::reason(&error))
        })?;
        name = given;
        let mut tap = Tap::new(fd, header);
        if queue == 0 && down != "no" && !down.is_empty() {
            tap.set_down_script(down, &name);
        }
        taps.push(tap);
    }
    if script != "no" && !script.is_empty() {
        run_script(script, &name)?;
    }
    Ok((taps, format!("ifname={name},script={script},downscript={down}")))
}

/// Our helper is beside us, or where distributions put QEMU's.
fn helper_path() -> String {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join("qemu-bridge-helper")));
    match beside.filter(|path| path.is_file()) {
        Some(path) => path.display().to_string(),
        None => "/usr/lib/qemu/qemu-bridge-helper".to_owned(),
    }
}

/// Lets a privileged program open a device on a bridge; the descriptor comes over a socket.
fn by_helper(helper: &str, bridge: &str) -> Result<OwnedFd, String> {
    let failed = || "bridge helper failed".to_owned();
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|_| failed())?;
    let theirs = OwnedFd::from(theirs);
    // The child knows its end by number: it must stay open there.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(|_| failed())?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
    let arguments = [format!("--fd={number}"), format!("--br={bridge}"), "--use-vnet".to_owned()];
    let mut child = Command::new(helper).args(arguments).spawn().map_err(|_| failed())?;
    drop(theirs);
    let received = tap::receive_descriptor(&ours);
    let status = child.wait().map_err(|_| failed())?;
    let fd = received.map_err(|_| failed())?;
    if !status.success() {
        return Err(failed());
    }
    super::pump::do_not_wait(&fd).map_err(|_| failed())?;
    Ok(fd)
}

impl Medium for Tap {
    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn receive(&mut self) -> Option<Packet> {
        let len = rustix::io::read(&self.fd, &mut self.buffer[..]).ok()?;
        let frame = self.buffer.get(..len)?;
        if !self.header {
            return Some(Packet::from(frame.to_vec()));
        }
        let (header, frame) = frame.split_first_chunk::<{ vnet::LEN }>()?;
        Some(Packet::from(frame.to_vec()).with_offload(vnet::decode(header)))
    }

    fn send(&mut self, packet: Packet) -> Result<(), Packet> {
        let header = vnet::encode(&packet);
        let [head, tail] = packet.pieces();
        let slices = [IoSlice::new(if self.header { &header } else { &[] }), IoSlice::new(head), IoSlice::new(tail)];
        match rustix::io::writev(&self.fd, &slices) {
            Err(rustix::io::Errno::AGAIN) => Err(packet),
            // A device that is down or gone takes nothing: lost, as on a loose cable.
            _ => Ok(()),
        }
    }
}
