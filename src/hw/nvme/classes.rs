//! What `-device help` and `-device X,help` show of this family.

use crate::hw::props::{Kind, Property};
use crate::hw::registry::{Category, Class};

const BLOCK_SIZE_TEXT: &str = "A power of two between 512 B and 2 MiB";
/// "Not given": the machine chooses.
const UNSET: &str = "4294967295";

const ADDR: Property =
    Property::new("addr", Kind::Str, Some("-1")).described("Slot and optional function number, example: 06.0 or 06");
const BOOTINDEX: Property = Property::new("bootindex", Kind::Int32, None);
const DRIVE: Property =
    Property::new("drive", Kind::Drive, None).described("Node name or ID of a block device to use as a backend");
const GRANULARITY: Property = Property::new("discard_granularity", Kind::Size, Some(UNSET));
const LOGICAL: Property = Property::new("logical_block_size", Kind::Size, Some("0")).described(BLOCK_SIZE_TEXT);
const MIN_IO: Property = Property::new("min_io_size", Kind::Size, Some("0"));
const OPT_IO: Property = Property::new("opt_io_size", Kind::Size, Some("0"));
const PHYSICAL: Property = Property::new("physical_block_size", Kind::Size, Some("0")).described(BLOCK_SIZE_TEXT);
const WRITE_CACHE: Property = Property::new("write-cache", Kind::OnOffAuto, Some("auto")).described("on/off/auto");

/// The controller and its namespaces.
pub const CLASSES: &[Class] = &[
    Class {
        name: "nvme",
        alias: None,
        bus: Some("PCI"),
        category: Category::Storage,
        description: Some("Non-Volatile Memory Express"),
        user_creatable: true,
        properties: &[
            ADDR,
            BOOTINDEX,
            GRANULARITY,
            DRIVE,
            LOGICAL,
            Property::new("max_ioqpairs", Kind::Uint32, Some("64")),
            Property::new("mdts", Kind::Uint8, Some("7")),
            MIN_IO,
            Property::new("msix_qsize", Kind::Uint16, Some("65")),
            OPT_IO,
            PHYSICAL,
            Property::new("serial", Kind::Str, None),
            WRITE_CACHE,
        ],
    },
    Class {
        name: "nvme-ns",
        alias: None,
        bus: Some("nvme-bus"),
        category: Category::Storage,
        description: Some("Virtual NVMe namespace"),
        user_creatable: true,
        properties: &[
            BOOTINDEX,
            GRANULARITY,
            DRIVE,
            Property::new("eui64", Kind::Uint64, Some("0")),
            LOGICAL,
            MIN_IO,
            Property::new("nsid", Kind::Uint32, Some("0")),
            OPT_IO,
            PHYSICAL,
            Property::new("uuid", Kind::Str, None).described("UUID (aka GUID) or \"auto\" for random value (default)"),
            WRITE_CACHE,
        ],
    },
];
