//! Interrupt controllers for machines whose accelerator has none in the kernel.
//!
//! Unlike other chips these hold leaf locks of their own: processors and the main loop's timers reach them without the
//! board lock. Each chip decides under its lock and acts after releasing it, so that no two of these locks are ever
//! held at once; where an output is a level, [`settle`] makes the last call tell the last state.

pub mod i8259;
pub mod ioapic;
pub mod lapic;

/// Drives an output level from a state behind a lock, without holding the lock while the receiver is called. `first` is
/// the level that the caller found to be new; `current` takes the lock and tells the level as it is now.
///
/// Callers may race: whoever calls `drive` last looks at the state again afterwards, so the receiver ends up with the
/// newest level.
fn settle(first: bool, current: impl Fn() -> bool, drive: impl Fn(bool)) {
    let mut level = first;
    loop {
        drive(level);
        let now = current();
        if now == level {
            return;
        }
        level = now;
    }
}
