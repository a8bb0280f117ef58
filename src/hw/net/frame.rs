//! What all cards do to frames.

/// The shortest frame, without its frame check sequence (IEEE 802.3 3.2.8).
pub const MIN_FRAME: usize = 60;

/// The frame check sequence as it is on the wire (IEEE 802.3 3.2.9).
#[must_use]
pub fn check_sequence(frame: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(frame);
    crc.sum().to_le_bytes()
}

/// Where a station address falls in a hash table of 64 bits: the upper 6 bits of its CRC (DP8390D 10.0, RTL8139C 5.7).
#[must_use]
pub fn hash64(address: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in address {
        let mut byte = *byte;
        for _ in 0..8 {
            let carry = (crc >> 31) ^ u32::from(byte & 1);
            crc <<= 1;
            byte >>= 1;
            if carry != 0 {
                crc = (crc ^ 0x04c1_1db6) | 1;
            }
        }
    }
    crc >> 26
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_sequence_is_ethernets() {
        // The residue over a frame and its check sequence is constant.
        let frame = [1u8; 60];
        let whole = [&frame[..], &check_sequence(&frame)].concat();
        let mut crc = flate2::Crc::new();
        crc.update(&whole);
        assert_eq!(crc.sum(), 0x2144_df1c);
    }

    #[test]
    fn the_hash_has_six_bits() {
        assert!((0..=255u8).all(|byte| hash64(&[1, 0, 0x5e, 0, 0, byte]) < 64));
        assert_ne!(hash64(&[1, 0, 0x5e, 0, 0, 1]), hash64(&[1, 0, 0x5e, 0, 0, 2]));
    }
}
