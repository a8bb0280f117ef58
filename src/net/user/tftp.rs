//! Files of a folder for guests that boot from the network: a server that only gives.
//!
//! Documents: RFC 1350 (TFTP), RFC 2347 (options), RFC 2348 (block size), RFC 2349 (transfer size, time-out). Time-outs
//! are the client's business: whoever lost something asks again.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::time::Instant;

use super::egress::{Egress, MTU};

/// Its port.
pub const PORT: u16 = 69;
/// Transfers at a time; the one that was silent longest makes room for a new one.
const MAX_SESSIONS: usize = 20;
const BLOCK: usize = 512;
/// What fits into one frame over IPv6.
const MAX_BLOCK: usize = MTU - 40 - 8 - 4;

/// Opcodes (RFC 1350 5, RFC 2347).
mod opcode {
    pub const READ: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const DATA: u16 = 3;
    pub const ACK: u16 = 4;
    pub const ERROR: u16 = 5;
    pub const OPTIONS: u16 = 6;
}

/// Error codes (RFC 1350, appendix).
mod code {
    pub const NOT_FOUND: u16 = 1;
    pub const ACCESS: u16 = 2;
    pub const ILLEGAL: u16 = 4;
}

struct Session {
    file: File,
    block: usize,
    active: Instant,
    server: SocketAddr,
    /// The number of the last block sent, counted without wrapping.
    last: u64,
}

/// The transfers, by the guest's end.
#[derive(Default)]
pub struct Tftp {
    sessions: HashMap<SocketAddr, Session>,
}

fn text(payload: &mut &[u8]) -> Option<String> {
    let end = payload.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8(payload[..end].to_vec()).ok()?;
    *payload = &payload[end + 1..];
    Some(text)
}

fn error(out: &mut Egress, guest: SocketAddr, server: SocketAddr, code: u16, why: &str) {
    let message = [&opcode::ERROR.to_be_bytes()[..], &code.to_be_bytes(), why.as_bytes(), &[0]].concat();
    out.send_udp(server, guest, &message);
}

/// A file below `root`; the name may not lead out of it.
fn open(root: &Path, name: &str) -> Option<File> {
    let name = Path::new(name.trim_start_matches('/'));
    if !name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    let path = root.join(name);
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    File::open(path).ok()
}

impl Tftp {
    /// A datagram of the guest for the server.
    pub fn receive(&mut self, out: &mut Egress, guest: SocketAddr, server: SocketAddr, payload: &[u8]) {
        let Some(root) = out.config.tftp.clone() else { return };
        let Some((head, rest)) = payload.split_first_chunk::<2>() else { return };
        match u16::from_be_bytes(*head) {
            opcode::READ => self.start(out, &root, guest, server, rest),
            opcode::WRITE => error(out, guest, server, code::ACCESS, "Access violation"),
            opcode::ACK => self.acknowledged(out, guest, rest),
            opcode::ERROR => {
                self.sessions.remove(&guest);
            }
            _ => {}
        }
    }

    fn start(&mut self, out: &mut Egress, root: &Path, guest: SocketAddr, server: SocketAddr, mut rest: &[u8]) {
        let (Some(name), Some(mode)) = (text(&mut rest), text(&mut rest)) else {
            return error(out, guest, server, code::ACCESS, "Access violation");
        };
        if !mode.eq_ignore_ascii_case("octet") {
            return error(out, guest, server, code::ILLEGAL, "Unsupported transfer mode");
        }
        let Some(file) = open(root, &name) else {
            return error(out, guest, server, code::NOT_FOUND, "File not found");
        };
        let size = file.metadata().map_or(0, |meta| meta.len());
        let mut session = Session { file, block: BLOCK, active: Instant::now(), server, last: 0 };
        let mut accepted = Vec::new();
        while let (Some(key), Some(value)) = (text(&mut rest), text(&mut rest)) {
            let number = value.parse::<usize>().ok();
            let answer = match (key.to_ascii_lowercase().as_str(), number) {
                ("tsize", Some(_)) => size.to_string(),
                ("blksize", Some(wanted)) if wanted >= 8 => {
                    session.block = wanted.min(MAX_BLOCK);
                    session.block.to_string()
                }
                _ => continue,
            };
            accepted.extend_from_slice(key.as_bytes());
            accepted.push(0);
            accepted.extend_from_slice(answer.as_bytes());
            accepted.push(0);
        }
        if self.sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = self.sessions.iter().min_by_key(|(_, s)| s.active).map(|(guest, _)| *guest)
        {
            self.sessions.remove(&oldest);
        }
        if accepted.is_empty() {
            self.sessions.insert(guest, session);
            return self.send_block(out, guest, 1);
        }
        self.sessions.insert(guest, session);
        out.send_udp(server, guest, &[&opcode::OPTIONS.to_be_bytes()[..], &accepted].concat());
    }

    fn acknowledged(&mut self, out: &mut Egress, guest: SocketAddr, rest: &[u8]) {
        let Some(number) = rest.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)) else { return };
        let Some(session) = self.sessions.get_mut(&guest) else { return };
        session.active = Instant::now();
        // Numbers wrap; the block that is meant is the last one, or the one before if that was lost.
        let behind = u64::from((session.last as u16).wrapping_sub(number));
        if behind <= 1 && behind <= session.last {
            let next = session.last - behind + 1;
            self.send_block(out, guest, next);
        }
    }

    fn send_block(&mut self, out: &mut Egress, guest: SocketAddr, number: u64) {
        let Some(session) = self.sessions.get_mut(&guest) else { return };
        let mut message = vec![0; 4 + session.block];
        message[..2].copy_from_slice(&opcode::DATA.to_be_bytes());
        message[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        let start = (number - 1).saturating_mul(session.block as u64);
        // The block after a short one is asked for when the last one was acknowledged: that is the end.
        let size = session.file.metadata().map_or(0, |meta| meta.len());
        if start > size {
            self.sessions.remove(&guest);
            return;
        }
        let mut done = 0;
        while done < session.block {
            match session.file.read_at(&mut message[4 + done..], start + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(_) => {
                    let server = session.server;
                    self.sessions.remove(&guest);
                    return error(out, guest, server, code::ACCESS, "Access violation");
                }
            }
        }
        message.truncate(4 + done);
        session.last = number;
        let server = session.server;
        out.send_udp(server, guest, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("root")).unwrap();
        std::fs::write(folder.path().join("secret"), "x").unwrap();
        std::fs::write(folder.path().join("root/file"), "x").unwrap();
        let root = folder.path().join("root");
        assert!(open(&root, "file").is_some() && open(&root, "/file").is_some() && open(&root, "./file").is_some());
        for name in ["../secret", "/../secret", "a/../../secret", "", ".", "missing"] {
            assert!(open(&root, name).is_none(), "{name}");
        }
    }
}
