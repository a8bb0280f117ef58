//! A zlib stream that lasts as long as its client.

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::ui::Rect;

use super::super::format::Format;

/// A compressor whose output can always be decompressed as far as it was fed.
pub(super) struct Deflate(Compress);

impl Deflate {
    /// A stream of level 0-9.
    pub(super) fn new(level: u8) -> Self {
        Self(Compress::new(Compression::new(u32::from(level.min(9))), true))
    }

    /// Appends `input`, compressed and flushed.
    pub(super) fn put(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let start = self.0.total_in();
        loop {
            out.reserve(input.len() / 4 + 256);
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            let rest = input.get(done..).unwrap_or_default();
            let status = self.0.compress_vec(rest, out, FlushCompress::Sync);
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(usize::MAX);
            // All of it is out once the compressor leaves room; an error cannot happen on a stream that is never ended.
            let is_out = done >= input.len() && out.len() < out.capacity();
            if is_out || !matches!(status, Ok(Status::Ok)) && done >= input.len() || status.is_err() {
                return;
            }
        }
    }

    /// Appends a ZRLE rectangle (RFC 6143 7.7.6) of pixels that have the client's format already.
    pub(super) fn put_zrle(&mut self, pixels: &[u8], rect: Rect, format: Format, out: &mut Vec<u8>) {
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        let (width, height) = (side(rect.width), side(rect.height));
        let encoded = rfb_encodings::encode_zrle_persistent(pixels, width, height, &format.for_crate(), &mut self.0);
        // It fails only for less data than the size needs; an empty stream is what is left to say then.
        out.extend_from_slice(&encoded.unwrap_or_else(|_| vec![0; 4]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Decompress, FlushDecompress};

    fn noise(length: usize) -> Vec<u8> {
        let mut seed = 0x1234_5678_u32;
        (0..length)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_be_bytes()[0]
            })
            .collect()
    }

    fn inflate(stream: &mut Decompress, bytes: &[u8], length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 64);
        stream.decompress_vec(bytes, &mut out, FlushDecompress::Sync).unwrap();
        out
    }

    #[test]
    fn incompressible_data_comes_through_whole_at_every_level() {
        let data = noise(200_000);
        for level in 0..=9 {
            let mut compressed = Vec::new();
            let mut stream = Deflate::new(level);
            stream.put(&data, &mut compressed);
            assert!(inflate(&mut Decompress::new(true), &compressed, data.len()) == data, "level {level}");
        }
    }

    #[test]
    fn each_piece_can_be_read_before_the_next() {
        let mut stream = Deflate::new(6);
        let mut reader = Decompress::new(true);
        for piece in [&b"hello"[..], &b"hello hello"[..], &[0; 100_000][..], &b"x"[..]] {
            let mut compressed = Vec::new();
            stream.put(piece, &mut compressed);
            assert_eq!(inflate(&mut reader, &compressed, piece.len()), piece);
        }
    }
}
