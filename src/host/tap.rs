//! TAP devices (Linux, Documentation/networking/tuntap.rst).
#![expect(unsafe_code)] // UNSAFE: ioctl(2) with structures of the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// What a device is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// Its name; empty or with "%d": the kernel chooses.
    pub name: &'a str,
    /// Frames have a header that tells of offloads.
    pub header: bool,
    /// It has several queues, one a descriptor.
    pub queues: bool,
}

fn flags_of(request: &Request<'_>) -> libc::c_short {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if request.header {
        flags |= libc::IFF_VNET_HDR;
    }
    if request.queues {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    libc::c_short::try_from(flags).unwrap_or(0)
}

fn request(flags: libc::c_short, name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    Ok(request)
}

fn name_of(request: &libc::ifreq) -> String {
    request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(byte.cast_unsigned())).collect()
}

/// Opens a device, or makes one; returns its name. The descriptor does not wait.
///
/// # Errors
/// The host has no TAP devices, or does not let us.
pub fn create(wanted: &Request<'_>) -> io::Result<(OwnedFd, String)> {
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    let mut request = request(flags_of(wanted), wanted.name)?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives on this stack.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok((fd, name_of(&request))) }
}

/// Whether an inherited descriptor is a TAP device, and if its frames have headers.
///
/// # Errors
/// It is none.
pub fn has_header(fd: impl AsFd) -> io::Result<bool> {
    let mut request = request(0, "")?;
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives on this stack.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNGETIFF, &mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNGETIFF fills the flags member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & libc::IFF_VNET_HDR != 0)
}

/// Lets the kernel hand over frames without checksums and long TCP segments.
///
/// # Errors
/// The device does not know them.
pub fn set_offload(fd: impl AsFd) -> io::Result<()> {
    let flags = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts a device on a bridge and switches it on.
///
/// # Errors
/// There is no such bridge, or the host does not let us.
pub fn add_to_bridge(name: &str, bridge: &str) -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    let device = std::ffi::CString::new(name)?;
    // SAFETY: if_nametoindex reads one string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(device.as_ptr()) };
    let mut member = request(0, bridge)?;
    member.ifr_ifru.ifru_ifindex = libc::c_int::try_from(index).unwrap_or(0);
    // SAFETY: SIOCBRADDIF reads one `ifreq`, which lives on this stack.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDIF, &member) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut device = request(0, name)?;
    // SAFETY: SIOCGIFFLAGS writes one `ifreq`, which lives on this stack.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &mut device) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: SIOCGIFFLAGS has filled the flags member of the union.
    unsafe { device.ifr_ifru.ifru_flags |= up };
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives on this stack.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &device) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// linux/sockios.h; libc does not have it.
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// Takes the one descriptor that comes over a socket.
///
/// # Errors
/// The other side sent none, or went away.
pub fn receive_descriptor(socket: impl AsFd) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut byte = [0; 1];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [io::IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(fd) = descriptors.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::from(io::ErrorKind::UnexpectedEof))
}

/// Sends a descriptor over a socket.
///
/// # Errors
/// The other side is gone.
pub fn send_descriptor(socket: impl AsFd, fd: impl AsFd) -> io::Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fd.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[io::IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
    Ok(())
}
