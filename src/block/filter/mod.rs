//! Filters: nodes of the length of the one below, and drivers for tests.

/// Methods of [`crate::block::BlockNode`] that a filter hands on to the node in this field of its own.
macro_rules! forward {
    ($field:ident: $($method:ident)*) => { $(forward!(@ $field $method);)* };
    (@ $field:ident len) => {
        fn len(&self) -> IoResult<u64> {
            self.$field.len()
        }
    };
    (@ $field:ident read_at) => {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
            self.$field.read_at(offset, buf)
        }
    };
    (@ $field:ident write_at) => {
        fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
            self.$field.write_at(offset, buf, fua)
        }
    };
    (@ $field:ident zero) => {
        fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
            self.$field.zero(offset, len, may_unmap)
        }
    };
    (@ $field:ident zero_fast) => {
        fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
            self.$field.zero_fast(offset, len, may_unmap)
        }
    };
    (@ $field:ident discard) => {
        fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
            self.$field.discard(offset, len)
        }
    };
    (@ $field:ident flush) => {
        fn flush(&self) -> IoResult<()> {
            self.$field.flush()
        }
    };
    (@ $field:ident extent) => {
        fn extent(&self, offset: u64, len: u64) -> IoResult<(Extent, u64)> {
            self.$field.extent(offset, len)
        }
    };
    (@ $field:ident allocated_bytes) => {
        fn allocated_bytes(&self) -> IoResult<u64> {
            self.$field.allocated_bytes()
        }
    };
    (@ $field:ident truncate) => {
        fn truncate(&self, len: u64) -> IoResult<()> {
            self.$field.truncate(len)
        }
    };
    (@ $field:ident set_sharing) => {
        fn set_sharing(&self, sharing: crate::block::Sharing) -> Result<(), OpenError> {
            self.$field.set_sharing(sharing)
        }
    };
    (@ $field:ident preallocate) => {
        fn preallocate(&self, offset: u64, len: u64, how: crate::block::create::Preallocation) -> IoResult<()> {
            self.$field.preallocate(offset, len, how)
        }
    };
    (@ $field:ident image) => {
        fn image(&self) -> Option<&dyn crate::block::ImageOps> {
            self.$field.image()
        }
    };
    (@ $field:ident event) => {
        fn event(&self, event: crate::block::Event) {
            self.$field.event(event);
        }
    };
    (@ $field:ident children) => {
        fn children(&self) -> Vec<(&'static str, Arc<dyn BlockNode>)> {
            vec![("file", Arc::clone(&self.$field))]
        }
    };
}

pub mod blkdebug;
mod blkdebug_rules;
pub mod blklogwrites;
pub mod blkverify;
pub mod compress;
pub mod copy_on_read;
pub mod preallocate;
pub mod quorum;
pub mod throttle;
