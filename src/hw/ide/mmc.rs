//! The packet commands that only tell something: INQUIRY, TOC, configuration, mode pages, disc and DVD structures.
//!
//! Documents: MMC-6, SPC-3, SFF-8020i.

use super::atapi::{Cd, MediaEvent, Sense, op};
use super::drive::Drive;
use super::identify::padded;

/// More blocks than a CD can have: the medium is a DVD (80 minutes of 60 seconds of 75 frames).
const CD_BLOCKS: u64 = 80 * 60 * 75;
/// Frames before logical block 0 (Red Book: two seconds).
const PREGAP: u32 = 150;
/// The lead-out track's number.
const LEAD_OUT: u8 = 0xaa;

/// Profiles (MMC-6 table 92).
mod profile {
    pub const NONE: u16 = 0x0000;
    pub const CD_ROM: u16 = 0x0008;
    pub const DVD_ROM: u16 = 0x0010;
}

/// Mode pages (MMC-6 annex E, SFF-8020i 10.8.6).
mod page {
    pub const ERROR_RECOVERY: u8 = 0x01;
    pub const AUDIO: u8 = 0x0e;
    pub const CAPABILITIES: u8 = 0x2a;
    pub const ALL: u8 = 0x3f;
}

/// Minute, second and frame of a block (MMC-6 table 596); the minute saturates.
pub(super) fn msf(lba: u32) -> [u8; 3] {
    let frames = lba.saturating_add(PREGAP);
    let minute = u8::try_from(frames / (60 * 75)).unwrap_or(0xff);
    [minute, (frames / 75 % 60) as u8, (frames % 75) as u8]
}

fn be16(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

/// Cuts a reply to the allocation length of its command.
fn cut(mut reply: Vec<u8>, allocation: usize) -> Vec<u8> {
    reply.truncate(allocation);
    reply
}

fn allocation16(packet: &[u8; 12], at: usize) -> usize {
    usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]))
}

impl Drive {
    /// The reply of a command that has one.
    pub fn tell(&mut self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        match packet[0] {
            op::INQUIRY => self.inquiry(packet),
            op::REQUEST_SENSE => Ok(self.request_sense(packet)),
            op::READ_CAPACITY => Ok(self.read_capacity()),
            op::READ_TOC => self.read_toc(packet),
            op::GET_CONFIGURATION => self.get_configuration(packet),
            op::GET_EVENT_STATUS => self.get_event_status(packet),
            op::READ_DISC_INFORMATION => Ok(cut(disc_information(packet)?, allocation16(packet, 7))),
            op::READ_TRACK_INFORMATION => self.track_information(packet),
            op::MODE_SENSE_10 => self.mode_sense(packet),
            op::READ_DVD_STRUCTURE => self.dvd_structure(packet),
            op::MECHANISM_STATUS => Ok(cut(vec![0, 0, 0, 0, 0, 1, 0, 0], allocation16(packet, 8))),
            _ => Err(Sense::BAD_OPCODE),
        }
    }

    fn is_dvd(&self) -> bool {
        self.blocks() > CD_BLOCKS
    }

    /// INQUIRY (SPC-3 6.4).
    fn inquiry(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        const CD_ROM: u8 = 5;
        let allocation = allocation16(packet, 3);
        if packet[1] & 1 != 0 {
            return Ok(cut(self.vital_product_data(packet[2])?, allocation));
        }
        if packet[2] != 0 {
            return Err(Sense::BAD_FIELD);
        }
        let mut reply = vec![CD_ROM, 0x80, 0x00, 0x21, 31, 0, 0, 0];
        reply.extend_from_slice(b"QEMU    ");
        reply.extend(padded(self.model(), 16));
        reply.extend(padded(self.version(), 4));
        Ok(cut(reply, allocation))
    }

    /// Vital product data (SPC-3 7.6): the list of pages, and the identification.
    fn vital_product_data(&self, page: u8) -> Result<Vec<u8>, Sense> {
        const LIST: u8 = 0x00;
        const IDENTIFICATION: u8 = 0x83;
        let mut body = Vec::new();
        match page {
            LIST => body.extend_from_slice(&[LIST, IDENTIFICATION]),
            IDENTIFICATION => {
                body.extend_from_slice(&[2, 0, 0, 20]); // ASCII, vendor specific
                body.extend(padded(&self.serial(), 20));
                if self.options.wwn != 0 {
                    body.extend_from_slice(&[1, 3, 0, 8]); // binary, NAA
                    body.extend_from_slice(&self.options.wwn.to_be_bytes());
                }
            }
            _ => return Err(Sense::BAD_FIELD),
        }
        let mut reply = vec![5, page];
        reply.extend_from_slice(&be16(body.len()));
        reply.extend(body);
        Ok(reply)
    }

    /// REQUEST SENSE (SPC-3 6.27); fixed format. The sense is gone afterwards.
    fn request_sense(&mut self, packet: &[u8; 12]) -> Vec<u8> {
        let Sense { key, asc } = std::mem::replace(&mut self.cd.sense, Sense::NONE);
        let mut reply = vec![0; 18];
        reply[0] = 0xf0;
        reply[2] = key;
        reply[7] = 10;
        reply[12] = asc;
        cut(reply, usize::from(packet[4]))
    }

    /// READ CAPACITY (MMC-6 6.22).
    fn read_capacity(&self) -> Vec<u8> {
        let last = u32::try_from(self.blocks().saturating_sub(1)).unwrap_or(u32::MAX);
        let mut reply = last.to_be_bytes().to_vec();
        reply.extend_from_slice(&2048u32.to_be_bytes());
        reply
    }

    /// READ TOC/PMA/ATIP (MMC-6 6.25): one data track. Old drivers put the format into byte 9's upper bits.
    fn read_toc(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        let in_msf = packet[1] & 2 != 0;
        let format = if packet[2] & 0x0f != 0 { packet[2] & 0x0f } else { packet[9] >> 6 };
        let reply = match format {
            0 => self.toc(in_msf, packet[6])?,
            // Sessions: one, which began with track 1.
            1 => vec![0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0],
            2 => self.full_toc(),
            _ => return Err(Sense::BAD_FIELD),
        };
        Ok(cut(reply, allocation16(packet, 7)))
    }

    /// A block's address in a TOC, in the form asked for.
    fn toc_address(&self, block: u64, in_msf: bool) -> [u8; 4] {
        let lba = u32::try_from(block).unwrap_or(u32::MAX);
        if !in_msf {
            return lba.to_be_bytes();
        }
        let [minute, second, frame] = msf(lba);
        [0, minute, second, frame]
    }

    /// Format 0: the tracks from `first` on, and the lead-out.
    fn toc(&self, in_msf: bool, first: u8) -> Result<Vec<u8>, Sense> {
        const DATA_TRACK: u8 = 0x14;
        if first > 1 && first != LEAD_OUT {
            return Err(Sense::BAD_FIELD);
        }
        let mut reply = vec![0, 0, 1, 1];
        if first <= 1 {
            reply.extend_from_slice(&[0, DATA_TRACK, 1, 0]);
            reply.extend_from_slice(&self.toc_address(0, in_msf));
        }
        reply.extend_from_slice(&[0, 0x16, LEAD_OUT, 0]);
        reply.extend_from_slice(&self.toc_address(self.blocks(), in_msf));
        set_length(&mut reply);
        Ok(reply)
    }

    /// Format 2: the lead-in's Q sub-channel entries (MMC-6 6.25.3.4): points A0h, A1h, A2h and track 1.
    fn full_toc(&self) -> Vec<u8> {
        let [minute, second, frame] = msf(u32::try_from(self.blocks()).unwrap_or(u32::MAX));
        let mut reply = vec![0, 0, 1, 1];
        let entries: [(u8, [u8; 3]); 4] =
            [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, [minute, second, frame]), (1, msf(0))];
        for (point, [pmin, psec, pframe]) in entries {
            reply.extend_from_slice(&[1, 0x14, 0, point, 0, 0, 0, 0, pmin, psec, pframe]);
        }
        set_length(&mut reply);
        reply
    }

    /// GET CONFIGURATION (MMC-6 6.5).
    fn get_configuration(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        if packet[1] & 3 == 3 {
            return Err(Sense::BAD_FIELD);
        }
        let first = u16::from_be_bytes([packet[2], packet[3]]);
        let only = packet[1] & 3 == 2;
        let current = match (self.ready(), self.is_dvd()) {
            (false, _) => profile::NONE,
            (true, false) => profile::CD_ROM,
            (true, true) => profile::DVD_ROM,
        };
        let mut reply = vec![0, 0, 0, 0, 0, 0];
        reply.extend_from_slice(&current.to_be_bytes());
        for (feature, body) in features(current) {
            if if only { feature == first } else { feature >= first } {
                reply.extend_from_slice(&feature.to_be_bytes());
                reply.extend(body);
            }
        }
        let len = u32::try_from(reply.len() - 4).unwrap_or(0);
        reply[..4].copy_from_slice(&len.to_be_bytes());
        Ok(cut(reply, allocation16(packet, 7)))
    }

    /// GET EVENT STATUS NOTIFICATION (MMC-6 6.6): polled; the media class only.
    fn get_event_status(&mut self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        const MEDIA: u8 = 1 << 4;
        const NOT_AVAILABLE: u8 = 0x80;
        if packet[1] & 1 == 0 {
            return Err(Sense::BAD_FIELD); // asynchronous
        }
        if packet[4] & MEDIA == 0 {
            return Ok(cut(vec![0, 0, NOT_AVAILABLE, MEDIA], allocation16(packet, 7)));
        }
        let Cd { event, tray_open, .. } = self.cd;
        self.cd.event = MediaEvent::None;
        let code = match event {
            MediaEvent::None => 0,
            MediaEvent::EjectRequest => 1,
            MediaEvent::NewMedia => 2,
            MediaEvent::MediaRemoval => 3,
        };
        let present = !tray_open && self.queue.has_medium();
        let state = u8::from(tray_open) | u8::from(present) << 1;
        Ok(cut(vec![0, 4, 4, MEDIA, code, state, 0, 0], allocation16(packet, 7)))
    }

    /// READ TRACK INFORMATION (MMC-6 6.27): track 1, by its number or any of its blocks.
    fn track_information(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        let address = u32::from_be_bytes([packet[2], packet[3], packet[4], packet[5]]);
        let known = match packet[1] & 3 {
            0 => u64::from(address) < self.blocks(),
            1 | 2 => address == 1,
            _ => false,
        };
        if !known {
            return Err(Sense::BAD_FIELD);
        }
        let mut reply = vec![0; 36];
        reply[1] = 34;
        reply[2] = 1; // track
        reply[3] = 1; // session
        reply[5] = 4; // data, uninterrupted
        reply[6] = 1; // mode 1
        let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
        reply[24..28].copy_from_slice(&blocks.to_be_bytes());
        Ok(cut(reply, allocation16(packet, 7)))
    }

    /// MODE SENSE (10) (MMC-6 6.11): current values; an eight-byte header and no block descriptors.
    fn mode_sense(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        const SAVED: u8 = 3;
        let (control, code) = (packet[2] >> 6, packet[2] & 0x3f);
        if control == SAVED {
            return Err(Sense::SAVING_NOT_SUPPORTED);
        }
        if control != 0 && control != 2 && control != 1 {
            return Err(Sense::BAD_FIELD);
        }
        let mut body = Vec::new();
        for page in [page::ERROR_RECOVERY, page::AUDIO, page::CAPABILITIES] {
            if code == page || code == page::ALL {
                let mut bytes = self.mode_page(page);
                if control == 1 {
                    bytes[2..].fill(0); // changeable values: none
                }
                body.extend(bytes);
            }
        }
        if body.is_empty() {
            return Err(Sense::BAD_FIELD);
        }
        let mut reply = vec![0; 8];
        // Medium type of SFF-8020i 10.8.3: door open, or no disc.
        reply[2] = if self.cd.tray_open { 0x71 } else { 0x70 };
        reply.extend(body);
        set_length(&mut reply);
        Ok(cut(reply, allocation16(packet, 7)))
    }

    fn mode_page(&self, page: u8) -> Vec<u8> {
        match page {
            page::ERROR_RECOVERY => vec![page, 6, 0, 5, 0, 0, 0, 0],
            page::AUDIO => vec![page, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
            _ => {
                // Reads CD-R, CD-RW, DVD-ROM, DVD-R; mode 2 forms; multi-session; lockable; tray; 706 kB/s.
                let locked = u8::from(self.cd.locked) << 1;
                let mut bytes = vec![page::CAPABILITIES, 0x14, 0x3b, 0, 0x71, 0x60, 0x29 | locked, 0];
                bytes.extend_from_slice(&704u16.to_be_bytes());
                bytes.extend_from_slice(&[0, 2]); // volume levels
                bytes.extend_from_slice(&512u16.to_be_bytes()); // KiB of buffer
                bytes.extend_from_slice(&704u16.to_be_bytes());
                bytes.resize(22, 0);
                bytes
            }
        }
    }

    /// READ DVD STRUCTURE (MBR of MMC-6 6.23): physical format, copyright, manufacturing and the list of them.
    fn dvd_structure(&self, packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
        let (media, layer, format) = (packet[1] & 0x0f, packet[6], packet[7]);
        let allocation = allocation16(packet, 8);
        if format == 0xff {
            let list: Vec<u8> = [(0u8, 2052usize), (1, 8), (3, 192), (4, 2052)]
                .iter()
                .flat_map(|(format, len)| {
                    let [high, low] = be16(*len);
                    [*format, 0x40, high, low]
                })
                .collect();
            return Ok(cut(with_header(list), allocation));
        }
        if media != 0 {
            return Err(Sense::BAD_FIELD);
        }
        if !self.is_dvd() {
            return Err(Sense::INCOMPATIBLE_FORMAT);
        }
        let body = match format {
            0 if layer == 0 => self.physical_format(),
            1 => vec![0; 4],
            4 => vec![0; 2048],
            // No burst cutting area on this disc.
            _ => return Err(Sense::BAD_FIELD),
        };
        Ok(cut(with_header(body), allocation))
    }

    /// Physical format information (ECMA-267 16.1): a single-layer read-only disc.
    fn physical_format(&self) -> Vec<u8> {
        const FIRST_SECTOR: u32 = 0x3_0000;
        let last = FIRST_SECTOR.saturating_add(u32::try_from(self.blocks() - 1).unwrap_or(u32::MAX));
        let mut body = vec![0; 2048];
        body[0] = 1; // DVD-ROM, part version 1
        body[1] = 0x0f; // 120 mm, no minimum rate
        body[2] = 1; // one layer, read-only
        body[4..8].copy_from_slice(&FIRST_SECTOR.to_be_bytes());
        body[8..12].copy_from_slice(&last.to_be_bytes());
        body[4] = 0;
        body[8] = 0;
        body
    }
}

/// Puts the length of what follows into a reply's first two bytes.
fn set_length(reply: &mut [u8]) {
    let [high, low] = be16(reply.len() - 2);
    reply[0] = high;
    reply[1] = low;
}

/// READ DVD STRUCTURE's four-byte header and the structure.
fn with_header(body: Vec<u8>) -> Vec<u8> {
    let mut reply = vec![0; 4];
    reply.extend(body);
    set_length(&mut reply);
    reply
}

/// The features as GET CONFIGURATION lists them, from byte 2 of their descriptors on.
fn features(current: u16) -> [(u16, Vec<u8>); 3] {
    const PERSISTENT_CURRENT: u8 = 0x03;
    let mut profiles = vec![PERSISTENT_CURRENT, 8];
    for profile in [profile::DVD_ROM, profile::CD_ROM] {
        profiles.extend_from_slice(&profile.to_be_bytes());
        profiles.extend_from_slice(&[u8::from(profile == current), 0]);
    }
    let core = vec![PERSISTENT_CURRENT | 2 << 2, 8, 0, 0, 0, 2, 0, 0, 0, 0]; // over ATAPI
    // A tray that locks and ejects.
    let removable = vec![PERSISTENT_CURRENT, 4, 0x29, 0, 0, 0];
    [(0, profiles), (1, core), (3, removable)]
}

/// READ DISC INFORMATION (MMC-6 6.21): a finished, finalized disc with one session and one track.
fn disc_information(packet: &[u8; 12]) -> Result<Vec<u8>, Sense> {
    if packet[1] & 7 != 0 {
        return Err(Sense::BAD_FIELD);
    }
    let mut reply = vec![0; 34];
    reply[1] = 32;
    reply[2] = 0x0e;
    reply[3..7].fill(1);
    reply[7] = 0x20; // unrestricted use
    Ok(reply)
}

/// Checks MODE SELECT (10)'s list: a header without block descriptors and whole pages that the drive has; nothing of
/// them can be changed, so they have to be there and no more.
pub(super) fn check_mode_list(list: &[u8]) -> Result<(), Sense> {
    let Some(mut rest) = list.get(8..) else { return Err(Sense::BAD_PARAMETER) };
    while let [code, len, ..] = *rest {
        let known = matches!(code & 0x3f, page::ERROR_RECOVERY | page::AUDIO | page::CAPABILITIES);
        let Some(next) = rest.get(2 + usize::from(len)..) else { return Err(Sense::BAD_PARAMETER) };
        if !known {
            return Err(Sense::BAD_PARAMETER);
        }
        rest = next;
    }
    Ok(())
}
