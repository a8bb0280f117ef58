//! What a new image would take (`qemu-img measure`).

use super::create::CreateOptions;
use crate::block::create::Preallocation;
use crate::block::error::OpenError;
use crate::block::image::{BitmapInfo, Measure, MeasureSource};

/// Bytes of all tables of an image and of the disk in whole clusters.
pub(super) fn full_size(size: u64, cluster: u64, refcount_order: u32, extended: bool) -> Option<u64> {
    let entry = if extended { 16 } else { 8 };
    let disk = size.checked_next_multiple_of(cluster)?;
    let l2 = (disk / cluster).checked_next_multiple_of(cluster / entry)?.checked_mul(entry)?;
    let l1 = (l2 / cluster).checked_next_multiple_of(cluster / 8)?.checked_mul(8)?;
    let counted = cluster.checked_add(l2)?.checked_add(l1)?.checked_add(disk)?;
    counted.checked_add(refcount_size(counted / cluster, cluster, refcount_order)?)
}

/// Bytes of refcount blocks and their table that count `clusters` and themselves.
fn refcount_size(clusters: u64, cluster: u64, order: u32) -> Option<u64> {
    let per_block = (cluster * 8) >> order;
    let per_table = cluster / 8;
    let (mut table, mut blocks, mut all) = (0, 0, 0);
    loop {
        let last = all;
        blocks = (clusters.checked_add(table)?.checked_add(blocks)?).div_ceil(per_block);
        table = blocks.div_ceil(per_table);
        all = clusters.checked_add(blocks)?.checked_add(table)?;
        if all == last {
            return (blocks + table).checked_mul(cluster);
        }
    }
}

/// Bytes of persistent bitmaps: their directory, tables and clusters.
fn bitmaps_size(bitmaps: &[BitmapInfo], size: u64, cluster: u64) -> u64 {
    let mut total = 0;
    let mut directory = 0;
    for bitmap in bitmaps.iter().filter(|bitmap| !bitmap.in_use) {
        let bytes = size.div_ceil(bitmap.granularity.max(1)).div_ceil(8);
        let clusters = bytes.div_ceil(cluster);
        total += clusters * cluster + (clusters * 8).next_multiple_of(cluster);
        directory += (24 + bitmap.name.len() as u64).next_multiple_of(8);
    }
    total + u64::next_multiple_of(directory, cluster)
}

/// Measures an image of these options for a source.
pub(super) fn measure(
    plan: &CreateOptions,
    preallocation: Preallocation,
    encryption_bytes: u64,
    source: &mut MeasureSource<'_>,
) -> Result<Measure, OpenError> {
    let too_big = || OpenError::Invalid("The image size is too large (try using a larger cluster size)".to_owned());
    let cluster = plan.cluster_size;
    let size = source.size.checked_next_multiple_of(512).filter(|size| *size <= i64::MAX as u64).ok_or_else(too_big)?;
    let entry = if plan.extended_l2 { 16 } else { 8 };
    let l2_tables = size.div_ceil(cluster).div_ceil(cluster / entry);
    if l2_tables > (32 << 20) / 8 {
        return Err(too_big());
    }
    let full = full_size(size, cluster, plan.refcount_bits.trailing_zeros(), plan.extended_l2).ok_or_else(too_big)?;
    let full = full + encryption_bytes.next_multiple_of(cluster);
    let disk = size.next_multiple_of(cluster);
    let needed = match &mut source.is_data {
        _ if matches!(preallocation, Preallocation::Full | Preallocation::Falloc) => disk,
        None => 0,
        Some(is_data) => data_bytes(size, cluster, is_data).map_err(OpenError::io("Unable to get block status"))?,
    };
    Ok(Measure {
        required: full - disk + needed,
        fully_allocated: full,
        bitmaps: match &source.bitmaps {
            Some(bitmaps) if plan.version >= 3 => Some(bitmaps_size(bitmaps, size, cluster)),
            _ => None,
        },
    })
}

/// Bytes of the clusters that hold data.
fn data_bytes(
    size: u64,
    cluster: u64,
    is_data: &mut dyn FnMut(u64, u64) -> std::io::Result<(bool, u64)>,
) -> std::io::Result<u64> {
    let (mut at, mut total, mut counted) = (0, 0, 0);
    while at < size {
        let (data, len) = is_data(at, size - at)?;
        let end = at + len.clamp(1, size - at);
        if data {
            let (first, last) = ((at / cluster * cluster).max(counted), end.next_multiple_of(cluster));
            total += last.saturating_sub(first);
            counted = last.max(counted);
        }
        at = end;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_qemu() {
        let plan = CreateOptions::new(0);
        let mut source = MeasureSource { size: 10 << 30, is_data: None, bitmaps: None };
        let measured = measure(&plan, Preallocation::Off, 0, &mut source).unwrap();
        assert_eq!((measured.required, measured.fully_allocated), (1_900_544, 10_739_318_784));
    }

    #[test]
    fn clusters_with_some_data_count_once() {
        let mut each =
            |at: u64, _: u64| Ok((at % 32768 < 512, if at.is_multiple_of(32768) { 512 } else { 32768 - at % 32768 }));
        assert_eq!(data_bytes(1 << 20, 65536, &mut each).unwrap(), 1 << 20);
    }
}
