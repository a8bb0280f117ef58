//! Compressed clusters: raw deflate with a 12-bit window (RFC 1951), or a Zstandard frame (RFC 8878).

use std::io;

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

use super::header::Compression;
use crate::block::node::IoResult;

/// Unpacks one cluster; `packed` may have padding behind it. `out` must be filled exactly.
pub(in crate::block::format) fn unpack(kind: Compression, packed: &[u8], out: &mut [u8]) -> IoResult<()> {
    let full = match kind {
        Compression::Zlib => {
            let mut inflate = Decompress::new(false);
            let status = inflate.decompress(packed, out, FlushDecompress::Finish);
            status.is_ok() && inflate.total_out() == out.len() as u64
        }
        Compression::Zstd => unpack_zstd(packed, out)?,
    };
    if full { Ok(()) } else { Err(io::Error::from_raw_os_error(5)) } // EIO, as QEMU
}

fn unpack_zstd(packed: &[u8], out: &mut [u8]) -> IoResult<bool> {
    use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};
    let mut decoder = Decoder::new()?;
    let mut input = InBuffer::around(packed);
    let len = out.len();
    let mut output = OutBuffer::around(out);
    while output.pos() < len {
        let before = (input.pos(), output.pos());
        let left = decoder.run(&mut input, &mut output)?;
        if left == 0 || before == (input.pos(), output.pos()) {
            break;
        }
    }
    Ok(output.pos() == len)
}

/// Packs one cluster; `None` if that does not make it smaller.
pub(in crate::block::format) fn pack(kind: Compression, cluster: &[u8]) -> IoResult<Option<Vec<u8>>> {
    let mut out = vec![0; cluster.len() - 1];
    let len = match kind {
        Compression::Zlib => {
            let mut deflate = Compress::new_with_window_bits(Level::default(), false, 12);
            let status = deflate.compress(cluster, &mut out, FlushCompress::Finish).map_err(io::Error::other)?;
            (status == Status::StreamEnd).then(|| usize::try_from(deflate.total_out()).unwrap_or(0))
        }
        Compression::Zstd => zstd::bulk::compress_to_buffer(cluster, &mut out, 0).ok(),
    };
    Ok(len.map(|len| {
        out.truncate(len);
        out
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(kind: Compression) {
        let cluster: Vec<u8> = (0..65536_u32).map(|i| (i / 300).to_le_bytes()[0]).collect();
        let mut packed = pack(kind, &cluster).unwrap().unwrap();
        assert!(packed.len() < 8192);
        packed.resize(packed.len().next_multiple_of(512), 0xee);
        let mut out = vec![0; 65536];
        unpack(kind, &packed, &mut out).unwrap();
        assert_eq!(out, cluster);
        assert!(unpack(kind, &packed[..100], &mut out).is_err());
    }

    #[test]
    fn deflate_comes_back_in_spite_of_padding() {
        round_trip(Compression::Zlib);
    }

    #[test]
    fn zstd_comes_back_in_spite_of_padding() {
        round_trip(Compression::Zstd);
    }

    #[test]
    fn noise_is_not_packed() {
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_le_bytes()[3]
            })
            .collect();
        assert_eq!(pack(Compression::Zlib, &noise).unwrap(), None);
        assert_eq!(pack(Compression::Zstd, &noise).unwrap(), None);
    }
}
