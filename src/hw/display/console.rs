//! A VGA on a board as the user interface sees it.

use std::fmt;
use std::sync::Arc;

use crate::bus::{BoardCell, DeviceRef};
use crate::ui::{ConsoleKind, ConsoleSource, Refresh, Surface};

use super::vga::Vga;

/// Fetches the accelerator's log of written pages into the blocks' bitmaps.
pub type SyncDirty = Box<dyn Fn() + Send + Sync>;

/// The console of a VGA.
pub struct VgaConsole {
    board: Arc<BoardCell>,
    vga: DeviceRef<Vga>,
    sync_dirty: SyncDirty,
}

impl fmt::Debug for VgaConsole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VgaConsole({:?})", self.vga)
    }
}

impl VgaConsole {
    /// `sync_dirty` is called before each refresh without the board lock: `Accelerator::sync_dirty`.
    #[must_use]
    pub fn new(board: Arc<BoardCell>, vga: DeviceRef<Vga>, sync_dirty: SyncDirty) -> Self {
        Self { board, vga, sync_dirty }
    }
}

impl ConsoleSource for VgaConsole {
    fn kind(&self) -> ConsoleKind {
        ConsoleKind::Graphic
    }

    fn refresh(&self, surface: &mut Surface, all: bool) -> Refresh {
        (self.sync_dirty)();
        let refresh = self.board.lock().with(&self.vga, |vga| vga.refresh(surface, all));
        // The name is the one that the board gave, so the device is there.
        refresh.unwrap_or(Refresh::Changed(Vec::new()))
    }
}
