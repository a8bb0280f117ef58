//! What CD-ROM drives tell (MMC-6 clause 6).

use super::unit::{MediaEvent, Medium, Unit};
use super::{Plan, Sense, be, be_len, cut};

/// More blocks than a CD can have: the medium is a DVD (80 minutes of 60 seconds of 75 frames).
const CD_BLOCKS: u64 = 80 * 60 * 75;
/// Frames before logical block 0.
const PREGAP: u32 = 150;
/// The lead-out track's number.
const LEAD_OUT: u8 = 0xaa;

/// READ DISC INFORMATION (MMC-6 6.21): a finished disc of one session and one track.
pub(super) fn disc_information() -> Vec<u8> {
    let mut reply = vec![0; 34];
    reply[1] = 32;
    reply[2] = 0x0e;
    reply[3..7].copy_from_slice(&[1, 1, 1, 1]);
    reply[7] = 0x20;
    reply
}

impl Unit {
    fn last_block(&self, medium: Medium) -> u32 {
        u32::try_from(medium.capacity / self.block_size()).unwrap_or(u32::MAX)
    }

    /// An address in a table of contents.
    fn address(lba: u32, msf: bool) -> [u8; 4] {
        if !msf {
            return lba.to_be_bytes();
        }
        let frames = lba.saturating_add(PREGAP);
        let minute = u8::try_from(frames / (60 * 75)).unwrap_or(u8::MAX);
        [0, minute, (frames / 75 % 60) as u8, (frames % 75) as u8]
    }

    /// READ TOC/PMA/ATIP (6.25): one data track.
    pub(super) fn read_toc(&self, cdb: &[u8], medium: Medium) -> Result<Plan, Sense> {
        const DATA_TRACK: u8 = 0x14;
        let msf = cdb[1] & 2 != 0;
        let lead_out = Self::address(self.last_block(medium), msf);
        let mut reply = vec![0, 0, 1, 1];
        match cdb[2] & 0x0f {
            0 => {
                let first = cdb[6];
                if first > 1 && first != LEAD_OUT {
                    return Err(Sense::BAD_FIELD);
                }
                if first <= 1 {
                    reply.extend_from_slice(&[0, DATA_TRACK, 1, 0]);
                    reply.extend_from_slice(&Self::address(0, msf));
                }
                reply.extend_from_slice(&[0, DATA_TRACK, LEAD_OUT, 0]);
                reply.extend_from_slice(&lead_out);
            }
            1 => {
                reply.extend_from_slice(&[0, DATA_TRACK, 1, 0]);
                reply.extend_from_slice(&Self::address(0, msf));
            }
            2 => {
                let end = Self::address(self.last_block(medium), true);
                let start = Self::address(0, true);
                for (point, time) in [(0xa0, [0, 1, 0, 0]), (0xa1, [0, 1, 0, 0]), (0xa2, end), (1, start)] {
                    reply.extend_from_slice(&[1, DATA_TRACK, 0, point, 0, 0, 0]);
                    reply.extend_from_slice(&time);
                }
            }
            _ => return Err(Sense::BAD_FIELD),
        }
        let len = u16::try_from(reply.len() - 2).unwrap_or(u16::MAX);
        reply[..2].copy_from_slice(&len.to_be_bytes());
        Ok(cut(reply, be_len(cdb, 7, 2)))
    }

    /// GET CONFIGURATION (6.5): profiles, core and removable medium.
    pub(super) fn get_configuration(&self, cdb: &[u8], medium: Medium) -> Plan {
        const CD_ROM: u16 = 0x0008;
        const DVD_ROM: u16 = 0x0010;
        let dvd = medium.capacity / self.block_size() > CD_BLOCKS;
        let current = match (medium.present && !self.tray_open, dvd) {
            (false, _) => 0,
            (true, false) => CD_ROM,
            (true, true) => DVD_ROM,
        };
        let flag = |profile: u16| u8::from(current == profile);
        let [dvd_high, dvd_low] = DVD_ROM.to_be_bytes();
        let [cd_high, cd_low] = CD_ROM.to_be_bytes();
        let features: [(u16, Vec<u8>); 3] = [
            (0, vec![3, 8, dvd_high, dvd_low, flag(DVD_ROM), 0, cd_high, cd_low, flag(CD_ROM), 0]),
            (1, vec![0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0]),
            (3, vec![3, 4, 0x29, 0, 0, 0]),
        ];
        let (kind, first) = (cdb[1] & 3, u16::try_from(be(cdb, 2, 2)).unwrap_or(0));
        let mut reply = vec![0; 6];
        reply.extend_from_slice(&current.to_be_bytes());
        for (number, body) in features {
            if if kind == 2 { number == first } else { number >= first } {
                reply.extend_from_slice(&number.to_be_bytes());
                reply.extend(body);
            }
        }
        let len = u32::try_from(reply.len() - 4).unwrap_or(0);
        reply[..4].copy_from_slice(&len.to_be_bytes());
        cut(reply, be_len(cdb, 7, 2))
    }

    /// GET EVENT STATUS NOTIFICATION (6.6): polled; the media class only.
    pub(super) fn get_event_status(&mut self, cdb: &[u8], medium: Medium) -> Plan {
        const MEDIA: u8 = 1 << 4;
        if cdb[1] & 1 == 0 {
            return Plan::Check(Sense::BAD_FIELD); // asynchronous
        }
        let allocation = be_len(cdb, 7, 2);
        if cdb[4] & MEDIA == 0 {
            return cut(vec![0, 2, 0x80, MEDIA], allocation);
        }
        let code = match std::mem::replace(&mut self.event, MediaEvent::None) {
            MediaEvent::None => 0,
            MediaEvent::EjectRequest => 1,
            MediaEvent::NewMedia => 2,
            MediaEvent::MediaRemoval => 3,
        };
        let present = medium.present && !self.tray_open;
        let state = u8::from(self.tray_open) | u8::from(present) << 1;
        cut(vec![0, 6, 4, MEDIA, code, state, 0, 0], allocation)
    }
}
