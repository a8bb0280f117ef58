//! How an image is opened: the options of QEMU's driver, and the sizes that follow from them.

use super::Geometry;
use super::cache::SLICE_BYTES;
use super::overlap::OverlapCheck;
use crate::block::error::OpenError;
use crate::block::options::Options;

/// The most that QEMU's default L2 cache takes.
const L2_DEFAULT_BYTES: u64 = 32 << 20;
/// Clusters of the smallest refcount cache.
const MIN_REFCOUNT_CLUSTERS: u64 = 4;
/// Seconds after which unused cache entries are dropped.
const CLEAN_INTERVAL: u64 = 600;

/// Sizes of the metadata caches, as given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheSizes {
    /// `cache-size`: both together, in bytes.
    pub combined: Option<u64>,
    /// `l2-cache-size` in bytes.
    pub l2: Option<u64>,
    /// `refcount-cache-size` in bytes.
    pub refcount: Option<u64>,
    /// `l2-cache-entry-size` in bytes.
    pub l2_entry: Option<u64>,
}

/// Which freed clusters the file below is told about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassDiscard {
    /// `pass-discard-request`: freed by the guest's discards; `None`: as the guest's discards are obeyed at all.
    pub request: Option<bool>,
    /// `pass-discard-snapshot`: freed by operations on snapshots.
    pub snapshot: bool,
    /// `pass-discard-other`: all others.
    pub other: bool,
}

impl Default for PassDiscard {
    fn default() -> Self {
        Self { request: None, snapshot: true, other: false }
    }
}

/// How an image is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenOptions {
    /// No writes at all.
    pub read_only: bool,
    /// The guest's discards free clusters.
    pub unmap: bool,
    /// Open an image that is marked as damaged, to read or check it.
    pub for_check: bool,
    /// `lazy-refcounts`; `None`: as the header says.
    pub lazy_refcounts: Option<bool>,
    /// Metadata caches.
    pub caches: CacheSizes,
    /// `cache-clean-interval` in seconds; 0: never.
    pub clean_interval: u64,
    /// What freed clusters mean for the file.
    pub pass_discard: PassDiscard,
    /// `discard-no-unref`: discarded clusters keep their place.
    pub discard_no_unref: bool,
    /// `overlap-check`.
    pub overlap: OverlapCheck,
    /// `encrypt.format`, if given.
    pub encrypt_format: Option<String>,
    /// `encrypt.key-secret`.
    pub key_secret: Option<String>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            unmap: false,
            for_check: false,
            lazy_refcounts: None,
            caches: CacheSizes::default(),
            clean_interval: CLEAN_INTERVAL,
            pass_discard: PassDiscard::default(),
            discard_no_unref: false,
            overlap: OverlapCheck::CACHED,
            encrypt_format: None,
            key_secret: None,
        }
    }
}

impl OpenOptions {
    /// Takes the driver's own options.
    ///
    /// # Errors
    /// QEMU's text for what is wrong.
    pub fn take(options: &mut Options) -> Result<Self, OpenError> {
        let mut open = Self { lazy_refcounts: options.take_bool("lazy-refcounts")?, ..Self::default() };
        open.caches = CacheSizes {
            combined: options.take_size("cache-size")?,
            l2: options.take_size("l2-cache-size")?,
            refcount: options.take_size("refcount-cache-size")?,
            l2_entry: options.take_size("l2-cache-entry-size")?,
        };
        open.clean_interval = options.take_size("cache-clean-interval")?.unwrap_or(CLEAN_INTERVAL);
        if open.clean_interval > u64::from(u32::MAX) {
            return invalid("Cache clean interval too big");
        }
        open.pass_discard = PassDiscard {
            request: options.take_bool("pass-discard-request")?,
            snapshot: options.take_bool("pass-discard-snapshot")?.unwrap_or(true),
            other: options.take_bool("pass-discard-other")?.unwrap_or(false),
        };
        open.discard_no_unref = options.take_bool("discard-no-unref")?.unwrap_or(false);
        open.overlap = take_overlap(options)?;
        open.encrypt_format = options.take_str("encrypt.format")?;
        open.key_secret = options.take_str("encrypt.key-secret")?;
        Ok(open)
    }

    /// Whether the file is told of what the guest's discards free.
    pub(super) fn pass_requests(&self) -> bool {
        self.pass_discard.request.unwrap_or(self.unmap)
    }
}

fn invalid<T>(text: impl Into<String>) -> Result<T, OpenError> {
    Err(OpenError::Invalid(text.into()))
}

fn take_overlap(options: &mut Options) -> Result<OverlapCheck, OpenError> {
    let short = options.take_str("overlap-check")?;
    let template = options.take_str("overlap-check.template")?;
    let name = match (short, template) {
        (Some(short), Some(template)) if short != template => {
            return invalid(format!(
                "Conflicting values for qcow2 options 'overlap-check' ('{short}') and 'overlap-check.template' \
                 ('{template}')"
            ));
        }
        (short, template) => short.or(template).unwrap_or_else(|| "cached".to_owned()),
    };
    let Some(mut check) = OverlapCheck::by_name(&name) else {
        return invalid(format!(
            "Unsupported value '{name}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, \
             constant, cached, all"
        ));
    };
    for (name, bit) in OverlapCheck::SECTIONS {
        if let Some(on) = options.take_bool(&format!("overlap-check.{name}"))? {
            check = check.with(bit, on);
        }
    }
    Ok(check)
}

/// Sizes of the caches of one image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Caches {
    pub(super) l2_bytes: u64,
    pub(super) l2_slice_bytes: u64,
    pub(super) refcount_bytes: u64,
}

impl Caches {
    /// What the options mean for a disk of `size` bytes.
    pub(super) fn of(sizes: &CacheSizes, g: Geometry, size: u64) -> Result<Self, OpenError> {
        let tables = size.div_ceil(g.cluster()).saturating_mul(g.entry_bytes());
        let useful = tables.checked_next_multiple_of(g.cluster()).unwrap_or(tables);
        let least = MIN_REFCOUNT_CLUSTERS * g.cluster();
        let (l2_bytes, refcount_bytes) = match (sizes.combined, sizes.l2, sizes.refcount) {
            (Some(_), Some(_), Some(_)) => {
                return invalid("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
            }
            (Some(all), Some(l2), None) => match all.checked_sub(l2) {
                Some(rest) => (l2, rest),
                None => return invalid("l2-cache-size may not exceed cache-size"),
            },
            (Some(all), None, Some(refcount)) => match all.checked_sub(refcount) {
                Some(rest) => (rest, refcount),
                None => return invalid("refcount-cache-size may not exceed cache-size"),
            },
            (Some(all), None, None) if all >= useful.saturating_add(least) => (useful, all - useful),
            (Some(all), None, None) => (all - all.min(least), all.min(least)),
            (None, l2, refcount) => (l2.unwrap_or(useful.min(L2_DEFAULT_BYTES)), refcount.unwrap_or(least)),
        };
        let default_slice = SLICE_BYTES.min(g.cluster());
        let l2_slice_bytes = sizes.l2_entry.unwrap_or(default_slice);
        if !l2_slice_bytes.is_power_of_two() || !(512..=g.cluster()).contains(&l2_slice_bytes) {
            return invalid(format!(
                "L2 cache entry size must be a power of two between 512 and the cluster size ({})",
                g.cluster()
            ));
        }
        for (bytes, unit, name) in [(l2_bytes, l2_slice_bytes, "L2"), (refcount_bytes, g.cluster(), "Refcount")] {
            if bytes / unit > i32::MAX as u64 {
                return invalid(format!("{name} cache size too big"));
            }
        }
        // A cache of small pieces that is to hold what few large ones would takes as much memory.
        Ok(Self { l2_bytes, l2_slice_bytes, refcount_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::format::qcow2::header::Compression;

    fn caches(combined: Option<u64>, l2: Option<u64>, refcount: Option<u64>) -> Result<(u64, u64), String> {
        let g = Geometry {
            version: 3,
            cluster_bits: 16,
            l2_bits: 13,
            extended: false,
            external: false,
            compression: Compression::Zlib,
        };
        let sizes = CacheSizes { combined, l2, refcount, l2_entry: None };
        let caches = Caches::of(&sizes, g, 8 << 30).map_err(|error| error.to_string())?;
        Ok((caches.l2_bytes, caches.refcount_bytes))
    }

    #[test]
    fn cache_sizes_are_shared_out_as_qemu_does() {
        let mib = 1 << 20;
        assert_eq!(caches(None, None, None), Ok((mib, 4 << 16)));
        assert_eq!(caches(Some(2 * mib), None, None), Ok((mib, mib)));
        assert_eq!(caches(Some(mib), None, None), Ok((mib - (4 << 16), 4 << 16)));
        assert_eq!(caches(Some(2 * mib), Some(mib / 2), None), Ok((mib / 2, mib + mib / 2)));
        assert_eq!(caches(Some(mib), Some(2 * mib), None), Err("l2-cache-size may not exceed cache-size".to_owned()));
        assert!(caches(Some(mib), Some(mib), Some(mib)).is_err());
    }

    #[test]
    fn overlap_checks_are_chosen_by_template_and_section() {
        let take = |pairs: &[(&str, &str)]| {
            let mut options = Options::default();
            pairs.iter().for_each(|(key, value)| options.insert(key, *value));
            OpenOptions::take(&mut options).map(|open| open.overlap).map_err(|error| error.to_string())
        };
        assert_eq!(take(&[]), Ok(OverlapCheck::CACHED));
        let none = OverlapCheck::NONE.with(2, true);
        assert_eq!(take(&[("overlap-check.template", "none"), ("overlap-check.active-l2", "on")]), Ok(none));
        assert!(take(&[("overlap-check", "blah")]).unwrap_err().starts_with("Unsupported value 'blah'"));
        assert!(take(&[("overlap-check", "all"), ("overlap-check.template", "none")]).is_err());
    }
}
