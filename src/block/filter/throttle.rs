//! `throttle`: requests wait until their group's limits let them go on.

use std::sync::Arc;

use crate::block::driver::{Driver, Kind, Opened};
use crate::block::error::OpenError;
use crate::block::graph::OpenContext;
use crate::block::keys::{KeyKind, Keys};
use crate::block::node::{BlockNode, Extent, IoResult, NodeInfo};
use crate::object::Object;
use crate::object::throttle::{Direction, Group};

/// A throttled node.
pub struct ThrottleNode {
    file: Arc<dyn BlockNode>,
    group: Arc<Group>,
}

impl ThrottleNode {
    /// Over `file`, with the limits of a group.
    #[must_use]
    pub fn new(file: Arc<dyn BlockNode>, group: Arc<Group>) -> Self {
        Self { file, group }
    }
}

impl BlockNode for ThrottleNode {
    forward!(file: len flush extent allocated_bytes truncate set_sharing preallocate image event children);

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> IoResult<()> {
        self.group.wait(Direction::Read, buf.len() as u64);
        self.file.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8], fua: bool) -> IoResult<()> {
        self.group.wait(Direction::Write, buf.len() as u64);
        self.file.write_at(offset, buf, fua)
    }

    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.group.wait(Direction::Write, len);
        self.file.zero(offset, len, may_unmap)
    }

    fn zero_fast(&self, offset: u64, len: u64, may_unmap: bool) -> IoResult<()> {
        self.group.wait(Direction::Write, len);
        self.file.zero_fast(offset, len, may_unmap)
    }

    fn discard(&self, offset: u64, len: u64) -> IoResult<()> {
        self.group.wait(Direction::Write, len);
        self.file.discard(offset, len)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo { driver: "throttle", ..self.file.info() }
    }
}

/// `throttle`.
pub struct Throttle;

impl Driver for Throttle {
    fn name(&self) -> &'static str {
        "throttle"
    }

    fn kind(&self) -> Kind {
        Kind::Filter
    }

    fn keys(&self) -> Keys {
        &[("file", KeyKind::Node), ("throttle-group", KeyKind::Text)]
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Result<Opened, OpenError> {
        let name = context.options.take_str("throttle-group")?;
        let name = name.ok_or_else(|| OpenError::Invalid("Please specify a throttle group".to_owned()))?;
        let object = context.objects().get(&name);
        let Some(Object::ThrottleGroup(group)) = object.as_deref() else {
            return Err(OpenError::Invalid(format!("Throttle group '{name}' does not exist")));
        };
        let group = Arc::clone(group);
        let file = context.filtered("file")?;
        context.finish()?;
        let node = ThrottleNode::new(Arc::clone(&file.node), group);
        Ok(Opened::new(Arc::new(node), file.filename).over(file.file))
    }
}
