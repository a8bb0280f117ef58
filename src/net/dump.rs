//! `filter-dump`: the frames of a back end in a file that tcpdump and Wireshark read.
//!
//! Document: draft-ietf-opsawg-pcap (classic pcap, microseconds).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::lock;
use super::offload;
use super::packet::{Offloads, Packet};
use super::wire::Tap;

/// Link type: Ethernet.
const ETHERNET: u32 = 1;

/// A file that records.
pub struct Dump {
    file: Mutex<File>,
    /// Bytes of each frame that are kept.
    limit: u32,
    /// Frames that the end sends, and those that it receives.
    directions: (bool, bool),
}

impl Dump {
    /// Opens the file and writes its header. `directions`: what the end sends, what it receives.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path, limit: u32, directions: (bool, bool)) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let mut header = 0xa1b2_c3d4u32.to_ne_bytes().to_vec();
        for word in [2u16, 4] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        for word in [0, 0, limit, ETHERNET] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        file.write_all(&header)?;
        Ok(Self { file: Mutex::new(file), limit, directions })
    }

    fn record(&self, packet: Packet) {
        let bytes = packet.into_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = bytes.len().min(self.limit as usize);
        let mut record = Vec::with_capacity(16 + kept);
        let seconds = u32::try_from(now.as_secs() & 0xffff_ffff).unwrap_or(0);
        let lens = [u32::try_from(kept).unwrap_or(u32::MAX), u32::try_from(bytes.len()).unwrap_or(u32::MAX)];
        for word in [seconds, now.subsec_micros(), lens[0], lens[1]] {
            record.extend_from_slice(&word.to_ne_bytes());
        }
        record.extend_from_slice(&bytes[..kept]);
        // A full disk ends the recording, not the network.
        let _ = lock(&self.file).write_all(&record);
    }
}

impl Tap for Dump {
    fn frame(&self, sent: bool, packet: &Packet) {
        if if sent { self.directions.0 } else { self.directions.1 } {
            // As it would be on a real wire.
            offload::lower(packet.clone(), Offloads::empty(), &mut |frame| self.record(frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_and_a_record_a_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump");
        let dump = Dump::create(&path, 100, (true, true)).unwrap();
        dump.frame(true, &Packet::from(vec![7; 60]));
        dump.frame(false, &Packet::from(vec![8; 200]));
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 60 + 16 + 100);
        assert_eq!(bytes[..4], 0xa1b2_c3d4u32.to_ne_bytes());
        assert_eq!(bytes[24 + 8..24 + 16], [60u32.to_ne_bytes(), 60u32.to_ne_bytes()].concat());
        assert_eq!(bytes[100 + 12..100 + 16], 200u32.to_ne_bytes());
    }
}
